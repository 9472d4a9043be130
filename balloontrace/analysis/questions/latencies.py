# SPDX-License-Identifier: Apache-2.0
"""How long each kind of call took, and each phase of a fill and a leak: percentiles, histograms."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np
import pandas as pd

from balloontrace.analysis.base import Question, Result, Section
from balloontrace.analysis.fields import Field, Shape, Table, Unit
from balloontrace.analysis.questions.phases import FILL_PARTS, host_acks, outside_reclaim
from balloontrace.analysis.trace.calls import COLUMNS, time_inside
from balloontrace.analysis.trace.trace import Columns, Ints, Trace, section

PERCENTILES = (50, 90, 99)

WHOLE_CALLS = ("scan", "oom_notify", "migrate", "report")
"""Kinds besides fill and leak; what they wait for is in the leaks and acks within them, or is
nearly all of them: a report waits for the host."""

_OF_SAMPLE = ("duration_ns", "open", "flags")

_AT_ONCE = 1 << 18
"""Durations that are sorted into a histogram at once."""


@dataclass(frozen=True)
class Sample:
    """Calls of one row. durations_ns: of those seen from entry to return; open_ns: how long those
    that had not returned at the end had lasted; unseen: calls whose entry or
    return was not seen."""

    durations_ns: Ints
    open_ns: Ints
    unseen: int


PHASES = ("host_ack", *FILL_PARTS, "rest")
"""Of a fill; a leak has the first and the last."""

_BUCKET = (
    Field("from_us", Unit.NUMBER, "microseconds, inclusive"),
    Field("below_us", Unit.NUMBER, "microseconds, exclusive"),
    Field("calls", Unit.NUMBER),
)


class Latencies(Question):
    """Distribution of the durations of each kind of call and each phase.

    Exact, over all calls that were seen from entry to return. The p-th percentile is the nearest
    rank: the shortest duration such that at least p % of the calls took no longer. It is always the
    duration of a call that was made. A call that had not returned at the end is counted apart
    (`open`, with how long the longest had lasted), for its duration is not known.

    Histograms have a bucket for each power of two of a microsecond, so never more than 55.
    """

    section = Section(
        "latencies",
        "Latencies",
        90,
        "how long calls and their phases took, exactly, over all seen from entry to return",
        tables=(
            Table(
                "latencies",
                (
                    Field("call", Unit.TEXT, words=("fill", "leak", *WHOLE_CALLS), never_null=True),
                    Field("phase", Unit.TEXT, "null: the whole call", words=PHASES),
                    Field("calls", Unit.NUMBER, title="calls"),
                    Field("min_s", Unit.SECONDS, title="shortest"),
                    *(Field(f"p{p}_s", Unit.SECONDS, title=f"p{p}") for p in PERCENTILES),
                    Field("max_s", Unit.SECONDS, title="longest"),
                    Field("open", Unit.NUMBER, "had not returned at the end; in none of these"),
                    Field("open_longest_s", Unit.SECONDS, "how long one of those had lasted"),
                    Field("unseen", Unit.NUMBER, "entry or return was not seen; in none of these"),
                    Field("histogram", _BUCKET, "at most 55", shape=Shape.ARRAY),
                ),
                "calls",
            ),
        ),
    )
    # That there are no reports without reporting is said in the section of free pages.
    optional = ("fill", "leak", "ack", *FILL_PARTS, *(k for k in WHOLE_CALLS if k != "report"))

    def run(self, trace: Trace) -> Result:
        """One row per call and phase (None: the whole call), in seconds; None if not recorded."""
        rows = [_row("fill", None, _whole(trace, "fill")), *_fill_phases(trace)]
        rows += [_row("leak", None, _whole(trace, "leak")), *_phases(trace, "leak", {})]
        rows += [_row(kind, None, _whole(trace, kind)) for kind in WHOLE_CALLS]
        return Result(self.name, tables={self.name: rows}, notes=_notes(trace))


def _notes(trace: Trace) -> list[str]:
    """A rung of a leak that does not see its time."""
    loses = str(section(trace.seams, "leak").get("loses") or "")
    return [f"leaks were traced by a seam that loses {loses}"] if "its time" in loses else []


def _whole(trace: Trace, kind: str) -> Sample | None:
    return _sample(trace, trace.calls(kind)) if trace.recorded(kind) else None


def _sample(trace: Trace, calls: Columns, durations_ns: Ints | None = None) -> Sample:
    """Calls sorted out; durations_ns: of each, if not the whole call's."""
    of = np.asarray(calls["duration_ns"]) if durations_ns is None else durations_ns
    is_open = np.asarray(calls["open"])
    partial = trace.marked(calls, "flags", "flags", "partial", "missed")
    return Sample(of[~is_open & ~partial], of[is_open], int((partial & ~is_open).sum()))


