# SPDX-License-Identifier: Apache-2.0
"""The one file for guests: what is in it, and that it runs with Python alone."""

from __future__ import annotations

import io
import json
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest

from balloontrace import __version__, bundle
from balloontrace.cli.bundled import VERBS, verb_of
from balloontrace.errors import EXIT_UNSUPPORTED, EXIT_USAGE, UserError
from balloontrace.one_file import compiled_recorders
from tests.unit.command_line import balloontrace
from tests.unit.test_house import IN_THE_GUEST, PACKAGE

MOST_BYTES = 3 << 19  # 1.5 MiB

PYTHON = [os.path.realpath(sys.executable), "-S", "-I"]
"""Without what is installed, and where any user can run it."""


@pytest.fixture(scope="module")
def place() -> Iterator[Path]:
    """A directory that every user can read, with a name that is to be quoted."""
    directory = Path(tempfile.mkdtemp(prefix="a bundle: "))
    directory.chmod(0o755)
    yield directory
    shutil.rmtree(directory)


@pytest.fixture(scope="module")
def bundled(place: Path) -> Path:
    path = place / bundle.NAME
    balloontrace("bundle", "-o", path)
    return path


def run(
    bundled: Path, *arguments: str, python: list[str] = PYTHON
) -> subprocess.CompletedProcess[str]:
    """Run it as a user who is not root, in its directory."""
    nobody: dict[str, Any] = {"user": 65534, "extra_groups": []} if os.geteuid() == 0 else {}
    command = [*python, bundled.name, *arguments]
    return subprocess.run(
        command, cwd=bundled.parent, capture_output=True, text=True, check=False, **nobody
    )


def test_it_is_small_and_can_be_run(bundled: Path) -> None:
    assert bundled.stat().st_size < MOST_BYTES
    assert bundled.stat().st_mode & 0o777 == 0o755
    assert bundled.read_bytes().startswith(b"#!/usr/bin/env python3\n")


def test_it_holds_what_runs_in_a_guest_and_no_more(bundled: Path) -> None:
    names = zipfile.ZipFile(bundled).namelist()
    ours = {name for name in names if name.startswith("balloontrace/")}
    programs = {name for name in ours if name.endswith(".json")}
    assert {Path(name).stem for name in programs} == {"x86_64", "aarch64"}
    compiled = {name for name in names if name.endswith(".pyc")}
    assert compiled == {f"{name}c" for name in ours if name.endswith(".py")}
    modules = {name for name in ours - programs - compiled if not name.endswith("/__init__.py")}
    guests = {str(path.relative_to(PACKAGE.parent)) for path in IN_THE_GUEST}
    assert modules == {name for name in guests if not name.endswith("/__init__.py")}
    others = {name.partition("/")[0].partition("-")[0] for name in set(names) - ours}
    recorders = compiled_recorders()
    assert others == {"pyroute2", "LICENSE", "__main__.py", "recorder.txt", recorders[:8]}


def test_a_recorder_takes_along_what_it_imports_and_no_more(bundled: Path) -> None:
    zipped = zipfile.ZipFile(bundled)
    taken = zipped.read("recorder.txt").decode().splitlines()
    assert set(taken) < set(zipped.namelist())
    compiled = zipfile.ZipFile(io.BytesIO(zipped.read(compiled_recorders())))
    assert set(compiled.namelist()) == {f"{name}c" for name in taken}
    assert {"balloontrace/tracers/record/session.py", "pyroute2/netlink/nlsocket.py"} < set(taken)
    assert not any(name.startswith(("balloontrace/cli/", "balloontrace/tracers/doctor/"))
                   for name in taken)  # fmt: skip


def test_the_same_tree_makes_the_same_bytes(bundled: Path, tmp_path: Path) -> None:
    """Elsewhere, with other times, permissions and hashes."""
    left_out = shutil.ignore_patterns("__pycache__", "analysis", "lab")
    shutil.copytree(
        PACKAGE, tmp_path / "balloontrace", ignore=left_out, copy_function=shutil.copyfile
    )
    shutil.copyfile(PACKAGE.parent / "LICENSE", tmp_path / "LICENSE")
    (tmp_path / "balloontrace" / "errors.py").chmod(0o600)
    code = "import sys; from balloontrace import bundle; sys.stdout.buffer.write(bundle.made())"
    path = f"{tmp_path}:{os.environ.get('PYTHONPATH', '')}"
    environment = {**os.environ, "PYTHONPATH": path, "PYTHONHASHSEED": "7"}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, cwd=tmp_path, capture_output=True, check=True
    )
    assert done.stdout == bundled.read_bytes()


ANOTHER_PYTHON = (
    "import importlib._bootstrap_external as external, importlib.util\n"
    "external.MAGIC_NUMBER = importlib.util.MAGIC_NUMBER = b'\\0\\0\\r\\n'\n"
)


