# SPDX-License-Identifier: Apache-2.0
"""Episodes: how the balloon got from each target to the next (metrics.md: episode, progress)."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import zip_longest
from typing import Any

import numpy as np

from balloontrace.analysis.base import Analysis, Result
from balloontrace.analysis.cost import SpanCost
from balloontrace.analysis.gaps import driver_gaps
from balloontrace.analysis.phases import gib_per_second
from balloontrace.analysis.sizes import SizeCurve, size_curve
from balloontrace.analysis.totals import churn_ratio
from balloontrace.analysis.trace import Ints, Trace
from balloontrace.events import UNKNOWN_PAGES

LISTED_SPAN_S = 1.0
"""Shortest no-progress span that is listed. A chunk of 256 pages takes milliseconds and the
driver's sleep when it finds no memory 0.2 s: five such sleeps in a row are not the ordinary pace.
The longest span is exact whatever its length."""


PUFF_NS = 200_000_000
"""What the driver sleeps when it gets no page (fill_balloon, drivers/virtio/virtio_balloon.c). The
worker's shorter sleeps are those of reclaim."""

_ANEW = "began when the driver came and found the target that was set before"


def progress_edges(
    time_ns: Ints, size: Ints, start_size: int, start_ns: int, end_ns: int, direction: int
) -> Ints:
    """The moments between which the high-water mark of the balloon size stood still.

    time_ns, size: the steps within the episode, in order of time; direction: 1 inflate, -1
    deflate. Returns start_ns, the time of each advance of the mark, end_ns: the differences of
    neighbours are the lengths of the maximal no-progress intervals.
    """
    further = np.maximum if direction > 0 else np.minimum
    mark = further.accumulate(size)
    further(mark, start_size, out=mark)
    advanced = np.flatnonzero(mark != np.concatenate(([start_size], mark[:-1])))
    return np.concatenate(([start_ns], time_ns[advanced], [end_ns]))


@dataclass(frozen=True)
class Goal:
    """From `time_ns` on, the balloon is to have `target` pages.

    target: None if that could not be seen, or no driver is there to do it; by: `target`, the host
    set another one, or `driver`, the driver left, or came and found the target that was set before.
    """

    time_ns: int
    target: int | None
    by: str


class Progress(Analysis):
    """One row per episode.

    A new target that equals the balloon's size asks for nothing and has no direction: it ends the
    episode before it and begins none. What moves after a target is reached is in periods.py. What
    the driver gives back as it leaves belongs to the totals: its leaving ends an episode.
    """

    name = "episodes"
    requires = ("target", "fill", "leak")
    optional = ("sleep",)

    def run(self, trace: Trace) -> Result:
        """Episodes in order of time; seconds since attach, balloon pages."""
        curve = size_curve(trace)
        if curve is None:
            return Result(self.name, missing=["the balloon's size at the start"])
        goals, cost, puffs = goals_of(trace, curve), SpanCost(trace), puffs_of(trace)
        rows, spans = [], []
        for goal, following in zip_longest(goals, goals[1:]):
            row = _episode(trace, curve, cost, goal, following)
            rows += [row | _slept(trace, puffs, row)] if row else []
        for number, row in enumerate(rows, start=1):
            spans += [{"episode": number, **span} for span in row["no_progress"]]
        return Result(
            self.name,
            tables={self.name: rows},
            intervals={"no_progress": spans},
            notes=_notes(trace, curve, rows),
        )


def goals_of(trace: Trace, curve: SizeCurve) -> list[Goal]:
    """What the balloon was to do, in order of time.

    A driver that comes is told the host's target, but that is no event if it is the one that was
    read last. Then the target begins anew, if the balloon moved before the next goal.
    """
    targets = trace.events("target").sort_values("start_ns", kind="stable")
    asked = [None if pages == UNKNOWN_PAGES else pages for pages in targets["asked"].tolist()]
    goals = [
        Goal(start, pages, "target")
        for start, pages in zip(targets["start_ns"].tolist(), asked, strict=True)
    ]
    left, came = _driver_moments(trace)
    if not left and not came:
        return goals
    goals += [Goal(time_ns, None, "driver") for time_ns in (*left, *came)]
    goals.sort(key=lambda goal: goal.time_ns)
    kept: list[Goal] = []
    target = None
    for goal, following in zip_longest(goals, goals[1:]):
        if goal.by == "target":
            target = goal.target
            kept.append(goal)
        elif goal.time_ns not in came:
            kept.append(goal)
        elif _moves_before(curve, goal, following):
            kept.append(Goal(goal.time_ns, target, "driver"))
    return kept


