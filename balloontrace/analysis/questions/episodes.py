# SPDX-License-Identifier: Apache-2.0
"""Episodes: how the balloon got from each target to the next (metrics.md: episode, progress)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from balloontrace.analysis.base import Question, Result, Section, always
from balloontrace.analysis.fields import Field, Shape, Table, Unit
from balloontrace.analysis.questions.cost import SPAN_COST, SpanCost
from balloontrace.analysis.questions.phases import gib_per_second
from balloontrace.analysis.questions.totals import churn_ratio
from balloontrace.analysis.trace.balloon_size import NO_CALL, SizeCurve, Unseen, size_curve
from balloontrace.analysis.trace.calls import of_worker
from balloontrace.analysis.trace.goals import Goal
from balloontrace.analysis.trace.stretches import AFTER, TOWARD, Stretch, stretches_of
from balloontrace.analysis.trace.trace import MOVES, Ints, Trace, per_trace
from balloontrace.events import UNKNOWN_PAGES, whole_pages
from balloontrace.thresholds import PUFF_NS

LISTED_SPAN_S = 1.0
"""Shortest no-progress span that is listed. A chunk of 256 pages takes milliseconds and the
driver's sleep when it finds no memory 0.2 s: five such sleeps in a row are not the ordinary pace.
The longest span is exact whatever its length."""

SETTLED_NS = 5_000_000_000
"""Without a page moved for so long, a balloon is at rest. So long waits `lab run`, too, before it
calls a balloon settled; the worker's tries are 0.2 s apart."""

MOST_UNSEEN = 5
"""So many doubtful spans are told of one by one."""

_BY = (
    ("ended_by", "driver", "superseded: the driver left"),
    ("begun_by", "driver", "began when the driver came and found the target that was set before"),
    ("begun_by", "window", "was under way when the window began: its numbers are of the part here"),
    ("ended_by", "window", "was under way when the window ended"),
)
"""What a note says of episodes that no change of the target began, or ended."""


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


_SPAN = (
    Field("start_s", Unit.MOMENT),
    Field("end_s", Unit.MOMENT),
    Field("rest_s", Unit.SECONDS, "the longest time in it without a call of the size worker"),
)

EPISODE = (
    Field(
        "kind",
        Unit.TEXT,
        "on the way to a target, or what was done under one after it had been reached",
        words=(TOWARD, AFTER),
        never_null=True,
    ),
    *(Field("start_s", Unit.MOMENT), Field("end_s", Unit.MOMENT)),
    Field("direction", Unit.TEXT, f"null: {AFTER}", words=("inflate", "deflate")),
    Field("target_pages", Unit.PAGES),
    *(Field("start_pages", Unit.PAGES, "in the balloon"), Field("end_pages", Unit.PAGES, "then")),
    Field("asked_pages", Unit.PAGES, "between start and target"),
    Field(
        "outcome",
        Unit.TEXT,
        "settled: at rest short of the target when another one came",
        words=("reached", "settled", "superseded", "unfinished"),
    ),
    Field("left", Unit.NUMBER, "how often the balloon left the target; null: it was not reached"),
    Field(
        "begun_by",
        Unit.TEXT,
        "the host set it, a driver came, or it was under way when the window began; null: the "
        "target was reached",
        words=("target", "driver", "window"),
    ),
    Field(
        "ended_by",
        Unit.TEXT,
        "of a superseded one, or of one that goes on after the window",
        words=("target", "driver", "window"),
    ),
    Field("inflated_pages", Unit.PAGES),
    Field("deflated_pages", Unit.PAGES),
    Field("reclaimed_pages", Unit.PAGES, "of those, by reclaim"),
    Field("gained_pages", Unit.PAGES, "toward the target"),
    Field("unseen_pages", Unit.PAGES, "moved in events that are missing, at least"),
    Field(
        "events_missing",
        Unit.FLAG,
        "then amplification and longest_no_progress_s are lower bounds, or null",
    ),
    Field("amplification", Unit.RATIO, "moved toward the target / gained; null: nothing gained"),
    Field("churn_ratio", Unit.RATIO),
    Field("moved_gib_per_s", Unit.RATE),
    Field("net_gib_per_s", Unit.RATE),
    *SPAN_COST,
    Field("longest_no_progress_s", Unit.SECONDS),
    Field("no_progress", _SPAN, "the spans of a second or more", shape=Shape.ARRAY),
    Field("sleeps", Unit.NUMBER, "of 200 ms, for want of a page"),
    Field("sleep_s", Unit.SECONDS),
    Field("first_sleep_s", Unit.MOMENT),
)


