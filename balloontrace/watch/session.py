# SPDX-License-Identifier: Apache-2.0
"""What happens around a watcher: its outlets, the loader, protection, the loop, the end.

A process image of its own, as the recorder's (tracers/record/session.py), which it shares most of.
"""

from __future__ import annotations

import time

from balloontrace.conditions.triggers import Triggers
from balloontrace.endings import ENDINGS
from balloontrace.errors import UserError
from balloontrace.tracers.machine import capabilities
from balloontrace.tracers.machine.c_modules import signal, socket
from balloontrace.tracers.record import session
from balloontrace.tracers.record.recorder import Wakeups
from balloontrace.watch import exposition, textfile
from balloontrace.watch.dumps import Dumps
from balloontrace.watch.metrics import ASKED
from balloontrace.watch.notify import Notify
from balloontrace.watch.pressure import Pressure
from balloontrace.watch.segments import Keep, Segments
from balloontrace.watch.server import Server
from balloontrace.watch.watcher import Kept, Watcher

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from balloontrace.tracers.record.marks import Marks

TEXTFILE_S = 10.0
"""From one writing of the file for node_exporter to the next."""


def watch(options: dict[str, Any]) -> int:
    """Watch as `options` says (launch.Options); returns the exit code. Raises UserError."""
    wakeups = Wakeups(also=(signal.SIGUSR1,))
    signal.pthread_sigmask(signal.SIG_UNBLOCK, (*ENDINGS, signal.SIGUSR1))  # blocked by launch.py
    marks: Marks | None = None
    try:
        kept = _kept(options)
        handover = session.await_handover(
            wakeups, socket.socket(fileno=options["channel"]), options["loader"]
        )
        session.protect(traces=True)
        if kept:
            from balloontrace.tracers.record.marks import Marks

            marks = Marks()
            wakeups.watch(marks.fileno())
        wakeups.watch(handover.maps["events"], edges=True)
        triggers = Triggers(options["on"])
        pressure = Pressure()
        told = pressure.is_told
        watcher = Watcher(handover, options, kept, triggers, marks, session.say, told)
        outlets = _Outlets(watcher, options, wakeups, pressure)
        session.drop_privileges(capabilities.needed(), kill=False)
        where = f", metrics on port {outlets.server.port}" if outlets.server else ""
        session.announce(f"watching the balloon{where}", options["ready_file"])
        outlets.notify.ready()
        reason = loop(watcher, outlets, wakeups)
        outlets.notify.stopping()
        watcher.finish(reason)
        session.say(f"{reason}: watched for {outlets.watched_s():,.0f} s")
        watcher.detach()
        return 0
    finally:
        if marks:
            marks.close()


def _kept(options: dict[str, Any]) -> Kept | None:
    """Where the last minutes are kept. Raises UserError."""
    if not options["keep_bytes"]:
        return None
    keep = Keep(options["keep_bytes"], options["keep_s"])
    segments = Segments(options["directory"], keep)
    kept = Kept(segments, Dumps(options["directory"], keep.size), options["after_s"])
    kept.take_over(session.say)
    kept.tidy(session.say)
    return kept


class _Outlets:
    """Where the metrics go, who waits to hear that the watcher goes on, and who wakes it."""

    def __init__(
        self, watcher: Watcher, options: dict[str, Any], wakeups: Wakeups, pressure: Pressure
    ) -> None:
        """Raises UserError."""
        self._pressure = pressure
        if pressure.is_told:
            wakeups.watch(pressure.descriptor, edges=True, urgent=True)
        self.notify, self.server = Notify(), None
        self._watcher, self._directory = watcher, options["textfile"]
        self._written_s = float("-inf")
        self._begun_s = time.monotonic()
        if options["listen"]:
            self.server = Server(tuple(options["listen"]), self._page)
            wakeups.watch(self.server.fileno())
        if self._directory:
            self._write()

    def watched_s(self) -> float:
        """Since it began."""
        return time.monotonic() - self._begun_s

    def is_pressed(self, wakeups: Wakeups) -> bool:
        """Whether tasks that wait for memory ended the last wait."""
        return self._pressure.descriptor in wakeups.ready

    def due_s(self) -> float:
        """When `serve` has something to do next by the clock, of time.monotonic()."""
        written_s = self._written_s + TEXTFILE_S if self._directory else float("inf")
        return min(written_s, self.server.due_s) if self.server else written_s

    def serve(self) -> None:
        """Do what is due, and return at once."""
        now_s = time.monotonic()
        if self.server:
            self.server.serve()
            self.server.expire(now_s)
        if self._directory and now_s >= self._written_s + TEXTFILE_S:
            try:
                self._write()
            except UserError as error:  # a disk that is full is no reason to end
                session.say(str(error))
        self.notify.alive()

    def _page(self, by_another: bool = False) -> bytes:
        begun_ns = time.monotonic_ns()
        page = exposition.page(self._watcher.reading(), by_another)
        self._watcher.reading_ns = time.monotonic_ns() - begun_ns
        return page

    def _write(self) -> None:
        self._written_s = time.monotonic()
        textfile.write(self._directory, self._page(by_another=True))


def loop(watcher: Watcher, outlets: _Outlets, wakeups: Wakeups) -> str:
    """Watch until something ends it; returns the reason."""
    interval_s = 0.0
    look_s = time.monotonic() + watcher.sample_interval_s
    while True:
        until_s = min(time.monotonic() + interval_s, look_s)
        if reason := wakeups.wait(_patience(until_s, outlets)):
            return reason
        sampling = time.monotonic() >= look_s or watcher.was_called or outlets.is_pressed(wakeups)
        interval_s = watcher.drain(sampling)
        watcher.follow()
        while wakeups.caught:
            wakeups.caught.pop()
            watcher.want(ASKED)
        if sampling:
            watcher.sample()
        # A look that comes late is not made up for; one that is to come sooner is.
        now_s = time.monotonic()
        next_s = now_s + watcher.sample_interval_s
        look_s = next_s if sampling else min(look_s, next_s)
        outlets.serve()


def _patience(until_s: float, outlets: _Outlets) -> float:
    """How long to sleep at most."""
    left_s = min(until_s, outlets.due_s()) - time.monotonic()
    return left_s if outlets.notify.interval_s is None else min(left_s, outlets.notify.interval_s)


def main() -> int:
    """Entry point of the process image."""
    options = session.given_options()
    try:
        return watch(options)
    except UserError as error:
        session.end_loader(options["loader"])
        session.say(f"balloontrace: {error}")
        return error.exit_code
