# SPDX-License-Identifier: Apache-2.0
"""What became of the balloon under each target, after that had been reached (metrics.md:
period)."""

from __future__ import annotations

from typing import Any

import numpy as np

from balloontrace.analysis.base import Question, Result, Section, always
from balloontrace.analysis.fields import Field, Table, Unit
from balloontrace.analysis.questions.episodes import puffs_of, slept_between, times_left
from balloontrace.analysis.trace.balloon_size import FILL, HOST, SizeCurve, size_curve
from balloontrace.analysis.trace.goals import goals_of
from balloontrace.analysis.trace.stretches import AFTER, Stretch, stretches_of
from balloontrace.analysis.trace.trace import Ints, Trace
from balloontrace.events import whole_pages

_REACHED_BEFORE = "a target that was reached before the window began counts from there on"


class Periods(Question):
    """A target's period lasts until the next target, or until the driver leaves.

    An episode ends where its target is first reached; what moves after that is here.
    """

    section = Section(
        "periods",
        "After the target was reached",
        50,
        "size and target at the end; what happened under targets that had been reached",
        (
            Field("size_pages", Unit.PAGES, "in the balloon at the end"),
            Field("target_pages", Unit.PAGES, "at the end; null: no target was read"),
            Field("begin_size_pages", Unit.PAGES, "at a window's begin", may_lack=True),
            Field(
                "begin_target_pages",
                Unit.PAGES,
                "at a window's begin; null: none was read before",
                may_lack=True,
            ),
            Field("targets_whole", Unit.FLAG, "null: a change of the target may be missing"),
        ),
        (
            Table(
                "after",
                (
                    Field("reached_s", Unit.MOMENT, "when it was reached first", "reached s"),
                    Field("end_s", Unit.MOMENT, "the next target, or the driver left", "until s"),
                    Field("target_pages", Unit.PAGES, title="target"),
                    Field("left", Unit.NUMBER, "how often the balloon left that size", "left it"),
                    Field(
                        "turns",
                        Unit.NUMBER,
                        "how often the size worker went from taking in to taking out, or back",
                    ),
                    Field("inflated_pages", Unit.PAGES, title="in"),
                    Field("deflated_pages", Unit.PAGES, title="out"),
                    Field("reclaimed_pages", Unit.PAGES, "of those, by reclaim", "by re-\nclaim"),
                    Field("least_pages", Unit.PAGES, "in the balloon", "least"),
                    Field("most_pages", Unit.PAGES, "in the balloon", "most"),
                    Field("sleeps", Unit.NUMBER, "of 200 ms, for want of a page", "sleeps"),
                    Field("sleep_s", Unit.SECONDS),
                    Field("end_pages", Unit.PAGES, "in the balloon at end_s", "at the\nend"),
                ),
                "targets",
                span=("reached_s", "end_s"),
            ),
        ),
        first_screen=always,
    )
    requires = ("target", "fill", "leak")
    optional = ("sleep",)

    def run(self, trace: Trace) -> Result:
        """Scalars: `size_pages` and `target_pages` at the end, and as `begin_*` at the beginning of
        a window; `targets_whole`, True, or None if a change of the target may be missing. Table
        `after`: the periods in which the balloon moved, or the driver slept for want of pages,
        after the target was reached; turns: how often the size worker took pages out and then in,
        or in and then out."""
        curve = size_curve(trace)
        if curve is None:
            return Result(self.name, missing=["the balloon's size at the start"])
        goals, puffs = goals_of(trace, curve), puffs_of(trace)
        stretches = stretches_of(trace, curve)
        rows = [row for stretch in stretches if (row := _period(trace, curve, puffs, stretch))]
        scalars = {
            "size_pages": curve.size_after(len(curve.time_ns)),
            "target_pages": goals[-1].target if goals else None,
            "targets_whole": None if trace.doubt("target") else True,
        }
        if trace.is_part:
            scalars["begin_size_pages"] = curve.base
            before = (goal.target for goal in goals[:1] if goal.by == "window")
            scalars["begin_target_pages"] = next(before, None)
        begins_s = trace.seconds(trace.begin_ns)
        reached = any(goal.reached for goal in goals[:1]) and rows[:1]
        notes = [_REACHED_BEFORE] if reached and rows[0]["reached_s"] == begins_s else []
        return Result(self.name, scalars, {"after": rows}, notes=notes)


def _period(
    trace: Trace, curve: SizeCurve, puffs: Ints | None, stretch: Stretch
) -> dict[str, Any] | None:
    """What happened after the target of a stretch had been reached; None if nothing did."""
    if stretch.kind != AFTER or stretch.goal is None or stretch.goal.target is None:
        return None
    steps, target = stretch.steps, stretch.goal.target
    reached = whole_pages(target, trace.pages_per_page)
    sizes, slept = curve.size[steps], slept_between(puffs, stretch.start_ns, stretch.end_ns)
    if not curve.change[steps].any() and not slept["sleeps"]:
        return None
    return {
        "target_pages": target,
        "reached_s": trace.seconds(stretch.start_ns),
        "end_s": trace.seconds(stretch.end_ns),
        "left": times_left(sizes, reached),
        "turns": _turns(curve, steps),
        **curve.moved(steps),
        "least_pages": int(sizes.min(initial=reached)),
        "most_pages": int(sizes.max(initial=reached)),
        "end_pages": curve.size_after(steps.stop),
        **slept,
    }


def _turns(curve: SizeCurve, steps: slice) -> int:
    """How often the size worker took pages out that it then took in, or the other way round."""
    mine = np.isin(curve.cause[steps], (FILL, HOST))
    ways = np.sign(curve.change[steps][mine])
    ways = ways[ways != 0]
    return int((ways[1:] != ways[:-1]).sum())
