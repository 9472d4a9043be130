# SPDX-License-Identifier: Apache-2.0
"""What the balloon was to do, and from when on: the host's targets, and the driver's comings and
goings between them."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise, zip_longest

from balloontrace.analysis.trace.balloon_size import SizeCurve, size_curve
from balloontrace.analysis.trace.driver_life import arrivals, departures
from balloontrace.analysis.trace.trace import Trace, per_trace, section
from balloontrace.events import UNKNOWN_PAGES, whole_pages


@dataclass(frozen=True)
class Goal:
    """From `time_ns` on, the balloon is to have `target` pages.

    target: None if that could not be seen, or no driver is there to do it; by: `target`, the host
    set another one, or `driver`, the driver left, or came and found the target that was set before;
    or `window`, it was under way when the window began. Of the latter: whether it had been reached
    by then, and the furthest size that the balloon had had on the way, in pages.
    """

    time_ns: int
    target: int | None
    by: str
    reached: bool = False
    furthest: int | None = None


def goals_of(trace: Trace, curve: SizeCurve) -> list[Goal]:
    """What the balloon was to do, in order of time.

    A driver that comes is told the host's target, but that is no event if it is the one that was
    read last. Then the target begins anew, if the balloon moved before the next goal.
    """
    if trace.entire is not trace:
        return _goals_of_window(trace)
    goals = _set_by_host(trace)
    read = {goal.time_ns for goal in goals}
    came = {*arrivals(trace)} - read
    left = departures(trace)
    if not left and not came:
        return goals
    moments = [Goal(time_ns, None, "driver") for time_ns in (*left, *came)]
    goals = sorted([*goals, *moments], key=lambda goal: goal.time_ns)
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


@per_trace
def _set_by_host(trace: Trace) -> list[Goal]:
    """The targets that were read, each once: `watch` is told again in each segment of the one that
    is in force (tracing.py: forget_target)."""
    targets = trace.calls("target")
    goals = [
        Goal(start, None if pages == UNKNOWN_PAGES else pages, "target")
        for start, pages in zip(
            targets["start_ns"].tolist(), targets["asked"].tolist(), strict=True
        )
    ]
    goals.sort(key=lambda goal: goal.time_ns)
    if not section(trace.header, "watch"):
        return goals
    new = [
        goal for last, goal in pairwise(goals) if goal.target is None or goal.target != last.target
    ]
    return goals[:1] + new


def _goals_of_window(trace: Trace) -> list[Goal]:
    """The goals of the recording that are in a window, after what was to be done as it began."""
    curve = size_curve(trace.entire)
    goals = goals_of(trace.entire, curve) if curve else []
    before = [goal for goal in goals if goal.time_ns <= trace.after_ns]
    inside = [goal for goal in goals if trace.contains(goal.time_ns)]
    return [_under_way(trace, curve, before[-1]), *inside] if curve and before else inside


def _under_way(trace: Trace, curve: SizeCurve, goal: Goal) -> Goal:
    """A goal that was set before a window, as it stood when that began. curve: of the recording."""
    target, now_ns = goal.target, trace.begin_ns
    if target is None:
        return Goal(now_ns, None, "window")
    steps = slice(curve.steps_until(goal.time_ns), curve.steps_until(trace.after_ns))
    size = whole_pages(target, trace.pages_per_page)
    reached, _ = first_reached(curve, goal, size, steps)
    sizes = [curve.size_after(steps.start), *curve.size[steps].tolist()]
    furthest = max(sizes) if size > sizes[0] else min(sizes)
    return Goal(now_ns, target, "window", reached is not None, furthest)


def first_reached(
    curve: SizeCurve, goal: Goal, target: int, steps: slice
) -> tuple[int | None, int]:
    """How many steps had been made when the target was first reached, and when that was; None if it
    was not. target: the goal's, in whole pages of the guest."""
    before = curve.size_after(steps.start)
    if goal.reached or before == target:
        return steps.start, goal.time_ns
    sizes = curve.size[steps]
    there = sizes >= target if target > before else sizes <= target
    if not there.any():
        return None, 0
    step = steps.start + int(there.argmax())
    return step + 1, int(curve.time_ns[step])


def _moves_before(curve: SizeCurve, goal: Goal, following: Goal | None) -> bool:
    """Whether the balloon moved between two goals, or since the last one."""
    until = curve.steps_until(following.time_ns) if following else len(curve.time_ns)
    return until > curve.steps_until(goal.time_ns)
