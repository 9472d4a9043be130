# SPDX-License-Identifier: Apache-2.0
"""`balloontrace record` before it becomes a recorder: durations, names, what is missing."""

from __future__ import annotations

import os
import re
import select
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from balloontrace.cli.commands.record import default_path, parse_duration
from balloontrace.errors import EXIT_UNSUPPORTED, EXIT_USAGE, UserError
from balloontrace.tracers.doctor.obstacles import require_traceable
from balloontrace.tracers.machine import balloon, guest
from balloontrace.tracers.record.command import Command, _family


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("60", 60), ("60s", 60), ("1.5m", 90), ("2h", 7200), ("500ms", 0.5)],
)
def test_durations(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["", "0", "0s", "-5s", "5 s", "abc", "1d", "nan", "9" * 400])
def test_what_is_no_duration(text: str) -> None:
    with pytest.raises(UserError, match="is not a duration") as caught:
        parse_duration(text)
    assert caught.value.exit_code == EXIT_USAGE


def test_the_default_name_cannot_leave_the_directory(monkeypatch: pytest.MonkeyPatch) -> None:
    named = SimpleNamespace(nodename="../../etc/host name")
    monkeypatch.setattr("os.uname", lambda: named)
    name = default_path()
    assert re.fullmatch(r"balloontrace-[\w.-]+-\d{8}T\d{6}Z\.btrace", name)
    assert "/" not in name


def test_a_machine_without_a_balloon(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 0)
    monkeypatch.setattr(balloon, "_VIRTIO_DEVICES", str(tmp_path))
    with pytest.raises(UserError, match="no virtio balloon device") as caught:
        require_traceable()
    assert caught.value.exit_code == EXIT_UNSUPPORTED
    assert caught.value.hint.endswith("record --wait until it is plugged in")


@pytest.mark.parametrize("command", [["record", "-d", "1s"], ["doctor"]])
def test_an_unknown_machine_is_no_traceback(command: list[str]) -> None:
    code = """
import collections, os, sys
Name = collections.namedtuple("Name", "sysname nodename release version machine")
os.uname = lambda name=os.uname(): Name(*name[:4], "s390x")
sys.argv = ["balloontrace", *sys.argv[1:]]
from balloontrace.cli.app import main
main()
"""
    done = subprocess.run(
        [sys.executable, "-c", code, *command], capture_output=True, text=True, check=False
    )
    assert done.returncode == EXIT_UNSUPPORTED
    assert "does not know the system calls and registers of s390x" in done.stdout + done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("arguments", "status", "complaint"),
    [
        (["record", "-d", "soon"], EXIT_USAGE, "is not a duration"),
        (["record", "--", "no-such-command"], 1, "cannot run no-such-command"),
        (["report", "/nonexistent.btrace"], 1, "cannot read /nonexistent.btrace"),
        (["report", __file__], 1, "is not a balloontrace recording"),
        (["lab", "run", "no-such-scenario"], EXIT_USAGE, "no-such-scenario"),
    ],
)
def test_a_users_mistake_is_no_traceback(arguments: list[str], status: int, complaint: str) -> None:
    command = [sys.executable, "-m", "balloontrace", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == status
    assert complaint in done.stderr
    assert "Traceback" not in done.stderr


def test_a_closed_pipe_is_no_traceback() -> None:
    fixture = Path(__file__).parents[3] / "data" / "6.1-stock-idle.btrace"
    command = f"{sys.executable} -m balloontrace report --json {fixture} | true"
    done = subprocess.run(command, shell=True, capture_output=True, text=True, check=False)
    assert done.stderr == ""


def test_the_header_names_the_process_that_attaches() -> None:
    assert guest.describe(recorder=1)["tasks"]["loader"] == os.getpid()


def test_ending_a_command_ends_what_it_has_started(tmp_path: Path) -> None:
    own = os.open(tmp_path / "recording", os.O_CREAT | os.O_WRONLY)
    told, tell = os.pipe()
    os.set_inheritable(tell, True)
    # Two that ignore SIGTERM or outlive their parent; each holds the pipe open.
    script = "sleep 1000 & (trap '' TERM; sleep 1000; sleep 1000) & sleep 1000; echo never"
    command = Command(("sh", "-c", script), 0, own)
    os.close(tell)
    while len(_family(command._pid)) < 5:
        assert not command.ended()
    assert command.finish()["status"] == -signal.SIGTERM
    assert select.select([told], [], [], 10.0)[0]
    assert os.read(told, 1) == b""
    os.close(told)
    os.close(own)
