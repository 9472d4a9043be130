"""The balloon's size over time, from its size at attach and what each call moved."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from balloontrace.analysis.causes import by_reclaim
from balloontrace.analysis.trace import Bools, Ints, Trace, known_pages, section
from balloontrace.events import UNKNOWN_PAGES


@dataclass(frozen=True)
class SizeCurve:
    """A step function: `size[i]` balloon pages from `time_ns[i]` on, `base` before the first.

    One step for each fill and leak, at its end, in order of time. change: pages of that step, out
    is negative; reclaim: whether the shrinker made it; exact: whether `base` is known to the page.
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

    The size at the start is inflate - deflate of /proc/vmstat right after attach. If the balloon
    moved while the probes were attached, that counts some calls twice; then, or without these
    counters, the first target event that saw the balloon's size settles it.
    """
    moves = _moves(trace)
    base, exact = _base_from_vmstat(trace)
    if not exact:
        anchored = _base_from_target(trace, moves)
        if anchored is not None:
            base, exact = anchored, True
    if base is None:
        return None
    time_ns, change, reclaim = moves
    return SizeCurve(base, exact, time_ns, change, reclaim, base + np.cumsum(change))


def _moves(trace: Trace) -> tuple[Ints, Ints, Bools]:
    """End, change in pages, and whether reclaim made it, of each fill and leak by time of end."""
    fills, leaks = trace.events("fill"), trace.events("leak")
    time_ns = np.concatenate([fills["end_ns"], leaks["end_ns"]])
    change = np.concatenate([known_pages(fills), -known_pages(leaks)])
    reclaim = np.concatenate([np.zeros(len(fills), dtype=bool), by_reclaim(trace, leaks)])
    # Records stand in order of return, which settles what ended in the same nanosecond.
    order = np.lexsort((np.concatenate([fills["record"], leaks["record"]]), time_ns))
    return time_ns[order], change[order], reclaim[order]


def _base_from_vmstat(trace: Trace) -> tuple[int | None, bool]:
    """Size at attach by /proc/vmstat, and whether the balloon stood still meanwhile."""
    reads = section(trace.header, "vmstat_attach")
    sizes = []
    for moment in ("before", "after"):
        counters = section(reads, moment)
        inflated, deflated = counters.get("balloon_inflate"), counters.get("balloon_deflate")
        sizes.append(None if inflated is None or deflated is None else (inflated, deflated))
    before, after = sizes
    if after is None:
        return None, False
    partial = any(
        trace.marked(trace.events(kind), "flags", "flags", "partial").any()
        for kind in ("fill", "leak")
    )
    return (after[0] - after[1]) * trace.pages_per_page, before == after and not partial


def _base_from_target(trace: Trace, moves: tuple[Ints, Ints, Bools]) -> int | None:
    """Size at attach that agrees with the size the first target event saw."""
    targets = trace.events("target")
    seen = targets[targets["done"] != UNKNOWN_PAGES]
    if seen.empty:
        return None
    first = seen.sort_values("start_ns", kind="stable").iloc[0]
    time_ns, change, _ = moves
    return int(first["done"]) - int(change[time_ns <= first["start_ns"]].sum())
