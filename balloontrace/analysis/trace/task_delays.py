# SPDX-License-Identifier: Apache-2.0
"""The delays of tasks, of each task its first and its last reading, kept while they are read."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

SAME_START_NS = 5_000_000_000
"""Two readings whose start times differ by less are of one task: its age is read some time before
the clock, and a guest that reclaims is slow. A thread id comes again only after all others."""


@dataclass
class Task:
    """The readings of one task: its first and its last. start_ns: CLOCK_MONOTONIC, about."""

    tid: int
    start_ns: int
    first: dict[str, Any]
    last: dict[str, Any]
    readings: int = 1

    def first_if_older(self, begin_ns: int) -> dict[str, Any]:
        """The first reading; empty of a task that began after `begin_ns`: that had waited for
        nothing before."""
        return {} if self.start_ns >= begin_ns else self.first

    def continues(self, other: Task) -> bool:
        """Whether another one's readings are of the same task."""
        return self.tid == other.tid and abs(self.start_ns - other.start_ns) <= SAME_START_NS


class TaskDelays:
    """Every task that was read, in the order in which it was first."""

    def __init__(self) -> None:
        self.tasks: list[Task] = []
        self._latest: dict[int, Task] = {}

    def add(self, delays: dict[str, Any]) -> None:
        """Take the readings of one moment: thread id -> comm, start_ns, and [count, ns] of each
        kind of delay."""
        for key, reading in delays.items():
            if not isinstance(reading, dict):
                continue
            tid, start_ns = int(key), int(reading.get("start_ns") or 0)
            task = self._latest.get(tid)
            now = Task(tid, start_ns, reading, reading)
            if task is None or not task.continues(now):
                self._latest[tid] = now
                self.tasks.append(now)
            else:
                task.last, task.readings = reading, task.readings + 1

    def begin_with(self, earlier: TaskDelays) -> None:
        """Take the last reading of each of these tasks from before, if there is one, as its
        first."""
        known = earlier._latest
        for task in self.tasks:
            before = known.get(task.tid)
            if before is not None and before.continues(task):
                task.first, task.readings = before.last, task.readings + 1
