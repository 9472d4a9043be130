# SPDX-License-Identifier: Apache-2.0
"""The balloon's size over time, from its size at attach and what each call moved."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from balloontrace.analysis.causes import by_reclaim
from balloontrace.analysis.gaps import DEFLATED, INFLATED, driver_gaps
from balloontrace.analysis.trace import Bools, Ints, Trace, known_pages, section
from balloontrace.events import UNKNOWN_PAGES

Moves = tuple[Ints, Ints, Bools]
"""End, change in pages, and whether reclaim made it, of each fill and leak by time of end."""

_FOREVER = 2**63 - 1


@dataclass(frozen=True)
class SizeCurve:
    """A step function: `size[i]` balloon pages from `time_ns[i]` on, `base` before the first.

    One step for each fill and leak, at its end, in order of time, and one for each gap in which no
    driver was traced, where that begins: to the size that was found after it. change: pages of that
    step, out is negative; reclaim: whether the shrinker made it; exact: whether `base`, and what
    was found after each gap, is known to the page.
    """

    base: int
    exact: bool
    time_ns: Ints
    change: Ints
    reclaim: Bools
    size: Ints

    def steps_until(self, time_ns: int) -> int:
        """How many steps were made up to and including this moment."""
        return int(np.searchsorted(self.time_ns, time_ns, side="right"))

    def size_after(self, steps: int) -> int:
        """Pages in the balloon after that many steps."""
        return int(self.size[steps - 1]) if steps else self.base


def size_curve(trace: Trace) -> SizeCurve | None:
    """The curve of a trace that recorded `fill` and `leak`; None if no size is known at any time.

    The size at the start, and after each gap in which no driver was traced, is inflate - deflate of
    /proc/vmstat right after attach. If the balloon moved while the probes were attached, that
    counts some calls twice; then, or without these counters, the first target event that saw the
    balloon's size settles it.
    """
    time_ns, change, reclaim = moves = _moves(trace)
    gaps = driver_gaps(trace)
    ends_ns = [gap.noticed_ns for gap in gaps] + [_FOREVER]
    attach = section(trace.header, "vmstat_attach")
    base, exact = _base(trace, moves, attach, (-1, ends_ns[0]))
    if gaps and gaps[0].absent:
        base, exact = 0, True  # without a driver there is no balloon
    if base is None:
        return None
    sizes = base + np.cumsum(change)
    steps: list[tuple[int, int, int]] = []
    for gap, end_ns in zip(gaps, ends_ns[1:], strict=True):
        found, known = _base(trace, moves, gap.found, (gap.noticed_ns, end_ns))
        if gap.open or found is None:
            continue
        exact = exact and known
        place = int(np.searchsorted(time_ns, gap.noticed_ns, side="right"))
        before = int(sizes[place - 1]) if place else base
        # `sizes` has none of the steps before this one yet.
        added = found - before - sum(step for _, _, step in steps)
        steps.append((place, gap.noticed_ns, added))
    if steps:
        places, times, added_pages = (list(column) for column in zip(*steps, strict=True))
        time_ns = np.insert(time_ns, places, times)
        change = np.insert(change, places, added_pages)
        reclaim = np.insert(reclaim, places, False)
    return SizeCurve(base, exact, time_ns, change, reclaim, base + np.cumsum(change))


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
    fills, leaks = trace.calls("fill"), trace.calls("leak")
    is_fill = trace.all_events.is_first(*(trace.number("kinds", kind) for kind in ("fill", "leak")))
    time_ns, change = np.empty((2, len(is_fill)), dtype=np.int64)
    time_ns[is_fill], time_ns[~is_fill] = fills["end_ns"], leaks["end_ns"]
    change[is_fill], change[~is_fill] = known_pages(fills), -known_pages(leaks)
    reclaim = np.zeros(len(is_fill), dtype=bool)
    reclaim[~is_fill] = by_reclaim(trace, leaks)
    # They stand in order of return, which is nearly that of time, and settles what ended in the
    # same nanosecond.
    if (time_ns[1:] < time_ns[:-1]).any():
        order = np.argsort(time_ns, kind="stable")
        time_ns, change, reclaim = time_ns[order], change[order], reclaim[order]
    return time_ns, change, reclaim


def _base_from_vmstat(
    trace: Trace, attach: dict[str, Any], span_ns: tuple[int, int]
) -> tuple[int | None, bool]:
    """Size at attach by /proc/vmstat, and whether the balloon stood still meanwhile."""
    sizes = []
    for moment in ("before", "after"):
        counters = section(attach, moment)
        inflated, deflated = counters.get(INFLATED), counters.get(DEFLATED)
        sizes.append(None if inflated is None or deflated is None else (inflated, deflated))
    before, after = sizes
    if after is None:
        return None, False
    size = (after[0] - after[1]) * trace.pages_per_page
    return size, before == after and not _partial(trace, span_ns)


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
