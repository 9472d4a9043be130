# SPDX-License-Identifier: Apache-2.0
"""Reports with the timelines that their pictures are drawn from."""

from __future__ import annotations

from dataclasses import dataclass

from balloontrace.analysis.base import Result
from balloontrace.analysis.report import Report, report_of
from balloontrace.analysis.timeline.data import timeline
from balloontrace.analysis.trace.trace import Trace, read_trace


@dataclass(frozen=True)
class Picture:
    """What a renderer of pictures sees of one recording."""

    report: Report
    timeline: Result


def picture(path: str) -> Picture:
    """Read and analyse the recording at `path`; UserError if it cannot be read."""
    return picture_of(read_trace(path))


def picture_of(trace: Trace) -> Picture:
    """Analyse a trace, or a window of one."""
    report = report_of(trace)
    return Picture(report, timeline(trace, report.results))


def picture_pair(before: str, after: str) -> tuple[Picture, Picture]:
    """Two recordings, with intervals of one length so that what is summed in them compares."""
    traces = [read_trace(path) for path in (before, after)]
    longest_s = max(trace.seconds(trace.end_ns) for trace in traces)
    reports = [report_of(trace) for trace in traces]
    first, second = (
        Picture(report, timeline(trace, report.results, span_s=longest_s))
        for trace, report in zip(traces, reports, strict=True)
    )
    return first, second