class Progress(Question):
    """One row per episode: on the way to a target, or what was done under one that had been
    reached.

    A new target that equals the balloon's size asks for nothing and has no direction: it ends the
    episode before it and begins none. How far a balloon strayed from a target that it had is in
    periods.py. What the driver gives back as it leaves belongs to the totals: its leaving ends an
    episode.
    """

    section = Section(
        "episodes",
        "Episodes",
        40,
        "from each change of the target until it is reached or changes; what was done after it",
        tables=(Table("episodes", EPISODE, "episodes"),),
        first_screen=always,
    )
    requires = ("target", "fill", "leak")
    optional = ("sleep",)

    def run(self, trace: Trace) -> Result:
        """Episodes in order of time; seconds since attach, balloon pages."""
        curve = size_curve(trace)
        if curve is None:
            return Result(self.name, missing=["the balloon's size at the start"])
        cost, puffs = SpanCost(trace), puffs_of(trace)
        rows, spans = [], []
        for stretch in stretches_of(trace, curve):
            row = _row(trace, curve, cost, stretch)
            if row and (stretch.kind == TOWARD or _happened(trace, curve, puffs, stretch)):
                rows.append(row | _slept(trace, puffs, row))
        for number, row in enumerate(rows, start=1):
            spans += [{"episode": number, **span} for span in row["no_progress"]]
        return Result(
            self.name,
            tables={self.name: rows},
            intervals={"no_progress": spans},
            notes=_notes(trace, curve, rows),
        )


def _notes(trace: Trace, curve: SizeCurve, rows: list[dict[str, Any]]) -> list[str]:
    """What makes the episodes less than exact, and which of them the driver began or ended."""
    notes = []
    if not curve.exact:
        notes.append("the balloon moved while probes attached: its size is known to about a chunk")
    if (trace.events("target")["asked"] == UNKNOWN_PAGES).any():
        notes.append("targets whose value could not be seen begin no episode")
    notes += [_said_unseen(trace, one) for one in curve.unseen[:MOST_UNSEEN]]
    if (more := len(curve.unseen) - MOST_UNSEEN) > 0:
        notes.append(f"and so {more:,} more times")
    for kind in MOVES:
        if trace.unknown_pages(kind):
            notes.append(f"the size misses {kind} calls whose pages could not be seen")
    for key, by, said in _BY:
        if numbers := [f"#{n}" for n, row in enumerate(rows, 1) if row[key] == by]:
            notes.append(f"{', '.join(numbers)} {said}")
    return notes


def _said_unseen(trace: Trace, one: Unseen) -> str:
    """Between which moments the size is doubtful, and why that is known."""
    start_s, end_s = trace.seconds(one.start_ns), trace.seconds(one.end_ns)
    span = f"events are missing between {start_s:,.1f} and {end_s:,.1f} s"
    if one.pages is None:
        return f"{span}: the size is not sure there"
    way = "more" if one.pages > 0 else "less"
    return f"{span}: the balloon had {abs(one.pages):,} pages {way} than they tell of"


def _happened(trace: Trace, curve: SizeCurve, puffs: Ints | None, stretch: Stretch) -> bool:
    """Whether the balloon moved, or the driver slept for want of pages."""
    slept = slept_between(puffs, stretch.start_ns, stretch.end_ns)["sleeps"]
    return bool(curve.change[stretch.steps].any() or slept)


def _row(trace: Trace, curve: SizeCurve, cost: SpanCost, stretch: Stretch) -> dict[str, Any] | None:
    """The episode of a stretch; None if no target is known there."""
    goal = stretch.goal
    if goal is None or goal.target is None:
        return None
    toward = stretch.kind == TOWARD
    start_size, end_size = (
        curve.size_after(steps) for steps in (stretch.steps.start, stretch.steps.stop)
    )
    aim = whole_pages(goal.target, trace.pages_per_page)
    direction = (1 if aim > start_size else -1) if toward else 0
    outcome = _outcome(curve, stretch, aim)
    time_s = (stretch.end_ns - stretch.start_ns) / 1e9
    return {
        "kind": stretch.kind,
        "start_s": trace.seconds(stretch.start_ns),
        "end_s": trace.seconds(stretch.end_ns),
        "direction": {1: "inflate", -1: "deflate"}.get(direction),
        "target_pages": goal.target,
        "start_pages": start_size,
        "end_pages": end_size,
        "asked_pages": abs(aim - start_size) if toward else 0,
        "outcome": outcome,
        "left": _left(curve, stretch, aim),
        "begun_by": goal.by if toward or goal.by == "window" else None,
        "ended_by": _ended_by(trace, stretch.following, outcome),
        **_moved(curve, stretch.steps, (end_size - start_size) * direction, direction),
        **_rates(curve, stretch.steps, (end_size - start_size) * direction, time_s),
        **_standstills(trace, curve, stretch, direction),
        "events_missing": any(
            one.start_ns < stretch.end_ns and one.end_ns > stretch.start_ns for one in curve.unseen
        ),
        **cost.between(stretch.start_ns, stretch.end_ns),
    }