@pytest.mark.parametrize(
    ("before", "origin"), [("", ".pyc"), (ANOTHER_PYTHON, ".py")], ids=["the same", "another"]
)
def test_what_is_compiled_is_for_the_python_that_made_it(
    bundled: Path, before: str, origin: str
) -> None:
    code = (
        f"{before}import sys, zipfile; sys.path.insert(0, {str(bundled)!r})\n"
        "from balloontrace.tracers.load import running_copy\n"
        "print(running_copy.__file__)\n"
        "copy = zipfile.ZipFile(running_copy.make())\n"
        "print(copy.testzip(), *copy.namelist())\n"
        "magic = copy.read(copy.namelist()[0])[:4]\n"
        "print(magic == __import__('importlib.util').util.MAGIC_NUMBER)\n"
    )
    done = subprocess.run([*PYTHON, "-c", code], capture_output=True, text=True, check=True)
    taken = zipfile.ZipFile(bundled).read("recorder.txt").decode().splitlines()
    module, copied, is_ours = done.stdout.splitlines()
    assert module == f"{bundled}/balloontrace/tracers/load/running_copy{origin}"
    assert copied.split() == ["None", *(f"{name}c" for name in taken)]
    assert is_ours == "True"


def test_without_pyroute2_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", [])
    with pytest.raises(UserError, match="pyroute2") as caught:
        bundle.made()
    assert "balloontrace[bundle]" in caught.value.hint


@pytest.mark.parametrize("verb", [verb_of(name) for name in VERBS], ids=VERBS)
def test_it_says_what_it_does(bundled: Path, verb: Any) -> None:
    assert f"\n  {verb.name} " in run(bundled, "--help").stdout
    done = run(bundled, verb.name, "--help")
    assert done.returncode == 0
    assert done.stdout.startswith(f"usage: {bundle.NAME} {verb.name} [OPTIONS]")


def test_its_version(bundled: Path) -> None:
    assert run(bundled, "--version").stdout == f"balloontrace {__version__}\n"


@pytest.mark.parametrize(
    ("arguments", "status", "complaint"),
    [
        (["record"], EXIT_UNSUPPORTED, "needs root"),
        (["record", "-d", "soon"], EXIT_USAGE, "is not a duration"),
        (["record", "--no-such-option"], EXIT_USAGE, "--no-such-option"),
        (["record", "--", "no-such-command"], 1, "cannot run no-such-command"),
        (["report"], EXIT_USAGE, "this file has record, mark, watch, live, doctor"),
        (["mark"], EXIT_USAGE, "missing argument TEXT..."),
        (["mark", "now"], (1, EXIT_UNSUPPORTED), "recording"),
    ],
)
def test_what_goes_wrong_is_one_line(
    bundled: Path, arguments: list[str], status: Any, complaint: str
) -> None:
    done = run(bundled, *arguments)
    assert done.returncode in (status if isinstance(status, tuple) else (status,))
    assert complaint in done.stderr
    assert done.stderr.startswith("balloontrace: ")
    assert done.stderr.count("\n") == 1
    assert done.stdout == ""


def test_a_python_without_all_of_its_library_is_told_so(bundled: Path) -> None:
    """As Debian's python3-minimal is."""
    code = f"import runpy, sys; sys.modules['ctypes'] = None; runpy.run_path({str(bundled)!r})"
    done = subprocess.run([*PYTHON, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith("balloontrace: this Python has no ctypes: install ")
    assert done.stderr.count("\n") == 1


def test_doctor_finds_the_pyroute2_in_it_and_asks_for_nothing(bundled: Path) -> None:
    done = run(bundled, "doctor", "--json")
    assert done.returncode == EXIT_UNSUPPORTED
    tools = json.loads(done.stdout)["tools"]
    assert tools.keys() == {"python", "bcc", "pyroute2"}
    assert tools["pyroute2"]["version"] == metadata.version("pyroute2")
    assert [tool["remedy"] for tool in tools.values()] == ["", "", ""]


def test_there_is_nothing_to_compile(bundled: Path) -> None:
    code = (
        f"import sys; sys.path.insert(0, {str(bundled)!r})\n"
        "from balloontrace.tracers.load import loader\n"
        "print(loader._code(False, False)[1])\n"
        "loader._code(False, True)\n"
    )
    done = subprocess.run([*PYTHON, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout == "shipped\n"
    assert "UserError: there is no source of the BPF programs here" in done.stderr


def test_a_recorder_goes_on_without_the_file(bundled: Path, place: Path) -> None:
    """It starts the netlink process, in which pyroute2 is imported, when the file has gone."""
    copy = place / "to be removed.pyz"
    shutil.copyfile(bundled, copy)
    recorder = (
        "from balloontrace.tracers.record.netlink_client import NetlinkProcess\n"
        "print(json.dumps(NetlinkProcess(0).finish([])))\n"
    )
    code = (
        f"import os, sys; sys.path.insert(0, {str(copy)!r})\n"
        "from balloontrace.tracers.load import running_copy\n"
        "root = running_copy.make()\n"
        f"os.unlink({str(copy)!r})\n"
        "program = f'import json, sys; sys.path = [{root!r}, *sys.path]; ' + "
        f"{recorder!r}\n"
        "os.execv(sys.executable, [sys.executable, '-S', '-I', '-c', program])\n"
    )
    done = subprocess.run([*PYTHON, "-c", code], capture_output=True, text=True, check=False)
    assert done.stderr == ""
    answers = [{name for name in answer if name != "t_ns"} for answer in json.loads(done.stdout)]
    # What pyroute2 has to say of taskstats here, good or bad.
    assert {"delays", "why"} in answers or {
        *("delayacct", "since_boot", "taskstats_version")
    } in answers
    assert "No module named" not in done.stdout
