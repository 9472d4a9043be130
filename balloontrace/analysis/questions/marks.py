# SPDX-License-Identifier: Apache-2.0
"""What somebody in the guest said while the recording was made (`balloontrace mark`)."""

from __future__ import annotations

from balloontrace.analysis.base import Analysis, Result
from balloontrace.analysis.trace.marks import marks_of, takes_marks
from balloontrace.analysis.trace.trace import Trace


class Marks(Analysis):
    """The words of `balloontrace mark`, and when they were sent."""

    name = "marks"

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