def _outcome(curve: SizeCurve, stretch: Stretch, target: int) -> str:
    """How a stretch ended (metrics.md: outcome)."""
    there = curve.size_after(stretch.steps.stop) == target
    if stretch.reached or (stretch.kind == AFTER and there):
        return "reached"
    if stretch.following is None:
        return "unfinished"
    if stretch.following.by == "target" and _rest_ns(curve, stretch) >= SETTLED_NS:
        return "settled"
    return "superseded"


def _rest_ns(curve: SizeCurve, stretch: Stretch) -> int:
    """For how long nothing had moved when a stretch ended."""
    moves = np.flatnonzero(curve.change[stretch.steps]) + stretch.steps.start
    last_ns = int(curve.time_ns[moves[-1]]) if len(moves) else stretch.start_ns
    return stretch.end_ns - last_ns


def _left(curve: SizeCurve, stretch: Stretch, target: int) -> int | None:
    """How often the balloon left the target after it had been reached; None: it was not."""
    if stretch.kind == AFTER:
        return times_left(curve.size[stretch.steps], target)
    if not stretch.reached:
        return None
    following = stretch.following
    until = curve.steps_until(following.time_ns) if following else len(curve.time_ns)
    return times_left(curve.size[stretch.steps.stop : until], target)


def _standstills(
    trace: Trace, curve: SizeCurve, stretch: Stretch, direction: int
) -> dict[str, Any]:
    """How long nothing was gained, of a stretch on the way to its target; of another, None."""
    goal, steps = stretch.goal, stretch.steps
    if not direction or goal is None:
        return {"longest_no_progress_s": None, "no_progress": []}
    mark = curve.size_after(steps.start) if goal.furthest is None else goal.furthest
    span = (stretch.start_ns, stretch.end_ns)
    edges = progress_edges(curve.time_ns[steps], curve.size[steps], mark, *span, direction)
    return _no_progress(trace, watched(edges, curve.unseen), worker_rests(trace))


def _ended_by(trace: Trace, following: Goal | None, outcome: str) -> str | None:
    """What ended an episode before its target was reached; None: nothing, or the recording did."""
    if outcome == "superseded" and following:
        return following.by
    return "window" if outcome == "unfinished" and trace.until_ns < trace.entire.end_ns else None


def times_left(sizes: Ints, target: int) -> int:
    """How often the balloon left a target that it had; sizes: after each step since it had it."""
    at_target = np.concatenate(([True], sizes == target))
    return int((at_target[:-1] & ~at_target[1:]).sum())


def _moved(curve: SizeCurve, steps: slice, gained: int, direction: int) -> dict[str, Any]:
    """What the episode's calls moved, in pages, and what the balloon gained toward its target;
    direction: 1 inflate, -1 deflate, 0 neither.

    unseen_pages: by how much the size was set right meanwhile: so many pages at least moved in
    calls that are not here.
    """
    unseen = int(np.abs(curve.change[steps][curve.cause[steps] == NO_CALL]).sum())
    pages = curve.moved(steps)
    inflated, deflated = pages["inflated_pages"], pages["deflated_pages"]
    moved = inflated if direction > 0 else deflated
    return {
        **pages,
        "gained_pages": gained if direction else None,
        "unseen_pages": unseen,
        "amplification": amplification(moved + unseen, gained) if direction else None,
        "churn_ratio": None if unseen else churn_ratio([(inflated, deflated)]),
    }


def amplification(moved: int, gained: int) -> float | None:
    """Pages moved toward the target for each that was gained (metrics.md); None: none was gained,
    and it is beyond all bounds."""
    return moved / gained if gained > 0 else None


def _rates(curve: SizeCurve, steps: slice, gained: int, time_s: float) -> dict[str, Any]:
    """GiB/s that the episode moved in and out, and that it gained toward its target."""
    change = np.abs(curve.change[steps])
    return {
        "moved_gib_per_s": gib_per_second(int(change.sum()), time_s),
        "net_gib_per_s": gib_per_second(gained, time_s),
    }


