# SPDX-License-Identifier: Apache-2.0
"""How many pages moved over the whole recording (metrics.md: totals)."""

from __future__ import annotations

from balloontrace.analysis.base import Question, Result, Section
from balloontrace.analysis.fields import Field, Unit
from balloontrace.analysis.trace.counters import migrated_of, moved_of
from balloontrace.analysis.trace.gaps import said_unseen
from balloontrace.analysis.trace.trace import Trace, known_pages


def churn_ratio(inflated: int | None, deflated: int | None) -> float | None:
    """1 - |net| / (inflated + deflated), in pages; None if nothing moved or either is unknown."""
    if inflated is None or deflated is None or inflated + deflated == 0:
        return None
    return 1 - abs(inflated - deflated) / (inflated + deflated)


def traced_pages(trace: Trace, kind: str) -> int | None:
    """Balloon pages moved by all calls of `kind`; None if the kind was not recorded."""
    if not trace.recorded(kind):
        return None
    # One call of `migrate` moves one page of the kernel, the others count balloon pages.
    unit = trace.pages_per_page if kind == "migrate" else 1
    return int(known_pages(trace.calls(kind)).sum()) * unit


class Totals(Question):
    """Pages in, out and migrated, and the churn ratio; each None if its kind was not recorded."""

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
            Field("churn_ratio", Unit.RATIO, "1 - |net| / (in + out); null: nothing moved"),
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
            "churn_ratio": churn_ratio(inflated, deflated),
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
            "churn_ratio": churn_ratio(inflated, deflated),
        }
        said = "as /proc/vmstat counts" if moved else "/proc/vmstat has no counters of this balloon"
        return Result(self.name, scalars, notes=[said])
