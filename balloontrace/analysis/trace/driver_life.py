# SPDX-License-Identifier: Apache-2.0
"""When the driver left the device, and when one was there again: by its own calls, by what the
recorder said, and where the call that brought it was not seen, by the first work that it did."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from balloontrace.analysis.trace.gaps import driver_gaps
from balloontrace.analysis.trace.trace import Ints, Trace, per_trace

_FOREVER = 2**63 - 1


@per_trace
def departures(trace: Trace) -> list[int]:
    """When the driver began to leave, each time: a remove, a freeze, or a gap; in order."""
    left = {gap.start_ns for gap in driver_gaps(trace) if not gap.absent}
    for kind in ("remove", "freeze"):
        left |= set(trace.calls(kind)["start_ns"].tolist())
    return sorted(left)


@per_trace
def arrivals(trace: Trace) -> list[int]:
    """When a driver came that was traced, each time, in order: attached to, bound, restored. Where
    none of these is between two departures, the first work of the size worker there."""
    bound = trace.calls("bind")
    came = {gap.end_ns for gap in driver_gaps(trace) if not gap.open}
    came |= set(bound["start_ns"][bound["done"] != 0].tolist())
    came |= set(trace.calls("restore")["start_ns"].tolist())
    if not (left := _left(trace)):
        return sorted(came)
    told, work = sorted(came), _work(trace)
    for left_ns, next_ns in pairwise([*left, _FOREVER]):
        again, known = first_after(work, left_ns), first_after(told, left_ns)
        if again is not None and again < next_ns and (known is None or known >= next_ns):
            came.add(again)
    return sorted(came)


@per_trace
def returns(trace: Trace) -> list[int]:
    """When a driver was there again, traced or not, each time, in order."""
    seen = (gap.seen_ns for gap in driver_gaps(trace) if gap.seen_ns is not None)
    return sorted([*arrivals(trace), *seen])


def first_after(moments: Sequence[int] | Ints, time_ns: int) -> int | None:
    """The first of `moments`, which are in order, after this one."""
    place = bisect_right(moments, time_ns)
    return int(moments[place]) if place < len(moments) else None


def _left(trace: Trace) -> list[int]:
    """When it had left, each time: the size worker was cancelled by then (remove_common and
    virtballoon_freeze in drivers/virtio/virtio_balloon.c)."""
    calls = [trace.calls(kind) for kind in ("remove", "freeze")]
    return sorted(moment for one in calls for moment in one["end_ns"][~one["open"]].tolist())


def _work(trace: Trace) -> Ints:
    """When the size worker read a target, took pages or gave them back, in order."""
    leaks = trace.calls("leak")
    by_worker = leaks["within"] == trace.number("within", "worker")
    starts = [trace.calls(kind)["start_ns"] for kind in ("target", "fill")]
    moments: Ints = np.sort(np.concatenate([*starts, leaks["start_ns"][by_worker]]))
    return moments
