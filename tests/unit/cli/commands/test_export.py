# SPDX-License-Identifier: Apache-2.0
"""`balloontrace export`: whole or not at all, never over something else, and honest about gaps."""

from __future__ import annotations

import errno
import os
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from balloontrace.analysis.export import csv, parquet, perfetto
from balloontrace.cli.app import main
from balloontrace.errors import EXIT_FAILURE, EXIT_UNSUPPORTED, EXIT_USAGE

DATA = Path(__file__).parents[3] / "data"
IDLE = DATA / "6.1-stock-idle.btrace"
FORMATS = ("perfetto", "parquet", "csv")


@pytest.fixture(autouse=True)
def _in_an_empty_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def export(monkeypatch: pytest.MonkeyPatch, *arguments: str | Path) -> int:
    """Exit code of the command line."""
    monkeypatch.setattr(sys, "argv", ["balloontrace", "export", *map(str, arguments)])
    with pytest.raises(SystemExit) as ended:
        main()
    return int(ended.value.code or 0)


@pytest.mark.parametrize("named", [True, False], ids=["named as it is", "given"])
def test_the_host_s_view_is_not_overwritten(named: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    Path("r.btrace").write_bytes(IDLE.read_bytes())
    view = Path("r.host.jsonl" if named else "other.jsonl")
    view.write_text('{"event": "begin", "t_ns": 1, "format": 1}\n')
    before = view.read_bytes()
    given = [] if named else ["--host", str(view)]
    arguments = ("r.btrace", "--format", "perfetto", "-o", str(view), "-f", *given)
    assert export(monkeypatch, *arguments) == EXIT_USAGE
    assert view.read_bytes() == before


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.mark.parametrize("form", FORMATS)
def test_nothing_is_overwritten_silently(
    form: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = (IDLE, "--format", form, "-o", "out")
    assert export(monkeypatch, *arguments) == 0
    out = Path("out")
    assert mode(out) == (0o600 if form == "perfetto" else 0o700)
    assert "wrote out: " in capsys.readouterr().err
    before = out.stat()
    assert export(monkeypatch, *arguments) == EXIT_FAILURE
    assert "out exists; overwrite it with -f" in capsys.readouterr().err
    assert out.stat().st_ino == before.st_ino
    assert export(monkeypatch, *arguments, "-f") == 0
    assert out.stat().st_ino != before.st_ino
    assert os.listdir() == ["out"]


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("force", [True, False])
def test_a_failure_leaves_nothing_and_takes_nothing(
    form: str,
    force: bool,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    if force:
        assert export(monkeypatch, IDLE, "--format", form, "-o", "out") == 0

    def fails(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    for module in (csv, parquet):
        monkeypatch.setattr(module, "describe", fails)
    monkeypatch.setattr(perfetto, "_values", fails)
    flags = ["-f"] if force else []
    assert export(monkeypatch, IDLE, "--format", form, "-o", "out", *flags) == EXIT_FAILURE
    assert "cannot write out: No space left on device" in capsys.readouterr().err
    assert os.listdir() == (["out"] if force else [])


def test_force_replaces_only_what_an_export_wrote(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    to_csv = (IDLE, "--format", "csv", "-f", "-o")
    Path("mine").mkdir()
    assert export(monkeypatch, *to_csv, "mine") == 0  # it was empty
    Path("mine", "notes.txt").write_text("mine")
    assert export(monkeypatch, *to_csv, "mine") == EXIT_FAILURE
    assert "holds more than an export" in capsys.readouterr().err
    assert Path("mine", "notes.txt").read_text() == "mine"
    Path("link").symlink_to("elsewhere")
    Path("elsewhere").mkdir()
    assert export(monkeypatch, *to_csv, "link") == EXIT_FAILURE
    assert export(monkeypatch, *to_csv, IDLE.name) == 0
    to_perfetto = (IDLE, "--format", "perfetto", "-f", "-o")
    for taken in ("link", "elsewhere", "/dev/null"):
        assert export(monkeypatch, *to_perfetto, taken) == EXIT_FAILURE
        assert "is no regular file" in capsys.readouterr().err
    assert os.listdir("elsewhere") == []


def test_the_recording_is_not_overwritten(monkeypatch: pytest.MonkeyPatch) -> None:
    Path("a.btrace").write_bytes(IDLE.read_bytes())
    code = export(monkeypatch, "a.btrace", "--format", "perfetto", "-f", "-o", "a.btrace")
    assert code == EXIT_USAGE
    assert Path("a.btrace").read_bytes() == IDLE.read_bytes()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--format", "csv", "-o", "-"), "stdout takes one table; name it with --kind"),
        (("--format", "csv", "-o", "-", "--kind", "fill", "--kind", "leak"), "stdout takes one"),
        (("--format", "parquet", "-o", "-"), "parquet is a directory"),
        (("--format", "perfetto", "-o", "x", "--kind", "fill"), "--kind is for tables"),
        (("--format", "xml", "-o", "x"), "xml"),
        (("--format", "csv"), "--output"),
    ],
)
def test_wrong_usage(
    arguments: tuple[str, ...],
    said: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert export(monkeypatch, IDLE, *arguments) == EXIT_USAGE
    assert said in capsys.readouterr().err
    assert os.listdir() == []


@pytest.mark.parametrize(("form", "package"), [("perfetto", "perfetto"), ("csv", "pyarrow")])
def test_a_package_that_is_missing_is_named(
    form: str, package: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(
        "importlib.util.find_spec", lambda name: None if name == package else object()
    )
    assert export(monkeypatch, IDLE, "--format", form, "-o", "out") == EXIT_UNSUPPORTED
    said = capsys.readouterr().err
    assert f"export needs {package}" in said
    assert "pip install 'balloontrace[export]'" in said


@pytest.mark.parametrize("form", FORMATS)
def test_what_is_readable_is_exported_and_the_rest_is_named(
    form: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = IDLE.read_bytes()
    Path("torn.btrace").write_bytes(whole[: len(whole) // 3])
    assert export(monkeypatch, "torn.btrace", "--format", form, "-o", "out") == 0
    said = capsys.readouterr().err
    assert "torn.btrace is not complete (no trailer: the recorder was killed" in said
    assert "exported what can be read" in said
    if form == "csv":
        assert 0 < len(Path("out", "fill.csv").read_text().splitlines()) - 1 < 512
    damaged = bytearray(whole)
    damaged[len(whole) // 2] ^= 0xFF
    Path("damaged.btrace").write_bytes(damaged)
    assert export(monkeypatch, "damaged.btrace", "--format", form, "-o", "out", "-f") == 0
    said = capsys.readouterr().err
    assert "1 blocks are missing" in said
    assert "bytes cannot be read" in said
    assert "not recorded, so not in the export: " in said  # by the recorder of then
    assert export(monkeypatch, "absent.btrace", "--format", form, "-o", "new") == EXIT_FAILURE
    assert not Path("new").exists()


def test_streams() -> None:
    command = [sys.executable, "-m", "balloontrace", "export", str(IDLE), "-o", "-", "--format"]
    source = str(Path(__file__).parents[4])
    environment = {**os.environ, "PYTHONPATH": source}
    table = subprocess.run(
        [*command, "csv", "--kind", "target"], capture_output=True, check=True, env=environment
    )
    header, *rows = table.stdout.decode().splitlines()
    assert header.startswith('"start_ns","duration_ns","asked_balloon_pages","done_balloon_pages"')
    assert len(rows) == 2
    assert b"wrote to stdout: 2 rows" in table.stderr
    trace = subprocess.run([*command, "perfetto"], capture_output=True, check=True, env=environment)
    assert trace.stdout[:1] == b"\n"  # the first packet's tag
    assert os.listdir() == []
