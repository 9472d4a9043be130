# SPDX-License-Identifier: Apache-2.0
"""Sums of one second each, and how things stood at its end: what views of any moment are made of.

Bounded, whatever a stream holds: so many tasks a second, so many seconds.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple, Optional

from balloontrace.live.episodes import Part
from balloontrace.live.view import Agreement, Fired, Memory, Pressure
from balloontrace.sums import SLOTS, longest_ns

KEPT = 900
"""Seconds: the longest zoom."""

MOST_TASKS = 64
"""In one second, and 16 times as many since the begin; what is done by others is done by OTHERS."""


class TaskKey(NamedTuple):
    """Who a task is, see view.Task."""

    kind: str
    comm: bytes
    pid: int
    cause: str


OTHERS = TaskKey("task", b"(others)", 0, "shrinker")


class CallSum:
    """Calls of one kind. pages: what they did; ns, longest_ns: from entry to return."""

    __slots__ = ("calls", "longest_ns", "ns", "pages")

    def __init__(self) -> None:
        self.calls = self.pages = self.ns = self.longest_ns = 0

    def add(self, other: CallSum) -> None:
        """Take what another has come to."""
        self.calls += other.calls
        self.pages += other.pages
        self.ns += other.ns
        self.longest_ns = max(self.longest_ns, other.longest_ns)


class AckSum:
    """Acks of one queue. slots: calls by duration, as sums.SLOTS."""

    __slots__ = ("longest_ns", "slots")

    def __init__(self) -> None:
        self.slots, self.longest_ns = [0] * SLOTS, 0

    def add(self, other: AckSum) -> None:
        """Take what another has come to."""
        self.slots = [a + b for a, b in zip(self.slots, other.slots)]
        self.longest_ns = max(self.longest_ns, other.longest_ns)

    @property
    def calls(self) -> int:
        """How many."""
        return sum(self.slots)

    def within_s(self, share: float) -> float:
        """No more than so many seconds took this share of the calls; no more than the longest."""
        left = share * self.calls
        for slot, number in enumerate(self.slots):
            left -= number
            if left <= 0:
                limit = longest_ns(slot)
                longest = self.longest_ns
                return (longest if limit is None else min(limit, longest)) / 1e9
        return self.longest_ns / 1e9


class Tasks:
    """Who gave pages back, by who it is: [pages, calls]. Bounded."""

    __slots__ = ("_most", "found")

    def __init__(self, most: int) -> None:
        self._most = most
        self.found: dict[TaskKey, list[int]] = {}

    def add(self, key: TaskKey, pages: int, calls: int) -> None:
        """So many more."""
        mine = self.found.get(key)
        if mine is None:
            if len(self.found) >= self._most:
                key = OTHERS
            mine = self.found.setdefault(key, [0, 0])
        mine[0] += pages
        mine[1] += calls


class Standing(NamedTuple):
    """How things stood at the end of a second, or stand now. by_cause: pages out since the begin;
    still_ns: without progress up to now, longest_still_ns: at most; events, bytes: of the
    stream."""

    t_ns: int
    size: Optional[int]
    target: Optional[int]
    driver: Optional[str]
    inflated: int
    by_cause: dict[str, int]
    churn_ratio: Optional[float]
    amplification: Optional[float]
    still_ns: Optional[int]
    longest_still_ns: Optional[int]
    memory: Memory
    pressure: Pressure
    findings: tuple[Fired, ...]
    agreement: Agreement
    events: int
    bytes: int


class Second:
    """number: since attach, from 0; filled, leaked: pages in, and out by cause; calls: by kind;
    acks: by queue; part: what moved, by stretch; stands_still: it was on its way to a target all
    the time, and came no closer; standing: how things stood at its end."""

    __slots__ = (
        *("acks", "calls", "filled", "leaked", "number", "part", "standing", "stands_still"),
        "tasks",
    )

    def __init__(self, number: int) -> None:
        self.number, self.filled = number, 0
        self.leaked: dict[str, int] = {}
        self.calls: dict[str, CallSum] = {}
        self.acks: dict[str, AckSum] = {}
        self.tasks = Tasks(MOST_TASKS)
        self.part = Part()
        self.stands_still = False
        self.standing: Optional[Standing] = None


def calls_of(seconds: Iterable[Second]) -> dict[str, CallSum]:
    """By kind, of all of these."""
    found: dict[str, CallSum] = {}
    for second in seconds:
        for kind, one in second.calls.items():
            found.setdefault(kind, CallSum()).add(one)
    return found


def acks_of(seconds: Iterable[Second]) -> dict[str, AckSum]:
    """By queue, of all of these."""
    found: dict[str, AckSum] = {}
    for second in seconds:
        for queue, one in second.acks.items():
            found.setdefault(queue, AckSum()).add(one)
    return found


def tasks_of(seconds: Iterable[Second]) -> Tasks:
    """Of all of these."""
    found = Tasks(KEPT * MOST_TASKS)
    for second in seconds:
        for key, (pages, calls) in second.tasks.found.items():
            found.add(key, pages, calls)
    return found
