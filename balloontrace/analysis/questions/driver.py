# SPDX-License-Identifier: Apache-2.0
"""The driver's life: bound, removed, suspended, resumed, and the gaps in which none was traced."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from balloontrace.analysis.base import Question, Result, Section, not_recorded
from balloontrace.analysis.fields import Field, Shape, Table, Unit
from balloontrace.analysis.questions.guest import DRIVER_BUILD
from balloontrace.analysis.trace.driver_life import first_after, returns
from balloontrace.analysis.trace.frozen import Frozen, frozen_of
from balloontrace.analysis.trace.gaps import DEFLATED, INFLATED, driver_gaps
from balloontrace.analysis.trace.trace import Trace, known_pages, section

KINDS = ("bind", "remove", "freeze", "restore")


def happened(result: Result) -> bool:
    """Whether the driver came or went at all, or the guest slept."""
    return any(result.tables.values()) or bool(result.scalars.get("suspended_s"))


class Driver(Question):
    """Each time the driver came or went, and each gap in which none was traced."""

    section = Section(
        "driver",
        "Driver",
        140,
        "each time the driver came or went, and each gap in which none was traced",
        (
            Field("end_s", Unit.MOMENT, "the recording's end"),
            Field("suspended_s", Unit.SECONDS, "the guest was suspended; no time here includes it"),
            Field("suspends_known", Unit.FLAG, "null: one may not have been seen"),
            Field("returns_known", Unit.FLAG, "null: one that left may have come back unseen"),
        ),
        (
            Table(
                "calls",
                (
                    Field("call", Unit.TEXT, words=KINDS),
                    Field("start_s", Unit.MOMENT),
                    Field("end_s", Unit.MOMENT),
                    Field("open", Unit.FLAG, "had not returned when the recording ended"),
                    Field("failed", Unit.FLAG, "no driver came of it; null: not known"),
                    Field("back_s", Unit.MOMENT, "after it left: when a driver was there again"),
                    Field("by", Unit.TEXT, "the task"),
                    Field("pages", Unit.PAGES, "that the balloon gave back as the driver left"),
                ),
            ),
            Table(
                "gaps",
                (
                    Field("state", Unit.TEXT, "absent: from the start", words=("absent", "gone")),
                    Field("start_s", Unit.MOMENT),
                    Field("end_s", Unit.MOMENT),
                    Field("open", Unit.FLAG, "no driver was attached to again"),
                    Field("back_s", Unit.MOMENT, "when a driver was there, traced or not"),
                    Field("inflated_pages", Unit.PAGES, "[least, most]", shape=Shape.ARRAY),
                    Field("deflated_pages", Unit.PAGES, "[least, most]", shape=Shape.ARRAY),
                    Field("untraceable", Unit.TEXT, "why a driver that came could not be traced"),
                    Field(
                        "driver",
                        (*DRIVER_BUILD, Field("features", Unit.TEXT, shape=Shape.ARRAY)),
                        "what was found after it",
                    ),
                    Field(
                        "changed", Unit.TEXT, "which of that was not so before", shape=Shape.ARRAY
                    ),
                ),
            ),
            Table(
                "frozen",
                (
                    Field("start_s", Unit.MOMENT, "virtballoon_freeze had returned"),
                    Field("end_s", Unit.MOMENT, "the restore began, or the end"),
                    Field("restored", Unit.FLAG),
                    Field("calls", Unit.NUMBER, "that used the driver meanwhile"),
                    Field("kinds", Unit.NUMBER, "of each kind", shape=Shape.NAMED),
                    Field("first_s", Unit.MOMENT, "when the first of them began"),
                    Field("first_by", Unit.TEXT, "its task"),
                ),
                doc="each time between a freeze and the restore after it",
            ),
        ),
        shown=happened,
        first_screen=happened,
    )
    optional = KINDS

    def run(self, trace: Trace) -> Result:
        """Tables `calls`, `gaps`, `frozen` in order of time; seconds since attach, balloon pages,
        None: not known. Scalars `end_s`: the recording's end; `suspended_s`: how long the guest was
        suspended meanwhile, which no other time includes; `returns_known`: None where one that left
        may have come back unseen."""
        gaps = _gaps(trace)
        if not gaps and not any(trace.recorded(kind) for kind in KINDS):
            return Result(self.name, missing=not_recorded(trace, KINDS))
        calls = [row for kind in KINDS for row in _calls(trace, kind)]
        calls.sort(key=lambda row: float(row["start_s"]))
        scalars = {
            "end_s": trace.seconds(trace.end_ns),
            "returns_known": _returns_known(trace, calls, gaps),
            "suspended_s": _suspended_s(trace),
            "suspends_known": _suspends_known(trace),
        }
        frozen = [_frozen(trace, one) for one in frozen_of(trace)]
        return Result(self.name, scalars, {"calls": calls, "gaps": gaps, "frozen": frozen})


def _returns_known(
    trace: Trace, calls: list[dict[str, Any]], gaps: list[dict[str, Any]]
) -> bool | None:
    """Whether each driver that is not told to have come back did not: of one that was unloaded the
    recorder saw that none is there, of one that was unbound only a `bind` tells."""
    unloaded = [gap["start_s"] for gap in gaps if gap["open"]]
    away = [row for row in calls if row["call"] == "remove" and row["back_s"] is None]
    unbound = [row for row in away if row["end_s"] not in unloaded]
    return None if unbound and (trace.doubt("bind") or not trace.attached("bind")) else True


def _suspends_known(trace: Trace) -> bool | None:
    """Whether each suspend was seen, or it is known that there was none."""
    seen = trace.recorded("freeze") and trace.recorded("restore")
    return True if seen or trace.suspended_ns == 0 else None


def _frozen(trace: Trace, one: Frozen) -> dict[str, Any]:
    """A time in which the driver was frozen, and what called it then."""
    first = one.calls.head(1)
    codes, names = trace.names_of(first)
    return {
        "start_s": trace.seconds(one.since_ns),
        "end_s": trace.seconds(one.until_ns),
        "restored": one.restored,
        "calls": len(one.calls),
        "kinds": {str(kind): int(n) for kind, n in one.calls["kind"].value_counts().items()},
        "first_s": trace.seconds(first["start_ns"].iloc[0]) if len(first) else None,
        "first_by": names[codes[0]] if len(first) else None,
    }


def _suspended_s(trace: Trace) -> float | None:
    """Seconds, to 10 ms: two clocks are read in turn. None if the recording does not say."""
    suspended_ns = trace.suspended_ns
    if suspended_ns is None or (suspended_ns and trace.is_part):
        return None  # when it was is not recorded
    return round(suspended_ns / 1e9, 2)


def _calls(trace: Trace, kind: str) -> list[dict[str, Any]]:
    """The calls of one kind. pages: what the balloon gave back as the driver left."""
    calls = trace.events(kind)
    codes, names = trace.names(kind)
    leaving = kind in ("remove", "freeze") and trace.recorded("leak")
    pages = _given_back(trace, kind, calls) if leaving else [None] * len(calls)
    columns = (calls[column].tolist() for column in ("start_ns", "end_ns", "open", "done"))
    missed = trace.marked(calls, "flags", "flags", "missed").tolist()
    return [
        {
            "call": kind,
            "start_s": trace.seconds(start_ns),
            "end_s": trace.seconds(end_ns),
            "open": is_open,
            "failed": _failed(kind, done, is_open, unseen),
            "back_s": _back_s(trace, end_ns) if kind in ("remove", "freeze") else None,
            "by": names[code],
            "pages": given_back,
        }
        for start_ns, end_ns, is_open, done, unseen, code, given_back in zip(
            *columns, missed, codes.tolist(), pages, strict=True
        )
    ]


def _failed(kind: str, done: int, is_open: bool, missed: bool) -> bool | None:
    """Whether no driver came of a call. missed: its return was not seen."""
    if kind != "bind" or is_open:
        return False
    return None if missed else done == 0


def _back_s(trace: Trace, left_ns: int) -> float | None:
    """When a driver was there again after it had left, in what is looked at; traced or not."""
    came = first_after(returns(trace.entire), left_ns)
    return None if came is None or came > trace.end_ns else trace.seconds(came)


def _given_back(trace: Trace, kind: str, calls: pd.DataFrame) -> list[int]:
    """Pages of the leaks that each of these calls made."""
    # A call that reaches into a window made some of its leaks before that.
    leaks = trace.entire.events("leak", "start_ns", "done", "within")
    mine = leaks[trace.marked(leaks, "within", "within", kind)].sort_values("start_ns")
    until = np.concatenate(([0], np.cumsum(known_pages(mine))))
    first, last = (np.searchsorted(mine["start_ns"], calls[at]) for at in ("start_ns", "end_ns"))
    given_back: list[int] = (until[last] - until[first]).tolist()
    return given_back


def _gaps(trace: Trace) -> list[dict[str, Any]]:
    """The gaps. inflated_pages, deflated_pages: [least, most] that moved unseen; driver: what was
    found after it, and which of that was not so before it."""
    rows = []
    gaps, here = driver_gaps(trace.entire), driver_gaps(trace)
    before = None if gaps and gaps[0].absent else _identity(trace.header)
    for gap in gaps:
        found = None if gap.open else _identity(gap.attached)
        changed = [key for key in found if before[key] != found[key]] if before and found else []
        rows.append(
            {
                "state": "absent" if gap.absent else "gone",
                "start_s": trace.seconds(gap.start_ns),
                "end_s": trace.seconds(gap.end_ns),
                "open": gap.open,
                "back_s": _back_s(trace, gap.start_ns),
                "inflated_pages": gap.moved(INFLATED, trace.pages_per_page),
                "deflated_pages": gap.moved(DEFLATED, trace.pages_per_page),
                "untraceable": gap.whys[-1] if gap.whys else None,
                "driver": found,
                "changed": changed,
            }
        )
        before = found or before
    return [row for gap, row in zip(gaps, rows, strict=True) if gap in here]


def _identity(described: dict[str, Any]) -> dict[str, Any]:
    """What tells one driver, and what it negotiated, from another."""
    balloon = section(described, "balloon")
    driver = section(balloon, "driver")
    return {
        **{key: driver.get(key) for key in ("version", "srcversion", "taint")},
        "features": list(balloon.get("features") or []),
    }
