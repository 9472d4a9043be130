# SPDX-License-Identifier: Apache-2.0
"""What ends a process, and does not where whoever started it has SIGHUP ignored (nohup)."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.unit.live.test_model import FOUNDING

NOHUP = (
    "import os, signal, sys; signal.signal(signal.SIGHUP, signal.{handler}); "
    "os.execv(sys.executable, [sys.executable, *sys.argv[1:]])"
)

RECORDER = """
from balloontrace.tracers.record.recorder import Wakeups
wakeups, reason = Wakeups(), ""
wakeups.watch(0)
print("ready", flush=True)
while not reason:
    reason = wakeups.wait(60.0)
    if 0 in wakeups.ready:
        print("goes on:", input(), flush=True)
print(reason)
"""

COMMAND = """
import os, sys
from balloontrace.tracers.record.command import Command
from balloontrace.tracers.record.recorder import Wakeups
told = "import signal; print(signal.getsignal(signal.SIGHUP).name, flush=True)"
wakeups = Wakeups()
command = Command((sys.executable, "-c", told), 0, os.open(os.devnull, os.O_WRONLY))
while not command.ended():
    wakeups.wait(60.0)
"""


def started(handler: str, *arguments: str) -> subprocess.Popen[str]:
    """Python, by somebody who has that done with SIGHUP."""
    return subprocess.Popen(
        [sys.executable, "-c", NOHUP.format(handler=handler), *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def rest_of(process: subprocess.Popen[str]) -> str:
    """What it writes until it ends, which it has to do in order."""
    assert process.stdout is not None
    told = process.stdout.read()
    assert process.wait() == 0
    return told


def line_of(process: subprocess.Popen[str]) -> str:
    """The next one that it writes."""
    assert process.stdout is not None
    return process.stdout.readline().rstrip()


def test_a_terminal_that_closes_ends_what_records() -> None:
    recorder = started("SIG_DFL", "-c", RECORDER)
    assert line_of(recorder) == "ready"
    recorder.send_signal(signal.SIGHUP)
    assert rest_of(recorder) == "terminal closed\n"


def test_with_nohup_it_goes_on() -> None:
    recorder = started("SIG_IGN", "-c", RECORDER)
    assert line_of(recorder) == "ready"
    recorder.send_signal(signal.SIGHUP)
    assert recorder.stdin is not None
    recorder.stdin.write("still there\n")
    recorder.stdin.flush()
    assert line_of(recorder) == "goes on: still there"
    recorder.send_signal(signal.SIGTERM)
    assert rest_of(recorder) == "terminated\n"


@pytest.mark.parametrize("handler", ["SIG_DFL", "SIG_IGN"])
def test_a_command_that_is_recorded_has_what_its_starter_had(handler: str) -> None:
    assert rest_of(started(handler, "-c", COMMAND)) == f"{handler}\n"


@pytest.mark.parametrize("option", ["--json", "--plain"])
def test_with_nohup_lines_go_on(option: str, tmp_path: Path) -> None:
    path, data = tmp_path / "growing.btrace", FOUNDING.read_bytes()
    path.write_bytes(data[:-300])
    live = started("SIG_IGN", "-m", "balloontrace", "live", option, str(path))
    assert line_of(live)
    live.send_signal(signal.SIGHUP)
    with path.open("ab") as file:
        file.write(data[-300:])
    assert "ended: interrupted" in rest_of(live)
