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
            if task is None or abs(task.start_ns - start_ns) > SAME_START_NS:
                task = self._latest[tid] = Task(tid, start_ns, reading, reading)
                self.tasks.append(task)
            else:
                task.last, task.readings = reading, task.readings + 1
