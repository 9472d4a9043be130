# SPDX-License-Identifier: Apache-2.0
"""The command a recording is made for (`record -- COMMAND...`)."""

from __future__ import annotations

import os
import select
import time

from balloontrace.endings import heeded
from balloontrace.tracers.machine import system_calls
from balloontrace.tracers.machine.c_modules import signal
from balloontrace.tracers.machine.files import text

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

GRACE_S = 2.0
"""What a command has to end itself after SIGTERM, before SIGKILL: the recording waits for it."""


class Command:
    """A child process that runs as if it had been started by the user's shell."""

    def __init__(self, argv: tuple[str, ...], oom_score_adj: int, recording: int) -> None:
        """Start `argv`; it gets the OOM score the recorder had before it protected itself."""
        self._argv = argv
        self._status: int | None = None
        self._pid = os.fork()
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

    def finish(self) -> dict[str, Any]:
        """End the command if it still runs, and what it has started; its argv and status (negative:
        killed by a signal)."""
        if not self.ended():
            family = _family(self._pid)
            _end(family, signal.SIGTERM)
            _await(family, GRACE_S)
            family = {**_family(self._pid), **family}  # who came meanwhile
            _end(family, signal.SIGKILL)
            while not self.ended():
                _await({self._pid: family[self._pid]}, GRACE_S)
            for descriptor in family.values():
                os.close(descriptor)
        return {"argv": self._argv, "status": self._status}


def _family(root: int) -> dict[int, int]:
    """Process id -> a pidfd, of `root` and of all that descend from it."""
    children: dict[int, list[int]] = {}
    for name in os.listdir("/proc"):
        if name.isdigit() and (stat := text(f"/proc/{name}/stat")):
            children.setdefault(int(stat.rpartition(") ")[2].split()[1]), []).append(int(name))
    found: dict[int, int] = {}
    waiting = [root]
    while waiting:
        pid = waiting.pop()
        waiting += children.get(pid, [])
        try:
            found[pid] = os.pidfd_open(pid)
        except ProcessLookupError:
            pass
    return found


def _end(family: dict[int, int], number: int) -> None:
    for descriptor in family.values():
        try:
            signal.pidfd_send_signal(descriptor, number)
        except (ProcessLookupError, PermissionError):
            pass


def _await(family: dict[int, int], timeout_s: float) -> None:
    """Until all of them have ended, or that long."""
    deadline_s = time.monotonic() + timeout_s
    left = list(family.values())
    while left and (remaining_s := deadline_s - time.monotonic()) > 0:
        ended, _, _ = select.select(left, [], [], remaining_s)
        left = [descriptor for descriptor in left if descriptor not in ended]
