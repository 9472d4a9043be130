# SPDX-License-Identifier: Apache-2.0
"""Pairs of the host's clock and the guest's, each with its error.

A process in the guest is asked for its clocks again and again. Its answer was made between question
and answer: it lies within half the round trip of the middle. Of nine rounds the quickest counts;
more rounds made it no better. Drifts of 3 ms a minute were measured, so it is done every minute.
"""

from __future__ import annotations

import re
import subprocess
import threading
import time
from typing import IO, Any, Protocol

from balloontrace.errors import EXIT_UNSUPPORTED, UserError
from balloontrace.recording.host_lines import CLOCK, HostLog

EVERY_S = 60.0
ROUNDS = 9

IN_GUEST = """
import sys, time
print(open("/proc/sys/kernel/random/boot_id").read().strip(), flush=True)
for line in sys.stdin:
    print(time.monotonic_ns(), time.time_ns(), flush=True)
"""
"""Runs there, under python3."""

_LONGEST = 100
"""Bytes of a line of its: no more is read of one that has no end."""

_SETTLE_S = 2.0
"""A process that is to end gets so long."""

_BOOT_ID = re.compile("[0-9a-f-]{36}")


class InGuest(Protocol):
    """A process of IN_GUEST: what is written to it, and what it says."""

    @property
    def stdin(self) -> IO[bytes]:
        """Where it is asked."""

    @property
    def stdout(self) -> IO[bytes]:
        """Where it answers."""

    def kill(self) -> None:
        """End it."""


class OverSsh:
    """Such a process in a guest that ssh knows by a name."""

    def __init__(self, guest: str) -> None:
        """Raises UserError if there is no ssh."""
        command = f"exec python3 -u -c '{IN_GUEST}'"
        argv = ["ssh", "-oBatchMode=yes", "-T", "--", guest, command]
        pipe = subprocess.PIPE
        try:
            self._process = subprocess.Popen(
                argv,
                stdin=pipe,
                stdout=pipe,
                stderr=subprocess.DEVNULL,
                start_new_session=True,  # Ctrl-C is not for it: there is a last pair to be had
            )
        except OSError as error:
            raise UserError(
                f"cannot run ssh: {error.strerror}",
                "install it (openssh-client), or leave --ssh out",
                EXIT_UNSUPPORTED,
            ) from None

    @property
    def stdin(self) -> IO[bytes]:
        """See InGuest."""
        assert self._process.stdin  # noqa: S101
        return self._process.stdin

    @property
    def stdout(self) -> IO[bytes]:
        """See InGuest."""
        assert self._process.stdout  # noqa: S101
        return self._process.stdout

    def kill(self) -> None:
        """See InGuest."""
        self._process.kill()
        self._process.wait(_SETTLE_S)


class Clocks:
    """Writes a pair into the log at its begin, every minute, and at its end; a context manager with
    a thread of its own, for a guest may not answer.

    boot_id: of the guest, empty as long as it did not tell.
    """

    def __init__(self, guest: InGuest, log: HostLog, every_s: float = EVERY_S) -> None:
        self.boot_id = ""
        self._guest, self._log, self._every_s = guest, log, every_s
        self._wanted = threading.Event()
        self._first = threading.Event()
        self._stopping = self._has_pair = False
        self._thread = threading.Thread(target=self._run, name="clocks", daemon=True)

    def __enter__(self) -> Clocks:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping = True
        self._wanted.set()
        self._thread.join(_SETTLE_S)
        self._guest.kill()
        self._thread.join(_SETTLE_S)

    @property
    def is_over(self) -> bool:
        """Whether there will be no pair, for there was none when the guest's side ended."""
        return self._first.is_set() and not self._has_pair

    def await_first(self, timeout_s: float) -> bool:
        """Wait for the first pair; False: there is none, and there will be none or only later."""
        return self._first.wait(timeout_s) and self._has_pair

    def _run(self) -> None:
        try:
            said = self._guest.stdout.readline(_LONGEST).decode("ascii", "replace").strip()
            if not _BOOT_ID.fullmatch(said):
                return
            self.boot_id = said
            while self._pair():
                self._has_pair = True
                self._first.set()
                if self._stopping:
                    return
                self._wanted.wait(self._every_s)
        except (OSError, ValueError):  # nobody is there any more
            pass
        finally:
            self._first.set()

    def _pair(self) -> bool:
        """Write the best of some pairs; False: the guest no longer answers."""
        best: tuple[int, dict[str, Any]] | None = None
        for _ in range(ROUNDS):
            found = self._round()
            if found is None:
                return False
            if best is None or found[1]["error_ns"] < best[1]["error_ns"]:
                best = found
        if best is not None:
            t_ns, fields = best
            self._log.write(CLOCK, t_ns, **fields, boot_id=self.boot_id, by="ssh")
        return True

    def _round(self) -> tuple[int, dict[str, Any]] | None:
        asked_ns = time.monotonic_ns()
        self._guest.stdin.write(b"\n")
        self._guest.stdin.flush()
        answer = self._guest.stdout.readline(_LONGEST).split()
        answered_ns, utc_ns = time.monotonic_ns(), time.time_ns()
        if len(answer) != 2 or not all(text.isdigit() for text in answer):
            return None
        half_ns = (answered_ns - asked_ns + 1) // 2
        fields = {
            "utc_ns": utc_ns - half_ns,
            "guest_monotonic_ns": int(answer[0]),
            "guest_utc_ns": int(answer[1]),
            "error_ns": half_ns,
        }
        return answered_ns - half_ns, fields
