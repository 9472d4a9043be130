# SPDX-License-Identifier: Apache-2.0
"""Moments at which the balloon's size is known, whatever was lost before.

The size worker asks a fill for what is missing to the target, and a leak for what is too much
(update_balloon_size_func, drivers/virtio/virtio_balloon.c): the size at that moment is the target,
less or more what was asked. It needs no counter, and so it is a second witness of all that moved.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from balloontrace.analysis.trace.gaps import DEFLATED, INFLATED, driver_gaps, reading
from balloontrace.analysis.trace.trace import Bools, Ints, Trace, section
from balloontrace.events import LOSSES, UNKNOWN_PAGES, whole_pages


@dataclass(frozen=True)
class Anchors:
    """`size[i]` pages were in the balloon at `time_ns[i]`, in order of time.

    direct: whether it was read as such. What a call was asked for can be off by what another task
    moved since the worker read the size, or by a target that changes while the call begins: it
    counts if the next one says the same.
    """

    time_ns: Ints
    size: Ints
    direct: Bools

    def runs(self, sizes: Ints) -> tuple[Ints, Ints, Ints]:
        """Where events account for the size by the same difference: the first and the last moment
        of each such stretch, and the difference in pages. sizes: by the events, at each anchor."""
        missing = self.size - sizes
        first = np.flatnonzero(np.diff(missing, prepend=missing[:1] + 1))
        last = np.append(first[1:], len(missing)) - 1
        believed = (last > first) | np.logical_or.reduceat(self.direct, first)
        first, last = first[believed], last[believed]
        return self.time_ns[first], self.time_ns[last], missing[first]


def anchors_of(trace: Trace) -> Anchors:
    """All that the recording knows of the size, beside what moved: from calls of the worker, from
    targets that were seen together with the size, and from /proc/vmstat whenever the driver left or
    came, and at the end."""
    asked, read = _asked(trace), [_seen_with_targets(trace), _counted(trace)]
    time_ns, size = (np.concatenate([pair[of] for pair in (*asked, *read)]) for of in (0, 1))
    direct = np.arange(len(time_ns)) >= sum(len(moments) for moments, _ in asked)
    order = np.argsort(time_ns, kind="stable")
    return Anchors(time_ns[order], size[order], direct[order])


def _asked(trace: Trace) -> list[tuple[Ints, Ints]]:
    """Start and size of each fill, and of each leak of the worker, from what it was asked for."""
    if not _targets_whole(trace):
        return []
    targets = trace.events("target", "start_ns", "asked").sort_values("start_ns", kind="stable")
    told_ns, told = targets["start_ns"].to_numpy(), targets["asked"].to_numpy()
    found = []
    for kind, sign in (("fill", -1), ("leak", 1)):
        calls = trace.calls(kind)
        starts, asked = calls["start_ns"], calls["asked"]
        place = np.searchsorted(told_ns, starts, side="right") - 1
        usable = (place >= 0) & (asked != UNKNOWN_PAGES)
        if kind == "leak":
            usable &= calls["within"] == trace.number("within", "worker")
        target = told[place[usable]]
        known = target != UNKNOWN_PAGES
        # The driver reckons with the target in whole pages of the guest, the recorder with the
        # target itself: the size was a whole number of them in either case.
        size = whole_pages((target + sign * asked[usable])[known], trace.pages_per_page)
        found.append((starts[usable][known], size))
    return found


def _targets_whole(trace: Trace) -> bool:
    """Whether every change of the target is here: by an old one, all sizes would be wrong."""
    counts = section(section(trace.trailer, "counters"), "target")
    lost = any(counts.get(name) for name in LOSSES)
    return not lost and counts.get("written") == len(trace.calls("target"))


def _seen_with_targets(trace: Trace) -> tuple[Ints, Ints]:
    """Moment and size of each target that was read together with the size."""
    targets = trace.calls("target")
    seen = targets["done"] != UNKNOWN_PAGES
    return targets["start_ns"][seen], targets["done"][seen]


def _counted(trace: Trace) -> tuple[Ints, Ints]:
    """Moments at which /proc/vmstat was read while the balloon stood still, and the size by it:
    when a driver was found to be gone, when another one was attached to (just after that, as
    balloon_size.py has it), and at the end."""
    readings = [(trace.end_ns, section(trace.trailer, "vmstat_detach"))]
    for gap in driver_gaps(trace):
        readings += [(gap.noticed_ns, gap.left), (gap.found_ns, gap.found)]
    found = []
    for moment_ns, pair in readings:
        inflated, deflated = reading(pair, INFLATED), reading(pair, DEFLATED)
        if inflated and deflated and inflated[0] == inflated[1] and deflated[0] == deflated[1]:
            found.append((moment_ns, (inflated[1] - deflated[1]) * trace.pages_per_page))
    times, sizes = np.array(found, dtype=np.int64).reshape(-1, 2).T
    return times, sizes
