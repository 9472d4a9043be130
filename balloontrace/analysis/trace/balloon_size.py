# SPDX-License-Identifier: Apache-2.0
"""The balloon's size over time, from its size at attach and what each call moved."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from balloontrace.analysis.trace.anchors import anchors_of
from balloontrace.analysis.trace.causes import CAUSE_NAMES, cause_codes
from balloontrace.analysis.trace.counters import moved_of
from balloontrace.analysis.trace.gaps import DEFLATED, INFLATED, driver_gaps
from balloontrace.analysis.trace.trace import Ints, Trace, known_pages, per_trace, section
from balloontrace.events import UNKNOWN_PAGES

Codes = npt.NDArray[np.int8]

Moves = tuple[Ints, Ints, Codes]
"""End, change in pages, and cause, of each fill and leak by time of end."""

FILL, NO_CALL = -1, -2
"""Instead of a cause: the step is a fill's, or no call made it."""

HOST, SHRINKER = (CAUSE_NAMES.index(cause) for cause in ("host", "shrinker"))

_FOREVER = 2**63 - 1


@dataclass(frozen=True)
class Unseen:
    """Pages moved that no event tells of: from `start_ns`, when the size was last known, until
    `end_ns`, when it was known again. pages: by how much it differed then; None: it was not."""

    start_ns: int
    end_ns: int
    pages: int | None


@dataclass(frozen=True)
class SizeCurve:
    """A step function: `size[i]` balloon pages from `time_ns[i]` on, `base` before the first.

    One step for each fill and leak, at its end, in order of time; one for each gap in which no
    driver was traced, just after that was noticed: to the size that was found after it; and where
    events were lost, one to the size that was next known (anchors.py). change: pages of that step,
    out is negative; cause: of a leak its index in CAUSE_NAMES, else FILL or NO_CALL; exact: whether
    `base`, and what was found after each gap, is known to the page.
    """

    base: int
    exact: bool
    time_ns: Ints
    change: Ints
    cause: Codes
    size: Ints
    unseen: tuple[Unseen, ...] = ()

    def steps_until(self, time_ns: int) -> int:
        """How many steps were made up to and including this moment."""
        return int(np.searchsorted(self.time_ns, time_ns, side="right"))

    def size_after(self, steps: int) -> int:
        """Pages in the balloon after that many steps."""
        return int(self.size[steps - 1]) if steps else self.base

    def between(self, after_ns: int, until_ns: int) -> SizeCurve:
        """The steps after one moment and up to another; `base` is the size at the first."""
        first, last = self.steps_until(after_ns), self.steps_until(until_ns)
        steps = slice(first, last)
        return replace(
            self,
            base=self.size_after(first),
            time_ns=self.time_ns[steps],
            change=self.change[steps],
            cause=self.cause[steps],
            size=self.size[steps],
            unseen=tuple(u for u in self.unseen if u.start_ns < until_ns and u.end_ns > after_ns),
        )

    def moved(self, steps: slice) -> dict[str, int]:
        """Pages that calls moved in these steps: `inflated_pages`, `deflated_pages`, and of the
        latter `reclaimed_pages`."""
        change, cause = self.change[steps], self.cause[steps]
        traced = cause != NO_CALL
        return {
            "inflated_pages": int(change.sum(where=traced & (change > 0))),
            "deflated_pages": -int(change.sum(where=traced & (change < 0))),
            "reclaimed_pages": -int(change.sum(where=cause == SHRINKER)),
        }

    def stepped(self, steps: Sequence[tuple[int, int]]) -> SizeCurve:
        """The same with steps that no call made; steps: (moment, pages) in order of time, each
        after all steps of its moment."""
        if not steps:
            return self
        times, pages = (np.array(column, dtype=np.int64) for column in zip(*steps, strict=True))
        places = np.searchsorted(self.time_ns, times, side="right")
        change = np.insert(self.change, places, pages)
        return replace(
            self,
            time_ns=np.insert(self.time_ns, places, times),
            change=change,
            cause=np.insert(self.cause, places, NO_CALL),
            size=self.base + np.cumsum(change),
        )