def _driver_moments(trace: Trace) -> tuple[set[int], set[int]]:
    """When the driver left, and when it came."""
    gaps, bound = driver_gaps(trace), trace.events("bind")
    left = {gap.start_ns for gap in gaps if not gap.absent}
    came = {gap.end_ns for gap in gaps if not gap.open} | set(
        bound["start_ns"][bound["done"] != 0].tolist()
    )
    for kind in ("remove", "freeze"):
        left |= set(trace.events(kind)["start_ns"].tolist())
    came |= set(trace.events("restore")["start_ns"].tolist())
    return left, came


def _moves_before(curve: SizeCurve, goal: Goal, following: Goal | None) -> bool:
    """Whether the balloon moved between two goals, or since the last one."""
    until = curve.steps_until(following.time_ns) if following else len(curve.time_ns)
    return until > curve.steps_until(goal.time_ns)


def _notes(trace: Trace, curve: SizeCurve, rows: list[dict[str, Any]]) -> list[str]:
    """What makes the episodes less than exact, and which of them the driver began or ended."""
    notes = []
    if not curve.exact:
        notes.append("the balloon moved while probes attached: its size is known to about a chunk")
    if (trace.events("target")["asked"] == UNKNOWN_PAGES).any():
        notes.append("targets whose value could not be seen begin no episode")
    for kind in ("fill", "leak"):
        if trace.unknown_pages(kind):
            notes.append(f"the size misses {kind} calls whose pages could not be seen")
    for key, said in (("ended_by", "superseded: the driver left"), ("begun_by", _ANEW)):
        if numbers := [f"#{n}" for n, row in enumerate(rows, 1) if row[key] == "driver"]:
            notes.append(f"{', '.join(numbers)} {said}")
    return notes


def _episode(
    trace: Trace, curve: SizeCurve, cost: SpanCost, goal: Goal, following: Goal | None
) -> dict[str, Any] | None:
    """The episode of one goal; None if it asked for nothing. following: the next goal."""
    target, start_ns = goal.target, goal.time_ns
    first = curve.steps_until(start_ns)
    start_size = curve.size_after(first)
    if target is None or target == start_size:
        return None
    direction = 1 if target > start_size else -1
    last = curve.steps_until(following.time_ns) if following else len(curve.time_ns)
    sizes = curve.size[first:last]
    there = sizes >= target if direction > 0 else sizes <= target
    if there.any():
        last = first + int(there.argmax()) + 1
        outcome, end_ns = "reached", int(curve.time_ns[last - 1])
    elif following:
        outcome, end_ns = "superseded", following.time_ns
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
        "begun_by": goal.by,
        "ended_by": following.by if following and outcome == "superseded" else None,
        **_moved(curve, steps, abs(target - start_size), direction),
        **_rates(curve, steps, direction, (end_ns - start_ns) / 1e9),
        **_no_progress(trace, edges),
        **cost.between(start_ns, end_ns),
    }


def _moved(curve: SizeCurve, steps: slice, asked: int, direction: int) -> dict[str, Any]:
    """What the episode's steps moved, in pages."""
    change = curve.change[steps]
    inflated, deflated = (abs(int(change.sum(where=way))) for way in (change > 0, change < 0))
    return {
        "inflated_pages": inflated,
        "deflated_pages": deflated,
        "reclaimed_pages": -int(change.sum(where=curve.reclaim[steps])),
        "amplification": (inflated if direction > 0 else deflated) / asked,
        "churn_ratio": churn_ratio(inflated, deflated),
    }


def _rates(curve: SizeCurve, steps: slice, direction: int, time_s: float) -> dict[str, Any]:
    """GiB/s that the episode moved in and out, and that it gained toward its target."""
    change = curve.change[steps]
    return {
        "moved_gib_per_s": gib_per_second(int(np.abs(change).sum()), time_s),
        "net_gib_per_s": gib_per_second(int(change.sum()) * direction, time_s),
    }


def puffs_of(trace: Trace) -> Ints | None:
    """Start and duration in ns of each sleep for want of pages, in order of time; None if not
    recorded."""
    if not trace.recorded("sleep"):
        return None
    sleeps = trace.events("sleep").sort_values("start_ns", kind="stable")
    puffs: Ints = sleeps[["start_ns", "duration_ns"]].to_numpy()
    return puffs[puffs[:, 1] >= PUFF_NS]


def _slept(trace: Trace, puffs: Ints | None, row: dict[str, Any]) -> dict[str, Any]:
    """How often and how long the worker slept in an episode, and when first; None: not recorded,
    or not at all."""
    if puffs is None:
        return dict.fromkeys(("sleeps", "sleep_s", "first_sleep_s"))
    ends_ns = (trace.begin_ns + round(row[edge] * 1e9) for edge in ("start_s", "end_s"))
    mine = puffs[slice(*np.searchsorted(puffs[:, 0], list(ends_ns)))]
    return {
        "sleeps": len(mine),
        "sleep_s": int(mine[:, 1].sum()) / 1e9,
        "first_sleep_s": trace.seconds(mine[0, 0]) if len(mine) else None,
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
