# SPDX-License-Identifier: Apache-2.0
"""The host's own view of a run, as JSON lines beside the recording.

The first line is ``{"event": "run", ...}``: what ran where. Every line has ``t_ns``, the host's
CLOCK_MONOTONIC. ``clock`` lines pair that clock with UTC and with the guest's CLOCK_MONOTONIC,
``target`` lines are the host's wishes, ``actual`` lines QEMU's answers every 200 ms; balloon
sizes are in balloon pages inside the balloon. Each target ends with a ``reached``, ``settled`` or
``missed`` line.
"""

from __future__ import annotations

import json
import math
import subprocess
import threading
import time
from pathlib import Path

from balloontrace.errors import UserError
from balloontrace.lab.qmp import Balloon
from balloontrace.lab.remote import RemoteGuest

SAMPLE_INTERVAL_S = 0.2
_CLOCK_ROUNDS = 9
_CLOCK_LOOP = (
    "import sys, time\n"
    "for line in sys.stdin:\n"
    "    print(time.monotonic_ns(), time.time_ns(), flush=True)\n"
)


class HostLog:
    """An append-only file of events; a context manager, usable from several threads."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("w", encoding="utf-8", buffering=1)
        self._lock = threading.Lock()

    def __enter__(self) -> HostLog:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def write(self, event: str, t_ns: int | None = None, **fields: object) -> None:
        """Append one event, now unless t_ns says when."""
        line = {"event": event, "t_ns": time.monotonic_ns() if t_ns is None else t_ns, **fields}
        with self._lock:
            self._file.write(json.dumps(line) + "\n")


def log_clocks(log: HostLog, guest: RemoteGuest) -> None:
    """Pair the clocks of host and guest.

    The guest's reading lies within error_ns of t_ns: half the quickest round trip.
    """
    process = guest.popen(["python3", "-u", "-c", _CLOCK_LOOP], stdin=subprocess.PIPE)
    best: tuple[int, int, list[bytes]] | None = None
    for _ in range(_CLOCK_ROUNDS):
        asked = time.monotonic_ns()
        process.stdin.write(b"\n")
        answer = process.stdout.readline().split()
        round_trip = time.monotonic_ns() - asked
        if len(answer) == 2 and (best is None or round_trip < best[0]):
            best = (round_trip, asked, answer)
    process.communicate()
    if best is None:
        raise UserError("the guest did not tell its clock")
    round_trip, asked, (monotonic, realtime) = best
    middle = asked + round_trip // 2
    log.write(
        "clock", middle,
        utc_ns=time.time_ns() - (time.monotonic_ns() - middle),
        guest_monotonic_ns=int(monotonic), guest_utc_ns=int(realtime), error_ns=round_trip // 2,
    )  # fmt: skip


class BalloonWatch:
    """Samples the balloon's size into the log; a context manager with a thread of its own."""

    def __init__(self, balloon: Balloon, log: HostLog) -> None:
        self._balloon = balloon
        self._log = log
        self._changed = threading.Condition()
        self._pages = -1
        self._moved = 0.0
        self._stopping = False
        self._error: UserError | None = None
        self._thread = threading.Thread(target=self._sample, name="balloon-watch", daemon=True)

    def __enter__(self) -> BalloonWatch:
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
                pages = self._balloon.actual_pages()
                self._log.write("actual", pages=pages)
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
