# SPDX-License-Identifier: Apache-2.0
"""The command a recording is made for (`record -- COMMAND...`)."""

from __future__ import annotations

import os
import time

from balloontrace.endings import heeded
from balloontrace.errors import UserError
from balloontrace.tracers.machine import system_calls
from balloontrace.tracers.machine.c_modules import signal
from balloontrace.tracers.machine.files import text

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

GRACE_S = 2.0
"""What a command has to end itself after SIGTERM, before SIGKILL: the recording goes on so long."""

KILLED_S = 5.0
"""What it has after SIGKILL. Who may not be killed by us (another user's), or waits for a disk or a
device, is left running."""

_INTERVAL_S = 0.02


class CommandError(UserError):
    """There can be no process for the command."""


class Command:
    """A child process that runs as if it had been started by the user's shell."""

    def __init__(self, argv: tuple[str, ...], oom_score_adj: int, recording: int) -> None:
        """Start `argv`; it gets the OOM score the recorder had before it protected itself. Raises
        CommandError."""
        self._argv = argv
        self._status: int | None = None
        self._ending: _Ending | None = None
        try:
            self._pid = os.fork()
        except OSError as error:
            raise CommandError(f"cannot run {argv[0]}: {error.strerror}") from None
        if self._pid == 0:
            self._become(argv, oom_score_adj, recording)

    @staticmethod
    def _become(argv: tuple[str, ...], oom_score_adj: int, recording: int) -> None:
        try:
            signal.set_wakeup_fd(-1)
            signal.pthread_sigmask(signal.SIG_SETMASK, ())
            for number in (*heeded(), signal.SIGCHLD):  # with nohup, that is its, too
                signal.signal(number, signal.SIG_DFL)
            signal.signal(signal.SIGPIPE, signal.SIG_DFL)
            try:
                system_calls.set_oom_score_adj(oom_score_adj)
            except OSError:  # the recorder could not change it either
                pass
            if recording == 1:  # the recording has stdout for itself
                os.dup2(2, 1)
            else:
                os.close(recording)
            os.execvp(argv[0], argv)  # noqa: S606 - the command the user typed
        except OSError as error:
            os.write(2, f"balloontrace: cannot run {argv[0]}: {error.strerror}\n".encode())
        finally:
            os._exit(127)

    def ended(self) -> bool:
        """True once the command has ended."""
        if self._status is None:
            pid, status = os.waitpid(self._pid, os.WNOHANG)
            if pid:
                self._status = os.waitstatus_to_exitcode(status)
        return self._status is not None

    def is_over(self) -> bool:
        """End the command if it still runs, and what it has started; whether that is done, or given
        up. Never waits: it is asked again until it is so."""
        now_s = time.monotonic()
        if self._ending is None:
            if self.ended():
                return True
            self._ending = _Ending(now_s + GRACE_S)
            self._ending.signal(self._pid, signal.SIGTERM)
        left = self._ending.left()
        if self.ended() and not left:
            return True
        if now_s < self._ending.until_s:
            return False
        if self._ending.killed:
            return True
        self._ending.killed, self._ending.until_s = True, now_s + KILLED_S
        self._ending.signal(self._pid, signal.SIGKILL)
        return False

    def hurry(self) -> None:
        """Wait no longer for what was waited for."""
        if self._ending:
            self._ending.until_s = time.monotonic()

    def finish(self) -> dict[str, Any]:
        """End it as is_over does, and wait; its argv and status (negative: killed by a signal;
        None: it does not end)."""
        while not self.is_over():
            time.sleep(_INTERVAL_S)
        return {"argv": self._argv, "status": self._status}


class _Ending:
    """What is being ended: a process and all that descend from it. until_s: of the monotonic clock,
    how long they have; killed: SIGKILL was sent."""

    def __init__(self, until_s: float) -> None:
        self.until_s, self.killed = until_s, False
        self._family: dict[int, str] = {}

    def signal(self, root: int, number: int) -> None:
        """Send it to `root`, to all that descend from it now, and to those of before."""
        self._family.update(_family(root))
        for pid in self.left():
            try:
                os.kill(pid, number)
            except OSError:  # it has ended, or is another user's
                pass

    def left(self) -> list[int]:
        """Process ids of those that have not ended."""
        return [pid for pid, begun in self._family.items() if _begun(pid) == begun]


def _family(root: int) -> dict[int, str]:
    """Process id -> see _begun, of `root` and of all that descend from it."""
    children: dict[int, list[int]] = {}
    for name in os.listdir("/proc"):
        if name.isdigit() and (fields := _fields(int(name))):
            children.setdefault(int(fields[_PARENT]), []).append(int(name))
    found: dict[int, str] = {}
    waiting = [root]
    while waiting:
        pid = waiting.pop()
        waiting += children.get(pid, [])
        if begun := _begun(pid):
            found[pid] = begun
    return found


_STATE, _PARENT, _START = 0, 1, 19
"""Of the fields after the name in /proc/PID/stat (proc(5))."""


def _fields(pid: int) -> list[str]:
    return text(f"/proc/{pid}/stat").rpartition(") ")[2].split()


def _begun(pid: int) -> str:
    """When a process began, by which it is told from a later one of the same id; '' if it has
    ended. With a descriptor of each (pidfd_open) a large family would be too much for us."""
    fields = _fields(pid)
    return fields[_START] if fields and fields[_STATE] not in ("Z", "X") else ""
