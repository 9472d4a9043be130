"""Holding up a thread: it stands still for that long, and then goes on."""

from __future__ import annotations

import subprocess
import sys
import threading

import pytest

from balloontrace.errors import UserError
from balloontrace.lab.hold import hold

ECHO = """
import sys, threading
def echo():
    for line in sys.stdin:
        print(line, end="", flush=True)
threading.Thread(target=echo).start()
threading.Event().wait(10)
"""
"""Its main thread sleeps, another one answers."""


def test_a_held_thread_goes_on_and_the_others_never_stop() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", ECHO], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write("up\n")
        process.stdin.flush()
        assert process.stdout.readline() == "up\n"
        held = threading.Thread(target=hold, args=(process.pid, 1.0))
        held.start()
        state = ""
        while state != "t":  # stopped by ptrace
            state = status(process.pid)
        process.stdin.write("still here\n")
        process.stdin.flush()
        assert process.stdout.readline() == "still here\n"
        assert status(process.pid) == "t"
        held.join()
        assert status(process.pid) != "t"
        process.kill()


def status(pid: int) -> str:
    """The state letter of a thread in /proc."""
    with open(f"/proc/{pid}/stat", encoding="ascii") as stat:
        return stat.read().rpartition(") ")[2].split()[0]


def test_a_thread_that_is_not_there() -> None:
    with pytest.raises(UserError, match="cannot hold up thread"):
        hold(1 << 22, 0.1)
