# SPDX-License-Identifier: Apache-2.0
"""A recording as the moments that a watcher of that guest would have seen."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from balloontrace.analysis.trace.balloon_size import known_curve
from balloontrace.analysis.trace.causes import CAUSE_NAMES, cause_codes
from balloontrace.analysis.trace.trace import Trace
from balloontrace.conditions.triggers import Moment
from balloontrace.events import KINDS, QUEUES, UNKNOWN_PAGES
from balloontrace.sums import SLOTS, Sum, longest_ns

_LIMITS = [longest_ns(slot) for slot in range(SLOTS - 1)]


class _Row:
    """The calls of one row of sums, by when they returned."""

    def __init__(self, calls: Any, which: npt.NDArray[np.bool_]) -> None:
        which = which & ~np.asarray(calls["open"])
        took_ns = np.asarray(calls["duration_ns"], dtype=np.int64)[which]
        self._ends = np.asarray(calls["start_ns"], dtype=np.int64)[which] + took_ns
        order = np.argsort(self._ends, kind="stable")
        self._ends, self._took = self._ends[order], took_ns[order]
        done = np.asarray(calls["done"], dtype=np.int64)[which][order]
        self._done = np.where(done == UNKNOWN_PAGES, 0, done)
        self._slots = np.searchsorted(np.array(_LIMITS), self._took)
        self._sum, self._until = Sum(0, 0, 0, 0, [0] * SLOTS), 0

    def at(self, time_ns: int) -> Sum:
        """What they have come to; moments in order of time."""
        until = int(np.searchsorted(self._ends, time_ns, side="right"))
        new, before = slice(self._until, until), self._sum
        timed = self._slots[new][self._took[new] > 0]
        slots = np.bincount(timed, minlength=SLOTS) + before.slots
        ns, done = (int(column[new].sum()) for column in (self._took, self._done))
        self._sum = Sum(until, 0, before.done + done, before.ns + ns, slots.tolist())
        self._until = until
        return self._sum


def _rows(trace: Trace) -> Iterator[tuple[str, _Row]]:
    known = [kind.name for kind in KINDS if kind.name in trace.header["kinds"]]
    for kind in known:
        calls = trace.calls(kind)
        if kind == "leak":
            codes = cause_codes(trace, calls)
            for code, cause in enumerate(CAUSE_NAMES):
                yield f"leak {cause}", _Row(calls, codes == code)
        elif kind == "ack":
            queues = np.asarray(calls["queue"])
            for queue in QUEUES[1:]:
                number = trace.number("queues", queue.name)
                yield f"ack {queue.name}", _Row(calls, queues == number)
        else:
            yield kind, _Row(calls, np.ones(len(calls), bool))


def moments(trace: Trace) -> list[Moment]:
    """One at each sample, and where there is none for longer, one a second."""
    rows = dict(_rows(trace))
    curve = known_curve(trace)
    samples = [sample for sample in trace.every_sample if "vmstat" in sample]
    targets = trace.events("target").sort_values("start_ns", kind="stable")
    changes = [(change["t_ns"], change["state"]) for change in trace.driver_changes]
    found = []
    for time_ns, sample in _seconds(trace, samples):
        seen = targets["asked"][targets["start_ns"] <= time_ns].tolist()
        target = seen[-1] if seen and seen[-1] != UNKNOWN_PAGES else None
        size = curve.size_after(curve.steps_until(time_ns)) if curve else None
        states = [state for at_ns, state in changes if at_ns <= time_ns]
        gone = bool(states) and states[-1] in ("gone", "absent")
        sums = {name: row.at(time_ns) for name, row in rows.items()}
        found.append(Moment(time_ns, sums, sample, size, target, not gone))
    return found


def _seconds(trace: Trace, samples: list[dict[str, Any]]) -> Iterator[tuple[int, dict[str, Any]]]:
    last_ns = trace.begin_ns
    yield last_ns, {}
    for sample in [*samples, {"t_ns": trace.end_ns}]:
        while sample["t_ns"] - last_ns > 1_500_000_000:
            last_ns += 1_000_000_000
            yield last_ns, {}
        if sample["t_ns"] > last_ns:
            last_ns = sample["t_ns"]
            yield last_ns, sample
