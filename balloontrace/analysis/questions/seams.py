# SPDX-License-Identifier: Apache-2.0
"""How each seam was traced: the functions of the kernel that a kind of event is taken from."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

from balloontrace.analysis.base import NO_EVENTS, Question, Result, Section, why_not
from balloontrace.analysis.fields import Field, Shape, Table, Unit
from balloontrace.analysis.trace.trace import Trace, section
from balloontrace.driver_behaviour import NOT_OFFERED

_COUNTERS = {
    "entered": "calls that began",
    "written": "events written to the ring",
    "skipped": "calls that moved nothing, counted and not written",
    "lost": "events lost, the ring was full",
    "missed": "calls whose return was not seen",
    "open": "calls under way at the end",
    "unpaired": "returns without an entry",
    "untracked": "calls for which there was no room",
}

_RUNG = (
    Field("rung", Unit.TEXT, "how it was traced; null: not attached"),
    Field("loses", Unit.TEXT, "what that does not see"),
    Field("why_not", Unit.TEXT, "why not by a better one"),
)


def _lack(result: Result) -> bool:
    """Whether anything that there was to trace was not traced, or not wholly, or not always so."""
    if result.missing:
        return True
    rows = [row for row in result.tables["seams"] if row["negotiated"]]
    return not rows or any(row["rung"] is None or row["loses"] or row["later"] for row in rows)


class Seams(Question):
    """How each seam was attached, what that loses, and how many events it gave."""

    section = Section(
        "seams",
        "Seams",
        150,
        "how each kind of event was traced, and what that loses",
        tables=(
            Table(
                "seams",
                (
                    Field("seam", Unit.TEXT, never_null=True),
                    *_RUNG,
                    Field("negotiated", Unit.FLAG, "false: it needs a feature that is not"),
                    Field("events", Unit.NUMBER),
                    Field(
                        "later",
                        (Field("from_s", Unit.MOMENT), *_RUNG, Field("was", Unit.TEXT)),
                        "where a driver that came later was traced otherwise",
                        shape=Shape.ARRAY,
                    ),
                    *(Field(c, Unit.NUMBER, d, may_lack=True) for c, d in _COUNTERS.items()),
                    Field("lost_pages", Unit.PAGES, "in events that were lost", may_lack=True),
                ),
                "seams",
            ),
        ),
        first_screen=_lack,
    )

    def run(self, trace: Trace) -> Result:
        """One row a seam. negotiated: False if what it traces needs a feature that was not; later:
        where it was traced otherwise when a driver was attached to again."""
        trace = trace.entire
        if trace.counter_interval_s is not None:
            return Result(self.name, missing=[NO_EVENTS])
        counters = section(trace.trailer, "counters")
        rows = []
        for name in trace.seams:
            seam = section(trace.seams, name)
            why = why_not(seam)
            rows.append(
                {
                    "seam": name,
                    **_rung(seam),
                    "negotiated": trace.negotiated(name) and not why.startswith(NOT_OFFERED),
                    "events": len(trace.calls(name)) if trace.number("kinds", name) else None,
                    "later": _otherwise(trace, name),
                    **section(counters, name),
                }
            )
        return Result(self.name, tables={self.name: rows}, notes=[] if rows else [_why_none(trace)])


def _why_none(trace: Trace) -> str:
    if trace.driver_changes:
        return "no driver was attached to"
    return "the recording does not say how its events were traced"


def _rung(seam: dict[str, Any]) -> dict[str, Any]:
    return {
        "rung": seam.get("rung"),
        "loses": seam.get("loses") or "",
        "why_not": why_not(seam),
    }


def _otherwise(trace: Trace, name: str) -> list[dict[str, Any]]:
    """The attachments after the first whose rung is not that of the one before."""
    changes = []
    rungs = [(a["t_ns"], _rung(section(section(a, "seams"), name))) for a in trace.attachments]
    for (_, before), (at_ns, now) in pairwise(rungs):
        if now["rung"] != before["rung"]:
            changes.append({"from_s": trace.seconds(at_ns), **now, "was": before["rung"]})
    return changes
