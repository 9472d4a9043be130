# SPDX-License-Identifier: Apache-2.0
"""The balloon driver's calls, as tasks make them, on the programs of bpf/balloon.c."""

from __future__ import annotations

import ctypes

from balloontrace import events
from tests.unit.tracers.bpf.programs import Balloon, Programs


class Driver:
    """One balloon. Every method is what a task of the kernel does; time passes between calls."""

    def __init__(self, programs: Programs) -> None:
        self.programs = programs
        self.balloon = Balloon()
        self._address = ctypes.addressof(self.balloon)
        self._now = 1000
        self._queues = {name: programs.queue(name) for name in ("inflate", "deflate")}
        self.work = self._address + Balloon.size_work.offset
        self.hint_work = self._address + Balloon.hint_work.offset

    def enter(self, call: str, *arguments: int) -> None:
        """A call is entered, a little later."""
        self.pass_ns(10)
        self.programs.enter(call, *arguments)

    def leave(self, call: str, result: int = 0) -> None:
        """A call returns, a little later."""
        self.pass_ns(10)
        self.programs.leave(call, result)

    def pass_ns(self, duration_ns: int) -> None:
        """Time passes."""
        self._now += duration_ns
        self.programs.set("now", self._now)

    def run_worker(self) -> None:
        """The size worker is entered."""
        self.enter("worker", self.work)

    def read_target(self, pages: int) -> None:
        """The size worker reads the target."""
        buffer = self.programs.memory(pages)
        self.enter("config", 0, 0, buffer, 4)
        self.leave("config")

    def begin_ack(self, queue: str, pages: int) -> None:
        """`tell_host` is entered with an array of `pages` page numbers."""
        self.balloon.num_pfns = pages
        self.enter("ack", self._address, self._queues[queue])

    def ack(self, queue: str, pages: int) -> None:
        """The host is told, and takes it."""
        self.begin_ack(queue, pages)
        self.leave("ack")

    def begin_leak(self, pages: int) -> None:
        """`leak_balloon` is entered, asked for `pages`."""
        self.enter("leak", self._address, pages)

    def leak(self, pages: int) -> None:
        """A whole leak."""
        self.begin_leak(pages)
        self.ack("deflate", pages)
        self.leave("leak", pages)

    def begin_scan(self, pages: int) -> None:
        """The shrinker is asked to free `pages`."""
        self.enter("scan", 0, self.programs.memory(0, pages))

    def begin_oom(self) -> int:
        """The OOM notifier is asked; returns the address of what has been freed."""
        freed = self.programs.memory(0)
        self.enter("oom", 0, 0, freed)
        return freed

    def fill(self, pages: int, target: int | None = None) -> None:
        """A run of the size worker that takes `pages` in."""
        self.run_worker()
        self.read_target(self.balloon.num_pages + pages if target is None else target)
        self.ack("inflate", pages)
        self.balloon.num_pages += pages
        self.leave("worker")

    def accounted(self) -> bool:
        """Whether every call that was entered is accounted for, of every kind."""
        opened = self.programs.open_calls()
        for kind, counts in self.programs.counters().items():
            still = [call for call in opened if call.kind == kind]
            begun = counts["entered"] + sum(1 for call in still if call.call == "worker")
            ends = ("written", "lost", "untracked", "skipped", "missed")
            if begun != sum(counts[end] for end in ends) + len(still):
                return False
        return True


def pages_of(kind: str, programs: Programs) -> int:
    """Pages that the events of `kind` tell of."""
    return sum(event.done for event in programs.events(kind) if event.done != events.UNKNOWN_PAGES)
