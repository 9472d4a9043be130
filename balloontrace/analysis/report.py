"""All that `report` says of one recording: facts of the recording itself, and every result."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from balloontrace.analysis.base import Result, run_all, why_not
from balloontrace.analysis.findings import check_all
from balloontrace.analysis.trace import Trace, read_trace, section


@dataclass(frozen=True)
class Report:
    """recording: scalars on the recording, table `seams`; results: by name of the analysis."""

    recording: Result
    results: dict[str, Result]


def build(path: str) -> Report:
    """Read and analyse the recording at `path`; UserError if it cannot be read."""
    return report_of(read_trace(path))


def report_of(trace: Trace) -> Report:
    """Analyse a trace."""
    results = run_all(trace)
    results["findings"] = check_all(results)
    return Report(_recording(trace), results)


def _recording(trace: Trace) -> Result:
    """What the recording says of itself: how it ended and what is not in it."""
    recording = trace.recording
    scalars = {
        "path": recording.path,
        "tool": trace.header.get("tool"),
        "duration_s": trace.seconds(trace.end_ns),
        "complete": recording.complete,
        "lost_events": trace.trailer.get("lost_events"),
        "lost_pages": _lost_pages(trace),
        "ended": trace.trailer.get("reason"),
        "truncated": recording.trailer is None,
        "missing_blocks": recording.missing_blocks,
        "damaged_bytes": sum(damage.length for damage in recording.damage),
        "events": len(trace.records),
        "open_calls": trace.trailer.get("open_calls"),
        "command": trace.trailer.get("command"),
        "recorder": trace.trailer.get("recorder"),
    }
    return Result("recording", scalars, {"seams": _seams(trace)})


def _lost_pages(trace: Trace) -> dict[str, int]:
    """Kind -> pages of its lost events, where there are any."""
    counters = section(trace.trailer, "counters")
    lost = {kind: section(counters, kind).get("lost_pages") for kind in counters}
    return {kind: pages for kind, pages in lost.items() if pages}


def _seams(trace: Trace) -> list[dict[str, Any]]:
    """How each seam was attached, what that loses, and how many events it gave."""
    counters = section(trace.trailer, "counters")
    rows = []
    for name, seam in section(trace.header, "seams").items():
        seam = seam if isinstance(seam, dict) else {}
        rows.append(
            {
                "seam": name,
                "rung": seam.get("rung"),
                "loses": seam.get("loses") or "",
                "why_not": why_not(seam),
                "events": len(trace.events(name)) if trace.number("kinds", name) else None,
                **section(counters, name),
            }
        )
    return rows
