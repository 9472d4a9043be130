# SPDX-License-Identifier: Apache-2.0
"""What somebody in the guest wrote into the recording while it was made (`balloontrace mark`)."""

from __future__ import annotations

from typing import NamedTuple

from balloontrace.analysis.trace.trace import Trace
from balloontrace.recording.layout import MARK_CHARACTERS


class Mark(NamedTuple):
    """Words at a moment; as hostile as the guest."""

    time_ns: int
    text: str


def marks_of(trace: Trace) -> list[Mark]:
    """The marks in order of time."""
    marks = [
        Mark(int(sample["t_ns"]), sample["mark"][:MARK_CHARACTERS])
        for sample in trace.recording.samples
        if "t_ns" in sample and isinstance(sample.get("mark"), str)
    ]
    return sorted(mark for mark in marks if trace.contains(mark.time_ns))


def takes_marks(trace: Trace) -> bool:
    """Whether the recording was made so that it would have them."""
    return trace.header.get("marks") is True
