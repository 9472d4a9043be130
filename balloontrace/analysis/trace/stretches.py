# SPDX-License-Identifier: Apache-2.0
"""A recording's moves in stretches: the episodes, and what lies between them (metrics.md: episode,
work after reached, churn ratio)."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import zip_longest

from balloontrace.analysis.trace.balloon_size import SizeCurve
from balloontrace.analysis.trace.goals import Goal, first_reached, goals_of
from balloontrace.analysis.trace.trace import Trace
from balloontrace.events import whole_pages

TOWARD, AFTER, NONE = "target", "after", "none"
"""What a stretch is: on the way to a target; after that was reached; or no target is known, or no
driver is there to follow one."""


@dataclass(frozen=True)
class Stretch:
    """Steps of the balloon's size that belong together. Every step is in one stretch.

    kind: TOWARD, AFTER or NONE; goal: what was to be done, None before the first one was seen;
    following: the goal that ended it or, of one TOWARD a target that was reached, that came next;
    steps: its part of the curve; start_ns, end_ns: CLOCK_MONOTONIC; reached: whether it ended with
    the target's being reached.
    """

    kind: str
    goal: Goal | None
    following: Goal | None
    steps: slice
    start_ns: int
    end_ns: int
    reached: bool = False


def stretches_of(trace: Trace, curve: SizeCurve) -> list[Stretch]:
    """All stretches, in order of time; those without a step too."""
    goals = goals_of(trace, curve)
    first_ns = goals[0].time_ns if goals else trace.end_ns
    until = curve.steps_until(goals[0].time_ns) if goals else len(curve.time_ns)
    before = Stretch(
        NONE, None, goals[0] if goals else None, slice(0, until), trace.begin_ns, first_ns
    )
    stretches = [before]
    for goal, following in zip_longest(goals, goals[1:]):
        if goal is not None:
            stretches += _under(trace, curve, goal, following)
    return stretches


def _under(trace: Trace, curve: SizeCurve, goal: Goal, following: Goal | None) -> list[Stretch]:
    """The stretches of one goal, which lasts until the following one: one, or two if its target was
    reached on the way."""
    start_ns, end_ns = goal.time_ns, max(trace.end_ns, goal.time_ns)
    first, last = curve.steps_until(start_ns), len(curve.time_ns)
    if following:
        last, end_ns = curve.steps_until(following.time_ns), following.time_ns
    whole = slice(first, last)
    if goal.target is None:
        return [Stretch(NONE, goal, following, whole, start_ns, end_ns)]
    size = whole_pages(goal.target, trace.pages_per_page)
    reached, reached_ns = first_reached(curve, goal, size, whole)
    if reached is None:
        return [Stretch(TOWARD, goal, following, whole, start_ns, end_ns)]
    after = Stretch(AFTER, goal, following, slice(reached, last), reached_ns, end_ns)
    if reached == first:
        return [after]
    way = slice(first, reached)
    return [Stretch(TOWARD, goal, following, way, start_ns, reached_ns, reached=True), after]
