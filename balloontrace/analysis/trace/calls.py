# SPDX-License-Identifier: Apache-2.0
"""Calls of the driver that contain others, and the time in them.

The driver's calls nest: reclaim runs inside a fill, a leak inside reclaim, the wait for the host
inside a leak. Time that is to be added up must be that of outermost calls, each moment once.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pandas as pd

from balloontrace.analysis.trace.trace import Bools, Columns, Ints, Trace

KINDS = ("fill", "leak", "scan", "oom_notify", "migrate", "count")
"""What moves pages of the balloon, or was asked to. Free page reporting and hinting are not among
them: their waits for the host cannot be told from their work."""

COLUMNS = ("record", "start_ns", "duration_ns", "open", "tid", "flags")
"""What is needed of calls that are picked out: all columns would copy half of a trace."""

_BITS_OF = {"scan": "scan", "oom": "oom_notify", "migrate": "migrate"}
"""Bits of `within` -> the kind of event that call is, where older recorders set the bit only."""

_RECORD_BITS = 40
_LAST = (1 << _RECORD_BITS) - 1
_MOST_NS = 1 << 62

_AT_ONCE = 1 << 18
"""Parts that are assigned to calls at once: of all of them the arrays would take gigabytes."""


def outermost(trace: Trace, kind: str) -> Bools:
    """Which calls of one of KINDS were made within no other call of KINDS that was recorded.

    Calls that were entered before the probes were there (`partial`) are none: their time is not
    known.
    """
    calls = trace.calls(kind)
    inner = trace.marked(calls, "flags", "flags", "partial")
    if kind == "fill":
        return ~inner
    worker = trace.marked(calls, "within", "within", "worker")
    if kind != "leak":
        return ~(inner | worker | trace.marked(calls, "within", "within", "scan", "oom"))
    # A leak within the worker alone is the host's: the worker either fills or leaks.
    by_others = trace.marked(calls, "within", "within", "scan", "oom")
    recorded = [bit for bit in ("scan", "oom") if trace.recorded(_BITS_OF[bit])]
    return ~(inner | (worker & by_others) | trace.marked(calls, "within", "within", *recorded))


def of_worker(trace: Trace, kind: str) -> Bools:
    """Which of the outermost calls of a kind the size worker made: its fills and its leaks."""
    calls = trace.calls(kind)
    if kind == "fill":
        return outermost(trace, kind)
    worker = trace.marked(calls, "within", "within", "worker")
    mine: Bools = worker & outermost(trace, kind)
    return mine


def waits(trace: Trace) -> dict[str, Bools]:
    """What in the outermost calls is known to need no CPU: kind -> which of its calls.

    That is waits for the host, and the size worker's sleeps. An ack that was made within no call
    that was recorded is not among them.
    """
    acks = trace.calls("ack")
    bits = ["worker", "leak", "remove", "freeze"]
    bits += [bit for bit, of in _BITS_OF.items() if trace.recorded(of)]
    inside = trace.marked(acks, "within", "within", *bits)
    if not trace.recorded("migrate"):
        inside &= ~trace.marked(acks, "within", "within", "migrate")
    return {"ack": inside, "sleep": np.ones(len(trace.calls("sleep")), dtype=bool)}


class BusyTime:
    """The time in outermost calls without their waits, for any span of the recording.

    Two calls at the same time, on two CPUs, count twice, as their CPU time would.
    """

    def __init__(self, trace: Trace) -> None:
        calls = {kind: outermost(trace, kind) for kind in KINDS if trace.recorded(kind)}
        self._calls, self._waits = _Running(trace, calls), _Running(trace, waits(trace))

    def between(self, start_ns: int, end_ns: int) -> float:
        """Seconds within a span; calls that reach over its ends count with the part inside."""
        called, waited = (
            running.until(end_ns) - running.until(start_ns)
            for running in (self._calls, self._waits)
        )
        # Where the event of a call was lost, those of its waits may not have been.
        return max(0, called - waited) / 1e9


class _Running:
    """How much time was spent in some calls until any moment."""

    def __init__(self, trace: Trace, chosen: dict[str, Bools]) -> None:
        """chosen: kind -> which of its calls."""
        self._begin_ns = trace.begin_ns
        self._edges = [_Edge(trace, chosen, column) for column in ("start_ns", "end_ns")]

    def until(self, time_ns: int) -> int:
        """Nanoseconds spent in the calls up to this moment.

        That is the time since each begin, less the time since each end. The sums over millions of
        calls do not fit 64 bits, but their difference does, and sums wrap around without harm.
        """
        begins, ends = (edge.since(time_ns - self._begin_ns) for edge in self._edges)
        return (begins - ends) % 2**64


class _Edge:
    """The moments of one end of all calls, in order, and the sum up to every thousandth one (modulo
    2^64): sums up to each would take as much memory again."""

    _STEP = 1024

    def __init__(self, trace: Trace, chosen: dict[str, Bools], column: str) -> None:
        counts = [int(which.sum()) for which in chosen.values()]
        self._moments: Ints = np.empty(sum(counts), np.int64)
        end = 0
        for (kind, which), count in zip(chosen.items(), counts, strict=True):
            end += count
            np.compress(which, trace.calls(kind).once(column), out=self._moments[end - count : end])
        # Nearly in order already, which a stable sort makes use of.
        self._moments.sort(kind="stable")
        self._moments -= trace.begin_ns
        steps = np.arange(0, len(self._moments), self._STEP)
        sums = np.add.reduceat(self._moments, steps) if len(steps) else np.zeros(0, np.int64)
        self._sums: Ints = np.concatenate(([0], np.cumsum(sums)))

    def since(self, at: int) -> int:
        """The time since each moment before this one, summed up; modulo 2^64."""
        passed = int(np.searchsorted(self._moments, at, side="right"))
        step = passed // self._STEP
        rest = self._moments[step * self._STEP : passed].sum()
        return passed * at - int(self._sums[step]) - int(rest)


def time_inside(calls: Columns, parts: Iterable[pd.DataFrame]) -> Ints:
    """Nanoseconds of each of `calls` that are in `parts`, which may not overlap each other.

    A part belongs to the call of its thread that returned next, if it began within that: of one
    thread, the calls of one frame may not contain each other.
    """
    keys = _keys(calls, _LAST)
    order = np.argsort(keys, kind="stable")
    keys = keys[order]
    order = order.astype(np.int32)  # half the memory, and enough for what fits into it
    starts = np.asarray(calls["start_ns"])
    # A float holds nanoseconds exactly up to a hundred days.
    sums = np.zeros(len(calls))
    for part in parts:
        for first in range(0, len(part), _AT_ONCE):
            some = part.iloc[first : first + _AT_ONCE]
            part_keys = _keys(some, _LAST - 1)
            place = np.searchsorted(keys, part_keys)
            found = np.flatnonzero(place < len(keys))
            place = place[found]
            same = (keys[place] ^ part_keys[found]) >> _RECORD_BITS == 0
            place = order[place]
            same &= some["start_ns"].to_numpy()[found] >= starts[place]
            time_ns = some["duration_ns"].to_numpy()[found][same]
            np.add.at(sums, place[same], time_ns.astype(np.float64))
    # Of damaged events they may be more than 63 bits hold.
    np.clip(sums, -_MOST_NS, _MOST_NS, out=sums)
    whole: Ints = sums.view(np.int64)
    for first in range(0, len(sums), _AT_ONCE):  # in place: all at once would be a copy
        whole[first : first + _AT_ONCE] = sums[first : first + _AT_ONCE].astype(np.int64)
    return whole


def _keys(calls: Columns, of_open: int) -> Ints:
    """Thread and place in the file in one number. Calls that are open stand last of their thread,
    whatever the order in which the recorder wrote them."""
    keys: Ints = np.asarray(calls["tid"]).astype(np.int64)
    keys <<= _RECORD_BITS
    keys |= np.asarray(calls["record"])
    is_open = np.asarray(calls["open"])
    keys[is_open] = keys[is_open] & ~_LAST | of_open
    return keys
