# SPDX-License-Identifier: Apache-2.0
"""The balloon's size when samples were taken, and with it how much RAM the guest has."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from balloontrace.analysis.trace.balloon_size import known_curve
from balloontrace.analysis.trace.gaps import DEFLATED, INFLATED
from balloontrace.analysis.trace.minutes import Minutes
from balloontrace.analysis.trace.samples import UNREAD
from balloontrace.analysis.trace.trace import Ints, Trace, section
from balloontrace.events import BALLOON_PAGE_BYTES

LEAST_CHANGE = 1 << 20
"""Of RAM, in bytes: memory is plugged and unplugged by 2 MiB and more."""


def sampled_size(trace: Trace, minutes: Minutes) -> Ints:
    """Balloon pages at each sample; UNREAD where that is not known.

    By what was traced or counted since a size that is known; else by balloon_inflate -
    balloon_deflate of /proc/vmstat since boot, which the driver counts whatever moves (also when it
    is removed), or by nr_balloon_pages where the kernel has it, which other balloons share.
    """
    if curve := known_curve(trace):
        places = np.searchsorted(curve.time_ns, minutes.time_ns, side="right")
        return np.concatenate(([curve.base], curve.size))[places]
    inflated, deflated = (minutes.column("vmstat", key) for key in (INFLATED, DEFLATED))
    held = minutes.column("vmstat", "nr_balloon_pages")
    counted = (inflated != UNREAD) & (deflated != UNREAD)
    pages = np.where(counted, np.maximum(0, inflated - deflated), held)
    return np.where(pages == UNREAD, UNREAD, pages * trace.pages_per_page)


class Change(NamedTuple):
    """RAM was plugged or unplugged: after one sample, as the next one of `at_ns` says. ram: bytes
    from then on."""

    after_ns: int
    at_ns: int
    ram: int


@dataclass(frozen=True)
class Ram:
    """The guest's memory, the balloon's pages among it. first: bytes, at the first sample;
    lowered: whether MemTotal lacks what the balloon holds, as it does without deflate_on_oom
    (fill_balloon and release_pages_balloon in drivers/virtio/virtio_balloon.c call
    adjust_managed_page_count then)."""

    first: int
    lowered: bool
    changes: tuple[Change, ...] = ()

    @property
    def last(self) -> int:
        """Bytes at the end."""
        return self.changes[-1].ram if self.changes else self.first

    def at(self, time_ns: Ints) -> Ints:
        """Bytes at these moments; while it changes, the most that it can be."""
        sizes = np.array([self.first, *(change.ram for change in self.changes)], dtype=np.int64)
        after, at = (
            np.array([change[which] for change in self.changes], dtype=np.int64) for which in (0, 1)
        )
        most: Ints = np.maximum(
            sizes[np.searchsorted(after, time_ns, side="left")],
            sizes[np.searchsorted(at, time_ns, side="right")],
        )
        return most


def ram_of(trace: Trace, minutes: Minutes, sizes: Ints) -> Ram | None:
    """None if it is not known: of a balloon whose features nobody told."""
    features = trace.balloon.get("features")
    if features is None and (sizes > 0).any():
        return None
    lowered = features is not None and "deflate_on_oom" not in features
    total = minutes.column("meminfo", "MemTotal")
    read = total != UNREAD
    if lowered:
        read = read & (sizes != UNREAD)
    if not read.any():
        return _of_header(trace, lowered)
    ram = (total + sizes * BALLOON_PAGE_BYTES * lowered)[read]
    moments = minutes.time_ns[read]
    if lowered:
        # The two numbers were not read at one moment: while pages move, their sum is off.
        still = np.diff(sizes[read], prepend=-1, append=-1) == 0
        at_rest = still[:-1] & still[1:]
        if not at_rest.any():
            return Ram(int(np.median(ram)), lowered)
        ram, moments = ram[at_rest], moments[at_rest]
    changed = np.flatnonzero(np.abs(np.diff(ram)) >= LEAST_CHANGE) + 1
    changes = zip(
        moments[changed - 1].tolist(), moments[changed].tolist(), ram[changed].tolist(), strict=True
    )
    return Ram(int(ram[0]), lowered, tuple(Change(*change) for change in changes))


def _of_header(trace: Trace, lowered: bool) -> Ram | None:
    """Where no sample tells it."""
    total = section(trace.header, "guest").get("memory_bytes")
    if not total:
        return None
    if not lowered:
        return Ram(int(total), lowered)
    curve = known_curve(trace.entire)
    return Ram(int(total) + curve.base * BALLOON_PAGE_BYTES, lowered) if curve else None
