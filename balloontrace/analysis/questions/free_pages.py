# SPDX-License-Identifier: Apache-2.0
"""Free memory that the guest tells the host of without a balloon: reporting and hinting."""

from __future__ import annotations

from typing import Any

import pandas as pd

from balloontrace.analysis.base import Question, Result, Section, answered, not_recorded
from balloontrace.analysis.fields import Field, Unit
from balloontrace.analysis.trace.trace import Trace, known_pages, section
from balloontrace.events import UNKNOWN_PAGES


class FreePages(Question):
    """Free page reporting, which the host may take at any time, and free page hinting, which lends
    the host what it need not migrate."""

    section = Section(
        "free_pages",
        "Free pages",
        120,
        "free page reporting and free page hinting",
        (
            Field(
                "reporting",
                (
                    Field("calls", Unit.NUMBER),
                    Field("refused", Unit.NUMBER, "calls that the host refused"),
                    Field("pages", Unit.PAGES, "reported"),
                    Field("total_s", Unit.SECONDS),
                ),
            ),
            Field(
                "hinting",
                (
                    Field("calls", Unit.NUMBER),
                    Field("lent_pages", Unit.PAGES, "lent to the host"),
                    Field("returned_pages", Unit.PAGES, "taken back"),
                    Field("total_s", Unit.SECONDS),
                ),
            ),
        ),
        shown=answered,
    )
    optional = ("report", "hint")

    def run(self, trace: Trace) -> Result:
        """Scalars `reporting` and `hinting`: calls, balloon pages, seconds of wall clock; None if
        not recorded, pages None if a call's could not be seen."""
        if not any(trace.recorded(kind) for kind in self.optional):
            return Result(self.name, missing=not_recorded(trace, self.optional))
        if not any(trace.negotiated(kind) for kind in self.optional):
            return Result(self.name, missing=[f"{k} (not negotiated)" for k in self.optional])
        return Result(self.name, {"reporting": _reporting(trace), "hinting": _hinting(trace)})


def _reporting(trace: Trace) -> dict[str, Any] | None:
    if not (trace.recorded("report") and trace.negotiated("report")):
        return None
    calls = trace.events("report")
    # What the host refused is not reported; a call that is still open may yet be.
    refused = (calls["done"] == 0) & ~calls["open"]
    return {
        "calls": len(calls),
        "refused": int(refused.sum()),
        "pages": _pages(calls[~calls["open"]]),
        "total_s": _seconds(calls),
    }


def _hinting(trace: Trace) -> dict[str, Any] | None:
    if not (trace.recorded("hint") and trace.negotiated("hint")):
        return None
    calls = trace.events("hint")
    back = trace.marked(calls, "flags", "flags", "returned")
    lent, returned = calls[~back], calls[back]
    # A rung that cannot tell the two apart shows no call as one that took blocks back.
    unseen = not len(returned) and bool(section(trace.seams, "hint").get("loses"))
    return {
        "calls": len(calls),
        "lent_pages": _pages(lent[~lent["open"]]),
        "returned_pages": None if unseen else _pages(returned),
        "total_s": _seconds(calls),
    }


def _pages(calls: pd.DataFrame) -> int | None:
    """The pages of all calls; None if those of one could not be seen."""
    if (calls["done"] == UNKNOWN_PAGES).any():
        return None
    return int(known_pages(calls).sum())


def _seconds(calls: pd.DataFrame) -> float:
    return int(calls["duration_ns"].sum()) / 1e9
