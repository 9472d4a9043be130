# SPDX-License-Identifier: Apache-2.0
"""All that `report` says of one recording: facts of the recording itself, and every result."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from balloontrace.analysis.base import Result, run_all, why_not
from balloontrace.analysis.findings import check_all
from balloontrace.analysis.questions.reconciliation import Reconciliation, equal_kinds
from balloontrace.analysis.trace.trace import Trace, read_trace, section
from balloontrace.analysis.trace.underway import is_underway
from balloontrace.driver_behaviour import NOT_OFFERED


@dataclass(frozen=True)
class Report:
    """recording: scalars on the recording, table `seams`; results: by name of the analysis."""

    recording: Result
    results: dict[str, Result]


def build(path: str) -> Report:
    """Read and analyse the recording at `path`; UserError if it cannot be read."""
    return report_of(read_trace(path))


def report_of(trace: Trace) -> Report:
    """Analyse a trace, or a window of one; what is said of the recording is of all of it."""
    entire = trace.entire
    reconciled = Reconciliation().run(entire).scalars
    entire.disagrees, entire.proven = reconciled["agrees"] is False, equal_kinds(reconciled)
    for one in (entire, trace):
        one.computed.clear()  # whether they agree is part of what is known
    results = run_all(trace)
    results["findings"] = check_all(results)
    recording = _recording(entire)
    recording.scalars |= _shown(trace)
    return Report(recording, results)


def _shown(trace: Trace) -> dict[str, Any]:
    """From when to when the results are, in seconds since attach; None: all of the recording."""
    if trace.entire is trace:
        return dict.fromkeys(("since_s", "until_s", "since_at", "until_at"))
    begin_ns, end_ns = trace.begin_ns, trace.end_ns
    return {
        "since_s": trace.seconds(begin_ns),
        "until_s": trace.seconds(end_ns),
        "since_at": trace.wall_clock(begin_ns),
        "until_at": trace.wall_clock(end_ns),
    }


def _recording(trace: Trace) -> Result:
    """What the recording says of itself: how it ended and what is not in it."""
    recording = trace.recording
    scalars = {
        "path": recording.path,
        "tool": trace.header.get("tool"),
        "started_at": trace.wall_clock(trace.begin_ns),
        "ended_at": trace.wall_clock(trace.end_ns),
        "duration_s": trace.seconds(trace.end_ns),
        "complete": recording.complete,
        "means": section(trace.header, "means").get("used"),
        "lost_events": trace.trailer.get("lost_events"),
        "lost_pages": _counted(trace, "lost_pages"),
        "returns_missed": _missed(trace),
        "ring_lost": sum(_counted(trace, "lost").values()),
        "ring_bytes": trace.header.get("ring_bytes"),
        "ended": trace.trailer.get("reason"),
        "truncated": recording.trailer is None,
        "underway": recording.trailer is None and is_underway(trace.header),
        "missing_blocks": recording.missing_blocks,
        "missing_events": _missing_events(trace),
        "damaged_bytes": sum(damage.length for damage in recording.damage),
        "events": len(trace.all_events),
        "open_calls": trace.trailer.get("open_calls"),
        "command": trace.trailer.get("command"),
        "recorder": trace.trailer.get("recorder"),
    }
    return Result("recording", scalars, {"seams": _seams(trace)})


def _missing_events(trace: Trace) -> int | None:
    """Events that the recorder wrote and the file has no more; None if it does not say how many."""
    wrote = trace.trailer.get("events")
    return None if wrote is None else max(0, wrote - len(trace.all_events))


def _counted(trace: Trace, counter: str) -> dict[str, int]:
    """Kind -> one of the trailer's counters, where it is not 0."""
    counters = section(trace.trailer, "counters")
    found = {kind: section(counters, kind).get(counter) for kind in counters}
    return {kind: number for kind, number in found.items() if number}


def _missed(trace: Trace) -> dict[str, int]:
    """Kind -> calls whose return was not seen, by the recorder's word or by what encloses them."""
    counted = _counted(trace, "missed")
    kinds = dict.fromkeys((*counted, *trace.missed))
    return {kind: counted.get(kind, 0) + trace.missed.get(kind, 0) for kind in kinds}


def _seams(trace: Trace) -> list[dict[str, Any]]:
    """How each seam was attached, what that loses, and how many events it gave.

    negotiated: False if what the seam traces needs a feature that was not; later: where it was
    traced otherwise when a driver was attached to again.
    """
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
    return rows


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
