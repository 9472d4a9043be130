# SPDX-License-Identifier: Apache-2.0
"""What moved, as /proc/vmstat counted it from one sample to the next: all that `record --counters`
knows of the balloon."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from balloontrace.analysis.trace.gaps import DEFLATED, INFLATED, MIGRATED
from balloontrace.analysis.trace.samples import UNREAD
from balloontrace.analysis.trace.trace import Ints, Trace, per_trace, section

JOINED_NS = 1_000_000_000
"""Moves in both directions that are no further apart belong together."""


@dataclass(frozen=True)
class Moved:
    """Balloon pages in and out, since the first reading, at the time of each reading."""

    time_ns: Ints
    inflated: Ints
    deflated: Ints


@dataclass(frozen=True)
class BackAndForth:
    """A stretch in which pages moved in both directions from each reading to the next but one a
    second. Balloon pages; longest_no_progress_ns: while the balloon was no larger than before."""

    start_ns: int
    end_ns: int
    inflated_pages: int
    deflated_pages: int
    longest_no_progress_ns: int


@per_trace
def moved_of(trace: Trace) -> Moved | None:
    """Of a window: since the last reading before it. None if the recording does not say: a kernel
    without these counters, a driver that does not count there, or one reading alone."""
    time_ns, inflated, deflated = _readings(trace, INFLATED, DEFLATED)
    return Moved(time_ns, inflated, deflated) if len(time_ns) > 1 else None


def migrated_of(trace: Trace) -> int | None:
    """Balloon pages that the kernel moved; None as for `moved_of`."""
    time_ns, migrated = _readings(trace, MIGRATED)
    return int(migrated[-1]) if len(time_ns) > 1 else None


def _readings(trace: Trace, *names: str) -> list[Ints]:
    """Time of each reading that has these counters, and of each counter the balloon pages since the
    first: in the header, the samples, and the trailer."""
    entire = trace.entire
    ends = [
        (entire.begin_ns, section(section(entire.header, "vmstat_attach"), "after")),
        (entire.end_ns, section(section(entire.trailer, "vmstat_detach"), "before")),
    ]
    begin, end = ([at_ns, *(said.get(name, UNREAD) for name in names)] for at_ns, said in ends)
    samples = entire.samples
    rows = [samples.time_ns, *(samples.column("vmstat", name) for name in names)]
    table = np.column_stack((begin, np.array(rows, np.int64), end))
    table = table[:, (table[1:] != UNREAD).all(axis=0)]
    first = max(0, int(np.searchsorted(table[0], trace.after_ns, side="right")) - 1)
    time_ns, *counters = table[:, first : np.searchsorted(table[0], trace.until_ns, side="right")]
    return [time_ns, *((one - one[:1]) * trace.pages_per_page for one in counters)]


def back_and_forth(moved: Moved) -> list[BackAndForth]:
    """The stretches, in order of time.

    A host that wants pages and gives them back within one interval between two readings would look
    the same; there is none that moves its target ten times a second.
    """
    both = (np.diff(moved.inflated) > 0) & (np.diff(moved.deflated) > 0)
    places = np.flatnonzero(both)
    if not len(places):
        return []
    begins, ends = moved.time_ns[places], moved.time_ns[places + 1]
    breaks = np.flatnonzero(begins[1:] - ends[:-1] > JOINED_NS)
    firsts = places[np.concatenate(([0], breaks + 1))]
    lasts = places[np.concatenate((breaks, [len(places) - 1]))] + 1
    return [
        _stretch(moved, int(first), int(last)) for first, last in zip(firsts, lasts, strict=True)
    ]


def _stretch(moved: Moved, first: int, last: int) -> BackAndForth:
    inside = slice(first, last + 1)
    size = (moved.inflated - moved.deflated)[inside]
    time_ns = moved.time_ns[inside]
    highest = np.maximum.accumulate(size)
    advanced = np.concatenate(([True], np.diff(highest) > 0))
    marks = np.append(time_ns[advanced], time_ns[-1])
    return BackAndForth(
        int(time_ns[0]),
        int(time_ns[-1]),
        int(moved.inflated[last] - moved.inflated[first]),
        int(moved.deflated[last] - moved.deflated[first]),
        int(np.diff(marks).max()),
    )