def puffs_of(trace: Trace) -> Ints | None:
    """Start and duration in ns of each sleep for want of pages, in order of time; None if not
    recorded."""
    if not trace.recorded("sleep"):
        return None
    sleeps = trace.events("sleep").sort_values("start_ns", kind="stable")
    puffs: Ints = sleeps[["start_ns", "duration_ns"]].to_numpy()
    return puffs[puffs[:, 1] >= PUFF_NS]


def slept_between(puffs: Ints | None, start_ns: int, end_ns: int) -> dict[str, Any]:
    """How often and how long the driver slept for want of pages; None: not recorded."""
    if puffs is None:
        return {"sleeps": None, "sleep_s": None}
    mine = puffs[slice(*np.searchsorted(puffs[:, 0], [start_ns, end_ns]))]
    return {"sleeps": len(mine), "sleep_s": int(mine[:, 1].sum()) / 1e9}


def _slept(trace: Trace, puffs: Ints | None, row: dict[str, Any]) -> dict[str, Any]:
    """How often and how long the worker slept in an episode, and when first; None: not recorded,
    or not at all."""
    if puffs is None:
        return {**slept_between(puffs, 0, 0), "first_sleep_s": None}
    begin_ns = trace.entire.begin_ns
    ends_ns = (begin_ns + round(row[edge] * 1e9) for edge in ("start_s", "end_s"))
    start_ns, end_ns = ends_ns
    slept = slept_between(puffs, start_ns, end_ns)
    first = puffs[np.searchsorted(puffs[:, 0], start_ns), 0] if slept["sleeps"] else None
    return {**slept, "first_sleep_s": None if first is None else trace.seconds(first)}


def watched(edges: Ints, unseen: Sequence[Unseen]) -> Ints:
    """The intervals between `edges`, less what of them is in `unseen`, where there may have been
    progress: shape (intervals, 2)."""
    doubtful = np.array([(one.start_ns, one.end_ns) for one in unseen], dtype=np.int64)
    if not len(doubtful):
        return np.column_stack((edges[:-1], edges[1:]))
    inner = doubtful[(doubtful > edges[0]) & (doubtful < edges[-1])]
    cut = np.union1d(edges, inner)
    starts, ends = cut[:-1], cut[1:]
    place = np.searchsorted(doubtful[:, 0], starts, side="right") - 1
    seen = (place < 0) | (doubtful[place, 1] <= starts)
    return np.column_stack((starts[seen], ends[seen]))


@per_trace
def worker_rests(trace: Trace) -> Ints:
    """The times of LISTED_SPAN_S and more in which the size worker was in no fill and no leak, in
    order: shape (rests, 2). Those of the recording: a call that begins in a window and ends after
    it is not in that."""
    if trace.entire is not trace:
        return worker_rests(trace.entire)
    fills, leaks = trace.calls("fill"), trace.calls("leak")
    mine = of_worker(trace, "leak")
    starts, ends = (
        np.sort(np.concatenate((fills[name], leaks[name][mine]))) for name in ("start_ns", "end_ns")
    )
    rests = np.column_stack((np.append(trace.begin_ns, ends), np.append(starts, trace.end_ns)))
    long: Ints = rests[rests[:, 1] - rests[:, 0] >= LISTED_SPAN_S * 1e9]
    return long


def _rest_s(rests: Ints, start_ns: int, end_ns: int) -> float:
    """The longest of `rests` within a time, in seconds."""
    mine = rests[rests[:, 1].searchsorted(start_ns) : rests[:, 0].searchsorted(end_ns)]
    return int(np.diff(np.clip(mine, start_ns, end_ns)).max(initial=0)) / 1e9


def _no_progress(trace: Trace, intervals: Ints, rests: Ints) -> dict[str, Any]:
    """The longest of these intervals, and those worth listing, in seconds since attach; the longest
    is None if nothing is known of any. rest_s: for how long of it the size worker made no call."""
    lengths = intervals[:, 1] - intervals[:, 0]
    listed = intervals[lengths >= LISTED_SPAN_S * 1e9]
    return {
        "longest_no_progress_s": int(lengths.max()) / 1e9 if len(lengths) else None,
        "no_progress": [
            {
                "start_s": trace.seconds(start_ns),
                "end_s": trace.seconds(end_ns),
                "rest_s": _rest_s(rests, start_ns, end_ns),
            }
            for start_ns, end_ns in listed.tolist()
        ],
    }
