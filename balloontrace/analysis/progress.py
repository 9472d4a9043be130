"""Episodes: how the balloon got from each target to the next (metrics.md: episode, progress)."""

from __future__ import annotations

from typing import Any

import numpy as np

from balloontrace.analysis.base import Analysis, Result
from balloontrace.analysis.sizes import SizeCurve, size_curve
from balloontrace.analysis.totals import churn_ratio
from balloontrace.analysis.trace import Ints, Trace
from balloontrace.events import UNKNOWN_PAGES

LISTED_SPAN_S = 1.0
"""Shortest no-progress span that is listed. A chunk of 256 pages takes milliseconds and the
driver's sleep when it finds no memory 0.2 s: five such sleeps in a row are not the ordinary pace.
The longest span is exact whatever its length."""


def progress_edges(
    time_ns: Ints, size: Ints, start_size: int, start_ns: int, end_ns: int, direction: int
) -> Ints:
    """The moments between which the high-water mark of the balloon size stood still.

    time_ns, size: the steps within the episode, in order of time; direction: 1 inflate, -1
    deflate. Returns start_ns, the time of each advance of the mark, end_ns: the differences of
    neighbours are the lengths of the maximal no-progress intervals.
    """
    toward = np.concatenate(([start_size], size)) * direction
    advanced = np.flatnonzero(np.diff(np.maximum.accumulate(toward)) > 0)
    return np.concatenate(([start_ns], time_ns[advanced], [end_ns]))


class Progress(Analysis):
    """One row per episode.

    A new target that equals the balloon's size asks for nothing and has no direction: it ends the
    episode before it and begins none. What moves after a target is reached belongs to the totals.
    """

    name = "episodes"
    requires = ("target", "fill", "leak")

    def run(self, trace: Trace) -> Result:
        """Episodes in order of time; seconds since attach, balloon pages."""
        curve = size_curve(trace)
        if curve is None:
            return Result(self.name, missing=["the balloon's size at the start"])
        targets = trace.events("target").sort_values("start_ns", kind="stable")
        starts = targets["start_ns"].tolist()
        rows, spans = [], []
        for place, asked in enumerate(targets["asked"].tolist()):
            following = starts[place + 1] if place + 1 < len(starts) else None
            if asked != UNKNOWN_PAGES:
                row = _episode(trace, curve, starts[place], following, asked)
                rows += [row] if row else []
        for number, row in enumerate(rows, start=1):
            spans += [{"episode": number, **span} for span in row["no_progress"]]
        return Result(
            self.name,
            tables={self.name: rows},
            intervals={"no_progress": spans},
            notes=_notes(trace, curve),
        )


def _notes(trace: Trace, curve: SizeCurve) -> list[str]:
    """What makes the episodes less than exact."""
    notes = []
    if not curve.exact:
        notes.append("the balloon moved while probes attached: its size is known to about a chunk")
    if (trace.events("target")["asked"] == UNKNOWN_PAGES).any():
        notes.append("targets whose value could not be seen begin no episode")
    for kind in ("fill", "leak"):
        if trace.unknown_pages(kind):
            notes.append(f"the size misses {kind} calls whose pages could not be seen")
    return notes


def _episode(
    trace: Trace, curve: SizeCurve, start_ns: int, next_ns: int | None, target: int
) -> dict[str, Any] | None:
    """The episode of one target event; None if it asked for nothing. next_ns: the next target."""
    first = curve.steps_until(start_ns)
    start_size = curve.size_after(first)
    if target == start_size:
        return None
    direction = 1 if target > start_size else -1
    last = curve.steps_until(next_ns) if next_ns is not None else len(curve.time_ns)
    there = np.flatnonzero((curve.size[first:last] - target) * direction >= 0)
    if len(there):
        last = first + int(there[0]) + 1
        outcome, end_ns = "reached", int(curve.time_ns[last - 1])
    elif next_ns is not None:
        outcome, end_ns = "superseded", next_ns
    else:
        outcome, end_ns = "unfinished", max(trace.end_ns, start_ns)
    steps = slice(first, last)
    edges = progress_edges(
        curve.time_ns[steps], curve.size[steps], start_size, start_ns, end_ns, direction
    )
    return {
        "start_s": trace.seconds(start_ns),
        "end_s": trace.seconds(end_ns),
        "direction": "inflate" if direction > 0 else "deflate",
        "target_pages": target,
        "start_pages": start_size,
        "end_pages": curve.size_after(last),
        "asked_pages": abs(target - start_size),
        "outcome": outcome,
        **_moved(curve, steps, abs(target - start_size), direction),
        **_no_progress(trace, edges),
    }


def _moved(curve: SizeCurve, steps: slice, asked: int, direction: int) -> dict[str, Any]:
    """What the episode's steps moved, in pages."""
    change = curve.change[steps]
    inflated, deflated = int(change[change > 0].sum()), -int(change[change < 0].sum())
    return {
        "inflated_pages": inflated,
        "deflated_pages": deflated,
        "reclaimed_pages": -int(change[curve.reclaim[steps]].sum()),
        "amplification": (inflated if direction > 0 else deflated) / asked,
        "churn_ratio": churn_ratio(inflated, deflated),
    }


def _no_progress(trace: Trace, edges: Ints) -> dict[str, Any]:
    """The longest span between two edges, and those worth listing, in seconds since attach."""
    lengths = np.diff(edges)
    listed = np.flatnonzero(lengths >= LISTED_SPAN_S * 1e9)
    return {
        "longest_no_progress_s": int(lengths.max()) / 1e9,
        "no_progress": [
            {"start_s": trace.seconds(edges[i]), "end_s": trace.seconds(edges[i + 1])}
            for i in listed.tolist()
        ],
    }