def _fill_phases(trace: Trace) -> list[dict[str, Any]]:
    """A row for each phase of fills."""
    return _phases(trace, "fill", {part: outside_reclaim(trace, part) for part in FILL_PARTS})


def _phases(trace: Trace, kind: str, parts: dict[str, pd.DataFrame | None]) -> list[dict[str, Any]]:
    """A row for the waits for the host of all calls of `kind`, for the calls of each of its other
    parts, and for what of each is in none of them (`rest`)."""
    calls, acks, waits = trace.calls(kind), trace.calls("ack"), host_acks(trace, kind)
    waited = None if waits is None else _sample(trace, acks.picked(waits, *_OF_SAMPLE))
    rows = [_row(kind, "host_ack", waited)]
    del waited
    rows += [
        _row(kind, part, None if frame is None else _sample(trace, frame))
        for part, frame in parts.items()
    ]
    if not trace.recorded(kind) or waits is None:
        return [*rows, _row(kind, "rest", None)]
    frames = [frame for frame in parts.values() if frame is not None]
    rest_ns = time_inside(calls, chain(acks.pieces(waits, *COLUMNS), frames))
    np.subtract(calls["duration_ns"], rest_ns, out=rest_ns)
    np.maximum(rest_ns, 0, out=rest_ns)
    return [*rows, _row(kind, "rest", _sample(trace, calls, rest_ns))]


def _row(call: str, phase: str | None, sample: Sample | None) -> dict[str, Any]:
    """One row of the table; sample: None if not recorded."""
    row: dict[str, Any] = {"call": call, "phase": phase}
    values = dict.fromkeys(("min_s", *(f"p{p}_s" for p in PERCENTILES), "max_s"))
    if sample is None:
        nothing = dict.fromkeys(("calls", "open", "open_longest_s", "unseen"))
        return {**row, **nothing, **values, "histogram": None}
    longest = int(sample.open_ns.max()) / 1e9 if len(sample.open_ns) else None
    return {
        **row,
        "calls": len(sample.durations_ns),
        "open": len(sample.open_ns),
        "open_longest_s": longest,
        "unseen": sample.unseen,
        **values,
        **_ranks(sample.durations_ns),
        "histogram": _histogram(sample.durations_ns),
    }


def _ranks(durations_ns: Ints) -> dict[str, float]:
    """Shortest, percentiles and longest in seconds; empty if there were no calls. Changes the order
    of the durations."""
    calls = len(durations_ns)
    if not calls:
        return {}
    # Whole numbers: 0.9 * 10 would round to a rank too high where a float is a bit too large.
    ranks = {f"p{p}_s": -(-p * calls // 100) - 1 for p in PERCENTILES}
    ranks = {"min_s": 0, **ranks, "max_s": calls - 1}
    durations_ns.partition(sorted(set(ranks.values())))
    return {name: int(durations_ns[rank]) / 1e9 for name, rank in ranks.items()}


def _histogram(durations_ns: Ints) -> list[dict[str, int]]:
    """Buckets from the first to the last that has calls, with those between that have none.

    from_us inclusive, below_us exclusive: powers of two, the first bucket is below 1 us.
    """
    calls = np.zeros(65, np.int64)
    for first in range(0, len(durations_ns), _AT_ONCE):
        some = durations_ns[first : first + _AT_ONCE]
        # The exponent of a float is how many binary digits the whole number has.
        calls += np.bincount(np.frexp((some // 1000).astype(np.float64))[1], minlength=len(calls))
    calls = np.trim_zeros(calls, "b")
    first = int(np.flatnonzero(calls)[0]) if len(calls) else 0
    return [
        {"from_us": 2**n // 2, "below_us": 2**n, "calls": int(calls[n])}
        for n in range(first, len(calls))
    ]
