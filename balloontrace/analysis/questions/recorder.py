# SPDX-License-Identifier: Apache-2.0
"""What recording cost the guest, by the recorder's own word."""

from __future__ import annotations

from balloontrace.analysis.base import Question, Result, Section, never
from balloontrace.analysis.fields import Field, Unit
from balloontrace.analysis.trace.trace import Trace, section


class Recorder(Question):
    """The recorder's own costs, which it writes into the trailer."""

    section = Section(
        "recorder",
        "Recorder",
        160,
        "what recording cost the guest",
        (
            Field("rss_bytes", Unit.BYTES, "resident at the end"),
            Field("rss_peak_bytes", Unit.BYTES, "resident at most"),
            Field("cpu_s", Unit.SECONDS, "user and system time"),
            Field("longest_read_gap_s", Unit.SECONDS, "between two looks at the ring"),
        ),
        shown=never,
    )

    def run(self, trace: Trace) -> Result:
        """Scalars; None: it did not say."""
        costs = section(trace.trailer, "recorder")
        if not costs:
            return Result(self.name, missing=["what the recorder cost, which its trailer tells"])
        return Result(self.name, {field.key: costs.get(field.key) for field in self.section.fields})