def known_curve(trace: Trace) -> SizeCurve | None:
    """The curve of a trace that recorded what moves pages, or the counters of what was moved; None
    of any other, or if no size is known at any time."""
    counted = trace.counter_interval_s is not None
    moves = trace.recorded("fill") and trace.recorded("leak")
    return size_curve(trace) if moves or counted else None


@per_trace
def size_curve(trace: Trace) -> SizeCurve | None:
    """The curve of a trace that recorded `fill` and `leak`; None if no size is known at any time.

    The size at the start, and after each gap in which no driver was traced, is inflate - deflate of
    /proc/vmstat right after attach. If the balloon moved while the probes were attached, that
    counts some calls twice; then, or without these counters, the first target event that saw the
    balloon's size settles it. A window's curve is a part of the recording's.
    """
    if trace.entire is not trace:
        curve = size_curve(trace.entire)
        return curve and curve.between(trace.after_ns, trace.until_ns)
    time_ns, change, cause = moves = _moves(trace)
    gaps = driver_gaps(trace)
    ends_ns = [gap.noticed_ns for gap in gaps] + [_FOREVER]
    attach = section(trace.header, "vmstat_attach")
    base, exact = _base(trace, moves, attach, (-1, ends_ns[0]))
    if gaps and gaps[0].absent:
        # Without a driver there is no balloon; one that cannot be traced may have filled it.
        there = gaps[0].seen_ns is not None
        base = (_counted_size(trace, section(gaps[0].left, "after")) or 0) if there else 0
        exact = True
    if base is None:
        return None
    curve = SizeCurve(base, exact, time_ns, change, cause, base + np.cumsum(change))
    steps: list[tuple[int, int]] = []
    for gap, end_ns in zip(gaps, ends_ns[1:], strict=True):
        found, known = _base(trace, moves, gap.found, (gap.noticed_ns, end_ns))
        if gap.untraced_ns:
            steps += _untraced_steps(trace, curve, gap.untraced_ns, steps)
        if found is None or (gap.open and not gap.untraced_ns):
            continue
        exact = exact and known
        # `curve` has none of the steps before this one yet.
        before = curve.size_after(curve.steps_until(gap.noticed_ns))
        steps.append((gap.found_ns, found - before - sum(pages for _, pages in steps)))
    curve = replace(curve.stepped(steps), exact=exact)
    return _anchored(trace, curve) if trace.pages_missed else curve


def _untraced_steps(
    trace: Trace, curve: SizeCurve, span_ns: tuple[int, int], steps: Sequence[tuple[int, int]]
) -> list[tuple[int, int]]:
    """The steps to the sizes that samples saw while a driver moved pages that was not traced.

    curve: of what was traced; steps: those before these, which no call made.
    """
    since, until = np.searchsorted(trace.samples.time_ns, span_ns, side="right")
    size = curve.size_after(curve.steps_until(span_ns[0])) + sum(pages for _, pages in steps)
    found = []
    for sample in range(int(since), int(until)):
        seen = _counted_size(trace, trace.samples.counters(sample))
        if seen is not None and seen != size:
            found.append((int(trace.samples.time_ns[sample]), seen - size))
            size = seen
    return found


def _anchored(trace: Trace, curve: SizeCurve) -> SizeCurve:
    """The curve of a trace that lacks events, set right wherever the size is known."""
    anchors = anchors_of(trace)
    places = np.searchsorted(curve.time_ns, anchors.time_ns, side="right")
    sizes = np.concatenate(([curve.base], curve.size))[places]
    steps: list[tuple[int, int]] = []
    unseen = []
    known_ns, missing = trace.begin_ns, 0
    for first_ns, last_ns, pages in zip(*map(np.ndarray.tolist, anchors.runs(sizes)), strict=True):
        if pages != missing:
            steps.append((first_ns, pages - missing))
            if first_ns > known_ns + 1:  # else the size was only read anew, by another driver
                unseen.append(Unseen(known_ns, first_ns, pages - missing))
        known_ns, missing = last_ns, pages
    if known_ns < trace.end_ns:
        unseen.append(Unseen(known_ns, trace.end_ns, None))
    right = curve.stepped(steps)
    # A balloon has no less than no pages: what went in before was lost.
    return replace(right, size=np.maximum(right.size, 0), unseen=tuple(unseen))


