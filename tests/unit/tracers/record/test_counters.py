# SPDX-License-Identifier: Apache-2.0
"""`record --counters` on this very machine, which need not have a balloon: it takes nothing but
/proc."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from balloontrace.recording.reader import read_recording

NOBODY: dict[str, Any] = {"user": 65534, "extra_groups": []} if os.geteuid() == 0 else {}
HEADERS = {"attached_ns", "balloon", "clock", "counters", "guest", "kinds", "seams", "tool"}


def recorded(directory: Path, *arguments: str, **how: Any) -> Path:
    path = directory / "counters.btrace"
    command = [sys.executable, "-m", "balloontrace", "record", "--counters", "-o", "-", *arguments]
    with path.open("wb") as output:
        done = subprocess.run(
            command, stdout=output, stderr=subprocess.PIPE, text=True, check=False, **how
        )
    assert done.returncode == 0, done.stderr
    assert "reading the guest's counters into -; Ctrl-C ends it" in done.stderr
    assert "nothing traced" in done.stderr
    return path


@pytest.mark.parametrize("user", [{}, NOBODY], ids=["this user", "nobody"])
def test_it_reads_ten_times_a_second(tmp_path: Path, user: dict[str, Any]) -> None:
    recording = read_recording(str(recorded(tmp_path, "-d", "2s", **user)))
    assert recording.trailer is not None
    assert recording.complete
    assert recording.header.keys() >= HEADERS
    assert recording.trailer["reason"] == "duration"
    # One at the begin and one at the end beside them; a machine that is busy may leave some out.
    assert 12 <= recording.trailer["samples"] == len(recording.samples) <= 22
    assert not any(seam["rung"] for seam in recording.header["seams"].values())


def test_a_command_ends_it(tmp_path: Path) -> None:
    recording = read_recording(str(recorded(tmp_path, "--", "sh", "-c", "exit 7")))
    assert recording.trailer is not None
    assert recording.trailer["reason"] == "command"
    assert recording.trailer["command"]["status"] == 7


@pytest.mark.parametrize("stderr", ["full", "closed by its reader"])
def test_nobody_who_hears_it_is_no_reason_to_end(tmp_path: Path, stderr: str) -> None:
    path = tmp_path / "counters.btrace"
    read_end, write_end = os.pipe()
    os.close(read_end)
    command = [sys.executable, "-m", "balloontrace", "record", "--counters", "-d", "1s"]
    with open("/dev/full", "wb") as full:
        heard_by = full.fileno() if stderr == "full" else write_end
        done = subprocess.run([*command, "-o", str(path)], stderr=heard_by, check=False)
    os.close(write_end)
    assert done.returncode == 0
    assert read_recording(str(path)).complete


@pytest.fixture
def unreadable() -> Iterator[Path]:
    """A directory that others may write to, and not read; where they come to it."""
    with tempfile.TemporaryDirectory(dir="/tmp") as directory:
        Path(directory).chmod(0o333)
        yield Path(directory)
        Path(directory).chmod(0o700)


def test_a_directory_that_cannot_be_read_takes_a_recording(unreadable: Path) -> None:
    path = unreadable / "x.btrace"
    command = [sys.executable, "-m", "balloontrace", "record", "--counters", "--sync", "-d", "1s"]
    done = subprocess.run(
        [*command, "-o", str(path)], capture_output=True, text=True, check=False, **NOBODY
    )
    assert done.returncode == 0, done.stderr
    assert read_recording(str(path)).complete


@pytest.mark.parametrize("option", ["--minimal", "--strict", "--wait", "--means=fentry"])
def test_what_is_about_tracing_is_refused(option: str) -> None:
    command = [sys.executable, "-m", "balloontrace", "record", "--counters", option]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith(f"balloontrace: {option.partition('=')[0]} is about tracing")
    assert done.stderr.count("\n") == 1
