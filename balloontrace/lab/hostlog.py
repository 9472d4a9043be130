# SPDX-License-Identifier: Apache-2.0
"""The host's own view of a run, beside the recording (recording/host_lines.py).

Besides what `balloontrace host record` writes, which is the same for both, there are the lab's own
lines: what was done in the guest and to it (`workload`, `run`, `swap`, `hints`, `pause`, `host`),
and how each target ended (`reached`, `settled` or `missed`).
"""

from __future__ import annotations

import contextlib
import math
import subprocess
import threading
import time
from typing import IO

from balloontrace.errors import UserError
from balloontrace.events import BALLOON_PAGE_BYTES
from balloontrace.host.clocks import IN_GUEST
from balloontrace.host.sampler import Sampler
from balloontrace.lab.remote import RemoteGuest

SAMPLE_INTERVAL_S = 0.2
_END_S = 5.0


class ClockInGuest:
    """The process in a guest of the lab that tells its clocks (host/clocks.py)."""

    def __init__(self, guest: RemoteGuest) -> None:
        command = ["python3", "-u", "-c", IN_GUEST]
        self._process = guest.popen(command, stdin=subprocess.PIPE)

    @property
    def stdin(self) -> IO[bytes]:
        """Where it is asked."""
        return self._process.stdin

    @property
    def stdout(self) -> IO[bytes]:
        """Where it answers."""
        return self._process.stdout

    def kill(self) -> None:
        """End it."""
        with contextlib.suppress(UserError):
            self._process.communicate(_END_S)


class BalloonWatch:
    """Samples the host's side all along; a context manager with a thread of its own."""

    def __init__(self, sampler: Sampler) -> None:
        self._sampler = sampler
        self._changed = threading.Condition()
        self._pages = -1
        self._moved = 0.0
        self._stopping = False
        self._error: UserError | None = None
        self._thread = threading.Thread(target=self._sample, name="balloon-watch", daemon=True)

    def __enter__(self) -> BalloonWatch:
        self._sampler.sample()  # what was before the first target
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        with self._changed:
            self._stopping = True
            self._changed.notify_all()
        self._thread.join()

    def wait_for(
        self,
        pages: int,
        timeout_s: float,
        settle_s: float = math.inf,
        give_up_s: float = math.inf,
    ) -> str:
        """Wait until the balloon has that many pages and return ``reached``.

        Return ``settled`` once its size has not changed for settle_s, ``missed`` after
        timeout_s, or when it has not come closer for give_up_s. Raises UserError if QEMU stops
        answering.
        """
        started = closer = time.monotonic()
        closest = math.inf
        with self._changed:
            while self._pages != pages:
                if self._error is not None:
                    raise self._error
                now = time.monotonic()
                if abs(pages - self._pages) < closest:
                    closest, closer = abs(pages - self._pages), now
                if now - max(started, self._moved) > settle_s:
                    return "settled"
                if now - closer > give_up_s or not self._changed.wait(started + timeout_s - now):
                    return "missed"
        return "reached"

    def _sample(self) -> None:
        try:
            while not self._stopping:
                pages = (self._sampler.sample().actual_bytes or 0) // BALLOON_PAGE_BYTES
                with self._changed:
                    if pages != self._pages:
                        self._moved = time.monotonic()
                    self._pages = pages
                    self._changed.notify_all()
                    self._changed.wait_for(lambda: self._stopping, SAMPLE_INTERVAL_S)
        except UserError as error:
            with self._changed:
                self._error = error
                self._changed.notify_all()