def _base(
    trace: Trace, moves: Moves, attach: dict[str, Any], span_ns: tuple[int, int]
) -> tuple[int | None, bool]:
    """Pages in the balloon before the first move of a traced span, and whether that is exact.

    attach: the readings at its begin; span_ns: moves belong to it that end after the first moment
    and up to the second.
    """
    base, exact = _base_from_vmstat(trace, attach, span_ns)
    if not exact:
        anchored = _base_from_target(trace, moves, span_ns)
        if anchored is not None:
            return anchored, True
    return base, exact


def _moves(trace: Trace) -> Moves:
    """All fills and leaks."""
    if trace.counter_interval_s is not None:
        return _counted_moves(trace)
    fills, leaks = trace.calls("fill"), trace.calls("leak")
    is_fill = trace.all_events.is_first(*(trace.number("kinds", kind) for kind in ("fill", "leak")))
    time_ns, change = (np.empty(len(is_fill), dtype=np.int64) for _ in range(2))
    time_ns[is_fill], time_ns[~is_fill] = fills.once("end_ns"), leaks.once("end_ns")
    change[is_fill], change[~is_fill] = known_pages(fills), -known_pages(leaks)
    cause = np.full(len(is_fill), FILL, dtype=np.int8)
    cause[~is_fill] = cause_codes(trace, leaks)
    # They stand in order of return, which is nearly that of time, and settles what ended in the
    # same nanosecond.
    if (time_ns[1:] < time_ns[:-1]).any():
        order = np.argsort(time_ns, kind="stable")
        time_ns = time_ns[order]
        change = change[order]
        cause = cause[order]
    return time_ns, change, cause


def _counted_moves(trace: Trace) -> Moves:
    """The same between readings of counters: first all that went in, then all that came out."""
    if (moved := moved_of(trace)) is None:
        return np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0, np.int8)
    time_ns = np.repeat(moved.time_ns[1:], 2)
    change = np.column_stack((np.diff(moved.inflated), -np.diff(moved.deflated))).ravel()
    cause = np.tile(np.array([FILL, CAUSE_NAMES.index("unknown")], np.int8), len(time_ns) // 2)
    steps = change != 0
    return time_ns[steps], change[steps], cause[steps]


def _base_from_vmstat(
    trace: Trace, attach: dict[str, Any], span_ns: tuple[int, int]
) -> tuple[int | None, bool]:
    """Size at attach by /proc/vmstat, and whether the balloon stood still meanwhile."""
    before, after = (section(attach, moment) for moment in ("before", "after"))
    stood = all(before.get(name) == after.get(name) for name in (INFLATED, DEFLATED))
    size = _counted_size(trace, after)
    return size, size is not None and stood and not _partial(trace, span_ns)


def _counted_size(trace: Trace, counters: dict[str, Any]) -> int | None:
    """Balloon pages by the counters of /proc/vmstat; None if it lacks one."""
    inflated, deflated = counters.get(INFLATED), counters.get(DEFLATED)
    if inflated is None or deflated is None:
        return None
    return int(inflated - deflated) * trace.pages_per_page


def _partial(trace: Trace, span_ns: tuple[int, int]) -> bool:
    """Whether a call of this span was under way when its probes were attached."""
    for kind in ("fill", "leak"):
        calls = trace.calls(kind)
        ends = calls["end_ns"][trace.marked(calls, "flags", "flags", "partial")]
        if ((ends > span_ns[0]) & (ends <= span_ns[1])).any():
            return True
    return False


def _base_from_target(trace: Trace, moves: Moves, span_ns: tuple[int, int]) -> int | None:
    """Size at attach that agrees with the size the span's first target event saw."""
    after_ns, until_ns = span_ns
    targets = trace.events("target")
    starts = targets["start_ns"]
    seen = targets[(targets["done"] != UNKNOWN_PAGES) & (starts > after_ns) & (starts <= until_ns)]
    if seen.empty:
        return None
    first = seen.sort_values("start_ns", kind="stable").iloc[0]
    time_ns, change, _ = moves
    moved = change[(time_ns > after_ns) & (time_ns <= first["start_ns"])]
    return int(first["done"]) - int(moved.sum())
