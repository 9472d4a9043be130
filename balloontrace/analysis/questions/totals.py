# SPDX-License-Identifier: Apache-2.0
"""How many pages moved over the whole recording (metrics.md: totals)."""

from __future__ import annotations

from collections.abc import Iterable

from balloontrace.analysis.base import Question, Result, Section
from balloontrace.analysis.fields import Field, Unit
from balloontrace.analysis.trace.balloon_size import size_curve
from balloontrace.analysis.trace.counters import migrated_of, moved_of
from balloontrace.analysis.trace.gaps import said_unseen
from balloontrace.analysis.trace.stretches import stretches_of
from balloontrace.analysis.trace.trace import MOVES, Trace, known_pages


def churn_ratio(moves: Iterable[tuple[int, int]]) -> float | None:
    """Of the pages that moved, the share that was undone within the stretch in which it moved
    (metrics.md: churn ratio): sum of moved - |net| / sum of moved; None if nothing moved.

    moves: pages in and out of each stretch.
    """
    pairs = list(moves)
    moved = sum(inflated + deflated for inflated, deflated in pairs)
    undone = moved - sum(abs(inflated - deflated) for inflated, deflated in pairs)
    return undone / moved if moved else None


def round_trip_ratio(inflated: int | None, deflated: int | None) -> float | None:
    """The same of all that moved, whatever the targets were; None if either is not known."""
    if inflated is None or deflated is None:
        return None
    return churn_ratio([(inflated, deflated)])


def churn_of(trace: Trace) -> float | None:
    """The churn ratio of a recording; None if nothing moved, or if it is not known which of it
    belongs together: a change of the target, or a move, may be missing."""
    if not all(trace.recorded(kind) for kind in ("target", *MOVES)) or trace.doubt("target"):
        return None
    curve = size_curve(trace)
    if curve is None or curve.unseen:
        return None
    moved = (curve.moved(stretch.steps) for stretch in stretches_of(trace, curve))
    return churn_ratio((one["inflated_pages"], one["deflated_pages"]) for one in moved)


def traced_pages(trace: Trace, kind: str) -> int | None:
    """Balloon pages moved by all calls of `kind`; None if the kind was not recorded."""
    if not trace.recorded(kind):
        return None
    # One call of `migrate` moves one page of the kernel, the others count balloon pages.
    unit = trace.pages_per_page if kind == "migrate" else 1
    return int(known_pages(trace.calls(kind)).sum()) * unit


class Totals(Question):
    """Pages in, out and migrated, and how much of that was undone; each None if its kind was not
    recorded."""

    section = Section(
        "totals",
        "Totals",
        30,
        "pages in, out, net and migrated over the whole recording",
        (
            Field("inflated_pages", Unit.PAGES, "moved into the balloon", "in"),
            Field("deflated_pages", Unit.PAGES, "moved out of it", "out"),
            Field("net_pages", Unit.PAGES, "in less out", "net"),
            Field("migrated_pages", Unit.PAGES, "balloon pages that the kernel moved", "migrated"),
            Field(
                "churn_ratio",
                Unit.RATIO,
                "the share that was undone within its episode, or between two; null: nothing "
                "moved, or it is not known",
                "churn\nratio",
            ),
            Field(
                "round_trip_ratio",
                Unit.RATIO,
                "1 - |net| / (in + out) of the whole recording; null: nothing moved",
                "round\ntrip",
            ),
        ),
    )
    optional = ("fill", "leak", "migrate")
    by_counters = True

    def run(self, trace: Trace) -> Result:
        """Sums in balloon pages."""
        if trace.counter_interval_s is not None:
            return self._counted(trace)
        inflated, deflated = traced_pages(trace, "fill"), traced_pages(trace, "leak")
        both = inflated is not None and deflated is not None
        scalars = {
            "inflated_pages": inflated,
            "deflated_pages": deflated,
            "net_pages": (inflated or 0) - (deflated or 0) if both else None,
            "migrated_pages": traced_pages(trace, "migrate"),
            "churn_ratio": churn_of(trace),
            "round_trip_ratio": round_trip_ratio(inflated, deflated),
        }
        notes = [
            f"{unknown:,} {kind} calls moved a number of pages that could not be seen: not counted"
            for kind in self.optional
            if (unknown := trace.unknown_pages(kind))
        ]
        if unseen := said_unseen(trace):
            notes.append(f"not counted: {unseen} while the driver was not traced")
        return Result(self.name, scalars, notes=notes)

    def _counted(self, trace: Trace) -> Result:
        """The same where nothing was traced, as /proc/vmstat counts."""
        moved = moved_of(trace)
        inflated = int(moved.inflated[-1]) if moved else None
        deflated = int(moved.deflated[-1]) if moved else None
        scalars = {
            "inflated_pages": inflated,
            "deflated_pages": deflated,
            "net_pages": int(moved.inflated[-1] - moved.deflated[-1]) if moved else None,
            "migrated_pages": migrated_of(trace),
            "churn_ratio": None,  # the targets are not known
            "round_trip_ratio": round_trip_ratio(inflated, deflated),
        }
        said = "as /proc/vmstat counts" if moved else "/proc/vmstat has no counters of this balloon"
        return Result(self.name, scalars, notes=[said])
