# SPDX-License-Identifier: Apache-2.0
"""When the guest starved while the balloon stood still: its tasks waited for memory that reclaim
took from them, with hardly any available, and the balloon held enough to help."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from balloontrace.analysis.trace.minutes import Minutes
from balloontrace.analysis.trace.samples import UNREAD
from balloontrace.analysis.trace.trace import Bools, Ints
from balloontrace.events import BALLOON_PAGE_BYTES
from balloontrace.thresholds import (
    AVAILABLE_SHARE,
    FULL_SHARE,
    HELD_SHARE,
    MAJOR_FAULTS_PER_S,
    MOVED_SHARE,
    STALLS_PER_S,
    STARVED_NS,
    SWAP_INS_PER_S,
)


@dataclass(frozen=True)
class Starved:
    """A stretch of time; pages: in the balloon at least, available: median of MemAvailable in
    bytes; ram: bytes at its end; per_s: by the kernel's name of each."""

    start_ns: int
    end_ns: int
    pages: int
    available: int
    ram: int
    some: float | None
    full: float | None
    per_s: dict[str, float]


RATES = (
    *("workingset_refault_file", "workingset_refault_anon", "pgmajfault", "allocstall"),
    "pswpin",
)
"""Columns of /proc/vmstat that show it."""


_NEEDED = (("meminfo", "MemAvailable"), ("vmstat", "pgmajfault"), ("vmstat", "allocstall"))
_PRESSURE = (("memory", "some_us"), ("memory", "full_us"))


def starved(minutes: Minutes, sizes: Ints, ram: Ints) -> list[Starved] | None:
    """The stretches, in order of time; None if the samples do not tell. sizes, ram: balloon pages,
    and bytes of RAM, at each sample."""
    read = minutes.having(*_NEEDED) & (sizes != UNREAD)
    if minutes.having(*_PRESSURE).any():
        read &= minutes.having(*_PRESSURE)
    if read.sum() < 2:
        return None
    minutes, sizes, ram = minutes.only(read), sizes[read], ram[read]
    # Few of ten days' samples are of a guest with hardly any memory: the rest costs nothing.
    little = minutes.column("meminfo", "MemAvailable") < AVAILABLE_SHARE * ram
    last = np.flatnonzero(little & (sizes * BALLOON_PAGE_BYTES >= HELD_SHARE * ram))
    first = np.maximum(minutes.begins[last], _rest_begins(sizes, ram)[last])
    starving = _starving(minutes, ram, first, last)
    spans: list[tuple[int, int]] = []
    for begin, place in zip(first[starving].tolist(), last[starving].tolist(), strict=True):
        if spans and begin <= spans[-1][1]:
            spans[-1] = spans[-1][0], place
        else:
            spans.append((begin, place))
    return [_stretch(minutes, sizes, ram, begin, end) for begin, end in spans]


def _rest_begins(sizes: Ints, ram: Ints) -> Ints:
    """For each sample the place of the first one since which the balloon stood still."""
    moved = np.abs(np.diff(sizes, prepend=sizes[:1])) * BALLOON_PAGE_BYTES > MOVED_SHARE * ram
    begins: Ints = np.maximum.accumulate(np.where(moved, np.arange(len(sizes)), 0))
    return begins


def _starving(minutes: Minutes, ram: Ints, first: Ints, last: Ints) -> Bools:
    """Whether the guest starved in the times between these samples; there is little memory at the
    end of each."""
    available = minutes.column("meminfo", "MemAvailable")
    long = minutes.time_ns[last] - minutes.time_ns[first] >= STARVED_NS
    little = available[first] < AVAILABLE_SHARE * ram[first]
    busy = minutes.per_s("vmstat", "pgmajfault", first, last) >= MAJOR_FAULTS_PER_S
    busy |= minutes.per_s("vmstat", "allocstall", first, last) >= STALLS_PER_S
    if minutes.having(("vmstat", "pswpin")).all():
        busy |= minutes.per_s("vmstat", "pswpin", first, last) >= SWAP_INS_PER_S
    starving: Bools = long & little & busy
    if minutes.having(*_PRESSURE).all():
        starving &= minutes.per_s("memory", "full_us", first, last) / 1e6 >= FULL_SHARE
    return starving


def _stretch(minutes: Minutes, sizes: Ints, ram: Ints, begin: int, end: int) -> Starved:
    first, last = np.array([begin]), np.array([end])
    inside = slice(begin, end + 1)

    def rate(source: str, key: str) -> float | None:
        known = minutes.having((source, key))[[begin, end]].all()
        return float(minutes.per_s(source, key, first, last)[0]) if known else None

    rates = {key: rate("vmstat", key) for key in RATES}
    shares = [rate("memory", key) for key in ("some_us", "full_us")]
    some, full = (None if share is None else min(1.0, share / 1e6) for share in shares)
    return Starved(
        int(minutes.time_ns[begin]),
        int(minutes.time_ns[end]),
        int(sizes[inside].min()),
        int(np.median(minutes.column("meminfo", "MemAvailable")[inside])),
        int(ram[end]),
        some,
        full,
        {key: value for key, value in rates.items() if value is not None},
    )
