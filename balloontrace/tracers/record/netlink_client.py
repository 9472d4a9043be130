# SPDX-License-Identifier: Apache-2.0
"""The recorder's end of the netlink process (netlink.py). Standard library only.

Nothing here waits, but for the last answer; if the netlink process dies, is killed or says nothing,
the recording goes on without it.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import sys
import time
from typing import Any, NoReturn

from balloontrace.tracers.machine import interpreter, system_calls
from balloontrace.tracers.machine.c_modules import signal, socket

LAST_ANSWER_S = 3.0
"""How long the end of a recording waits for the last readings: a guest that reclaims is slow."""

MAX_LINE = 1 << 16
"""Bytes of a line that is not complete yet; whoever sends more is not our netlink process."""

MORE_KILLABLE = 200
"""Added to its oom_score_adj: 20 % of memory on top of its own 20 MiB. It is dispensable, and goes
before any daemon of a small guest; yet a task that ate a quarter of the memory is still killed
first, as it would be without us: a recording should not change who is killed."""

_MAX_FD = 1 << 16
_NETLINK = "balloontrace.tracers.record.netlink"


class NetlinkProcess:
    """A running netlink process. One that could not be started is one that has ended."""

    def __init__(self, oom_score_adj: int) -> None:
        """Start it. oom_score_adj: what the recorder had before it protected itself."""
        ours, theirs = socket.socketpair()
        try:
            self._pid = os.fork()
        except OSError:  # its end of the socket is closed at once, as if it had died
            self._pid = 0
        else:
            if self._pid == 0:
                _become(theirs.fileno(), min(1000, oom_score_adj + MORE_KILLABLE))
        theirs.close()
        ours.setblocking(False)
        self._socket: socket.socket | None = ours
        self._asked: list[int] = []
        self._unsent = b""
        self._unread = b""

    @property
    def pid(self) -> int:
        """Its process id, for the header's `tasks`; 0: there could be no process more."""
        return self._pid

    @property
    def running(self) -> bool:
        """False once `read` has met its end."""
        return self._socket is not None

    def fileno(self) -> int:
        """The descriptor to wait at; it stays readable until `read` is called. -1: it has ended.

        A closed descriptor leaves an epoll by itself.
        """
        return self._socket.fileno() if self._socket else -1

    def request(self, tids: list[int]) -> None:
        """Ask for the delays of these tasks and of all that were asked for before.

        Left out while an earlier request has not been taken yet.
        """
        if self._socket and not self._unsent:
            self._asked = tids
            self._unsent = json.dumps({"watch": tids}).encode() + b"\n"
        self._send()

    def read(self) -> list[dict[str, Any]]:
        """What came since the last read, as sample blocks (`t_ns` and one thing more).

        At its end: once {"t_ns": ..., "delays": "ended"}.
        """
        self._send()
        found: list[dict[str, Any]] = []
        while self._socket and (data := self._receive()) is not None:
            *lines, self._unread = (self._unread + data).split(b"\n")
            contents = [_parse(line) for line in lines]
            found += [content for content in contents if content]
            if not data or None in contents or len(self._unread) > MAX_LINE:
                self.close()
                found.append({"t_ns": time.monotonic_ns(), "delays": "ended"})
        return found

    def finish(self, tids: list[int]) -> list[dict[str, Any]]:
        """The last readings, of what was asked before as well, and its end; waits at most
        LAST_ANSWER_S. tids: who was in the last request is not asked for again."""
        if new := [tid for tid in tids if tid not in self._asked]:
            self.request(new)
        found = self.read()
        deadline_s = time.monotonic() + LAST_ANSWER_S
        told = False
        while self._socket and (left_s := deadline_s - time.monotonic()) > 0:
            if not self._unsent and not told:
                self._socket.shutdown(socket.SHUT_WR)  # it answers, then ends
                told = True
            select.select([self._socket], [self._socket] if self._unsent else [], [], left_s)
            found += self.read()
        self.close()
        return [content for content in found if content.get("delays") != "ended" or not told]

    def close(self) -> None:
        """End it at once, if it has not ended by itself."""
        if self._socket:
            self._socket.close()
            self._socket = None
            if self._pid:
                os.kill(self._pid, signal.SIGKILL)  # ours until it is waited for: it cannot miss
                os.waitpid(self._pid, 0)

    def _send(self) -> None:
        """Send as much of the request as goes without waiting."""
        if not self._socket or not self._unsent:
            return
        try:
            self._unsent = self._unsent[self._socket.send(self._unsent) :]
        except BlockingIOError:
            pass
        except OSError:
            self._unsent = b""  # it has ended; the next read finds that out

    def _receive(self) -> bytes | None:
        """What is there: b'' at the end, None if there is nothing now."""
        if self._socket is None:
            return None
        try:
            return self._socket.recv(1 << 14)
        except BlockingIOError:
            return None
        except OSError:
            return b""


def _parse(line: bytes) -> dict[str, Any] | None:
    """The object in a line, None if there is none."""
    try:
        content = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return content if isinstance(content, dict) and "t_ns" in content else None


def _become(channel: int, oom_score_adj: int) -> NoReturn:
    """In the forked child: become the netlink process. Does not return."""
    try:
        signal.set_wakeup_fd(-1)
        for number in (signal.SIGTERM, signal.SIGCHLD):
            signal.signal(number, signal.SIG_DFL)
        for number in (signal.SIGINT, signal.SIGHUP):  # already while it starts
            signal.signal(number, signal.SIG_IGN)
        with contextlib.suppress(OSError):  # the recorder could not change it either
            system_calls.set_oom_score_adj(oom_score_adj)
        os.dup2(channel, 0)
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, 1)  # stdout may be the recording
        os.dup2(null, 2)  # what pyroute2 logs is not for the terminal
        # Nothing else: descriptors that came over a socket are inheritable, and a copy of a
        # probe's would keep it attached.
        package = interpreter.held() or _MAX_FD
        os.closerange(3, package)
        os.closerange(package + 1, _MAX_FD)
        # With site, unlike the recorder: a distribution's pyroute2 is in dist-packages.
        argv = [sys.executable, "-c", interpreter.program(_NETLINK, "run")]
        if package < _MAX_FD:
            os.set_inheritable(package, True)
        os.execv(sys.executable, argv)  # noqa: S606 - ourselves
    finally:
        os._exit(127)
