# SPDX-License-Identifier: Apache-2.0
"""Readings as the BPF programs' maps would give them."""

from __future__ import annotations

import random
import struct
from collections.abc import Iterable, Mapping

from balloontrace import events, sums
from balloontrace.conditions.agreement import COUNTERS
from balloontrace.conditions.triggers import FINDINGS
from balloontrace.tracers.attach import state
from balloontrace.watch.metrics import DUMPED_FOR, UNKEPT, Reading

Calls = Mapping[str, Iterable[int]]
"""Name of a row of sums.py -> durations of its calls, ns."""


def slot_of(duration_ns: int) -> int:
    """The slot of a duration, as slot_of_duration of bpf/balloon.c has it."""
    bits = (duration_ns - 1).bit_length() if duration_ns else 0
    return min(max(bits - sums.FIRST_BITS, 0), sums.SLOTS - 1)


def sums_of(calls: Calls, pages: int = 1) -> dict[str, sums.Sum]:
    """Sums over two CPUs, on which the calls are made in turn; each moves so many pages."""
    words = sums.BYTES // 8
    per_row = 4 + sums.SLOTS
    cpus = [[0] * words, [0] * words]
    for row in sums.ROWS:
        for number, duration_ns in enumerate(calls.get(row.name, ())):
            table, at = cpus[number % 2], row.number * per_row
            for offset, value in enumerate((1, pages, pages, duration_ns)):
                table[at + offset] += value
            table[at + 4 + slot_of(duration_ns)] += 1
    return sums.of_rows(b"".join(struct.pack(f"@{words}Q", *table) for table in cpus))


def durations(random_: random.Random, limits: Iterable[int]) -> list[int]:
    """Durations of all sizes, with those on each side of each limit among them."""
    found = [max(0, limit + off) for limit in limits for off in (-1, 0, 1)]
    found += [int(2 ** random_.uniform(0, 40)) for _ in range(200)]
    return found


def everything(seed: int = 1) -> Reading:
    """A reading of a guest in which everything has happened, and everything is known."""
    random_ = random.Random(seed)
    rows = {row.name: durations(random_, [1 << 14]) for row in sums.ROWS}
    counts = [name for name, _ in state.COUNTERS]
    return Reading(
        sums=sums_of(rows),
        counters={k.name: {name: random_.randrange(9) for name in counts} for k in events.KINDS},
        size_pages=1 << 20, target_pages=1 << 21, progress_pages=77, no_progress_ns=1_500_000_001,
        differences=dict.fromkeys(COUNTERS, -1), findings=dict.fromkeys(FINDINGS, 3),
        dumps=dict.fromkeys(DUMPED_FOR, 2), kept_bytes=1 << 33, attached=True,
        unkept=dict.fromkeys(UNKEPT, 4),
        means="kprobe.multi", version="0.1.0", kernel="6.1.0-amd64", cpu_ns=12_345_678_901,
        rss_bytes=12 << 20, started_s=1_764_254_000.25, reading_ns=45_678,
    )  # fmt: skip
