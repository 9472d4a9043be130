# SPDX-License-Identifier: Apache-2.0
"""`balloontrace fleet` on the command line."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from balloontrace.cli.commands.fleet import progress_line
from balloontrace.errors import EXIT_USAGE, UserError
from balloontrace.fleet.dataset import Dataset
from balloontrace.fleet.engine import Progress
from balloontrace.fleet.schema import INPUT
from tests.unit.command_line import balloontrace
from tests.unit.fleet.fleets import fleet, hostile, rows


def test_a_fleet_is_read_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bad = hostile(fleet(tmp_path / "in", 4))
    words = ("fleet", tmp_path / "in", "-o", tmp_path / "out", "--workers", 1, "--json")
    balloontrace(*map(str, words))
    captured = capsys.readouterr()
    said = json.loads(captured.out)
    assert (said["found"], said["read"], said["known"]) == (7, 4, 0)
    assert said["failed"] == {"unreadable": 3}
    assert {Path(one["source"]).name for one in said["failures"]} == bad.keys()
    assert "7 recordings read" in captured.err
    balloontrace("fleet", "run", *map(str, words[1:]))
    said = json.loads(capsys.readouterr().out)
    assert (said["found"], said["read"], said["known"], said["failed"]) == (7, 0, 7, {})
    assert len(rows(Dataset.there(tmp_path / "out"), "guest")) == 4


@pytest.mark.parametrize(
    "words",
    [
        ("--workers", "0"),
        ("--time", "600h"),
        ("--memory", "1"),
        ("--memory", "1M"),
        ("--memory", "٣G"),
        ("--time", "x"),
    ],
)
def test_what_makes_no_sense_is_refused(tmp_path: Path, words: tuple[str, ...]) -> None:
    with pytest.raises(UserError) as raised:
        balloontrace("fleet", fleet(tmp_path / "in", 1), "-o", tmp_path / "out", *words)
    assert raised.value.exit_code == EXIT_USAGE
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("by", [signal.SIGINT, signal.SIGKILL])
def test_what_ends_a_run_leaves_a_whole_dataset_and_no_workers(tmp_path: Path, by: int) -> None:
    fleet(tmp_path / "in", 40)
    out = tmp_path / "out"
    words = ["fleet", str(tmp_path / "in"), "-o", str(out), "--workers", "4"]
    process = subprocess.Popen(
        [sys.executable, "-m", "balloontrace", *words],
        stderr=subprocess.PIPE, text=True, cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[4])},
    )  # fmt: skip
    dataset = Dataset(out)
    while process.poll() is None and not dataset.parts(INPUT):
        time.sleep(0.01)
    process.send_signal(by)
    _, said = process.communicate(timeout=60)
    assert process.returncode in (0, 130, -signal.SIGKILL), said  # it may have been quicker
    assert "Traceback" not in said
    while orphans(out):
        time.sleep(0.01)
    with dataset.alone():
        pass
    inputs = rows(dataset, "input")
    assert len(rows(dataset, "guest")) == len(inputs) >= 2
    assert not list(out.glob("**/.*.parquet*"))


def orphans(out: Path) -> list[str]:
    """Workers that hold something of the dataset open, or were told of it, and go on."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if b"balloontrace.fleet.worker" in (process / "cmdline").read_bytes():
                where = os.readlink(process / "cwd")
                found += [process.name] if where == str(out.parent) else []
        except OSError:
            continue
    return found


def test_progress_says_how_far_it_is_and_how_long_it_takes() -> None:
    progress = Progress(files=200, size_bytes=200 << 20)
    assert "time left not known" in progress_line(progress)
    progress.began_s -= 100
    progress.files_done, progress.bytes_done, progress.failures = 100, 50 << 20, {"time": 2}
    line = progress_line(progress)
    assert line == "100 of 200 recordings, 50 of 200 MiB, 1/s, 300 s left, 2 failed"
