# SPDX-License-Identifier: Apache-2.0
"""What somebody in the guest said while the recording was made (`balloontrace mark`)."""

from __future__ import annotations

from balloontrace.analysis.base import Question, Result, Section
from balloontrace.analysis.fields import Field, Table, Unit
from balloontrace.analysis.trace.marks import marks_of, takes_marks
from balloontrace.analysis.trace.trace import Trace


def _any(result: Result) -> bool:
    """Whether anybody said anything."""
    return bool(result.tables.get("marks"))


class Marks(Question):
    """The words of `balloontrace mark`, and when they were sent."""

    section = Section(
        "marks",
        "Marks",
        15,
        "what `balloontrace mark` said in the guest while it was recorded (`record --mark`)",
        tables=(
            Table(
                "marks",
                (
                    Field("at_s", Unit.MOMENT, "when it was sent", "at s"),
                    Field("at", Unit.CLOCK, "the same; null: not recorded", "wall clock"),
                    Field("text", Unit.TEXT, "at most 200 characters", "mark"),
                ),
                "marks",
            ),
        ),
        shown=_any,
        first_screen=_any,
    )

    def run(self, trace: Trace) -> Result:
        """One row per mark in order of time: seconds since attach, wall clock (None: not recorded),
        text."""
        marks = marks_of(trace)
        if not marks and not takes_marks(trace):
            return Result(self.name, missing=["marks (record --mark takes them)"])
        rows = [
            {
                "at_s": trace.seconds(mark.time_ns),
                "at": trace.wall_clock(mark.time_ns),
                "text": mark.text,
            }
            for mark in marks
        ]
        return Result(self.name, tables={self.name: rows})
