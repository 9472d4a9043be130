# SPDX-License-Identifier: Apache-2.0
"""Ending the command of a recording, whatever it does about it: the recording goes on, and ends."""

from __future__ import annotations

import itertools
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NoReturn

import pytest

from balloontrace.recording.reader import read_recording
from balloontrace.tracers.record import command as command_of
from balloontrace.tracers.record.command import Command, CommandError, _family

Begin = Callable[[str], Command]


@pytest.fixture
def begin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Begin]:
    """Begins one, of a shell's script; none outlives the test."""
    own = os.open(tmp_path / "recording", os.O_CREAT | os.O_WRONLY)
    monkeypatch.setattr(command_of, "GRACE_S", 60.0)
    monkeypatch.setattr(command_of, "KILLED_S", 60.0)
    kill, begun = os.kill, []

    def of_script(script: str) -> Command:
        begun.append(Command(("sh", "-c", script), 0, own))
        return begun[-1]

    yield of_script
    for one in begun:
        if not one.ended():
            kill(one._pid, signal.SIGKILL)
            os.waitpid(one._pid, 0)
    os.close(own)


def test_more_processes_than_this_one_may_have_files_are_ended(begin: Begin) -> None:
    command = begin("for n in $(seq 80); do sleep 1000 & done; wait")
    while len(_family(command._pid)) < 81:
        assert not command.ended()
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    family = _family(command._pid)
    resource.setrlimit(resource.RLIMIT_NOFILE, (64, before[1]))
    try:
        assert command.finish()["status"] == -signal.SIGTERM
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
    assert not any(command_of._begun(pid) == begun for pid, begun in family.items())


def test_one_that_may_not_be_killed_is_left_running(
    begin: Begin, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: int) -> NoReturn:
        raise PermissionError

    command = begin("exec sleep 1000")
    monkeypatch.setattr(command_of, "GRACE_S", 0.1)
    monkeypatch.setattr(command_of, "KILLED_S", 0.1)
    monkeypatch.setattr(os, "kill", refuse)
    assert command.finish() == {"argv": ("sh", "-c", "exec sleep 1000"), "status": None}
    assert not command.ended()


def test_whoever_asks_again_waits_no_longer(begin: Begin) -> None:
    command = begin("trap '' TERM; while :; do sleep 1000; done")
    while len(_family(command._pid)) < 2:
        assert not command.ended()
    assert not command.is_over()
    command.hurry()
    assert command.finish()["status"] == -signal.SIGKILL


def test_a_process_of_the_same_id_later_is_another_one(begin: Begin) -> None:
    command = begin("exec sleep 1000")
    ending = command_of._Ending(0.0)
    ending._family = {command._pid: "1", os.getpid(): "1"}
    assert ending.left() == []
    ending.signal(command._pid, signal.SIGTERM)
    while not command.ended():
        time.sleep(0.01)
    assert ending.left() == []


def test_no_process_more_is_said(begin: Begin, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse() -> NoReturn:
        raise BlockingIOError(11, "Resource temporarily unavailable")

    monkeypatch.setattr(os, "fork", refuse)
    with pytest.raises(CommandError, match="cannot run sh: Resource temporarily unavailable"):
        begin("true")


def test_the_recording_goes_on_while_the_command_takes_its_time(tmp_path: Path) -> None:
    path = tmp_path / "r.btrace"
    arguments = ["record", "--counters", "-d", "1s", "-o", str(path)]
    script = "trap '' TERM; while :; do sleep 1000; done"
    done = subprocess.run(
        [sys.executable, "-m", "balloontrace", *arguments, "--", "sh", "-c", script],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    recording = read_recording(str(path))
    assert recording.trailer is not None
    assert recording.trailer["reason"] == "duration"
    assert recording.trailer["command"]["status"] == -signal.SIGKILL
    times = [sample["t_ns"] for sample in recording.samples]
    assert times[-1] - times[0] > 1e9 + command_of.GRACE_S * 1e9 - 0.2e9
    assert max(later - earlier for earlier, later in itertools.pairwise(times)) < 1e9
