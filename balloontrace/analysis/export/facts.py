# SPDX-License-Identifier: Apache-2.0
"""What a reader of an export must know of the recording: where it comes from, what it lacks."""

from __future__ import annotations

from typing import Any

import numpy as np

from balloontrace.analysis.base import not_recorded
from balloontrace.analysis.export.columns import DECLARED
from balloontrace.analysis.trace.trace import Trace, section
from balloontrace.escape import plain
from balloontrace.events import LOSSES

SCHEMA = 1
"""Version of what exports hold: a changed meaning gets a new number."""


def facts(trace: Trace) -> dict[str, Any]:
    """Facts of the recording, fit to print and for JSON; None = not known.

    Times are CLOCK_MONOTONIC nanoseconds, `clock` holds one reading of both clocks; since_ns,
    until_ns: of the window that is exported, None if all of the recording is;
    traced_by: per kind how its events were traced, and what that way cannot see; not_recorded:
    kinds without a table, with the reason.
    """
    recording = trace.recording
    guest = section(trace.header, "guest")
    counters = section(trace.trailer, "counters")
    lost = {
        kind: sum(int(section(counters, kind).get(way) or 0) for way in LOSSES) for kind in counters
    }
    found: dict[str, Any] = {
        "schema": SCHEMA,
        "tool": trace.header.get("tool"),
        "kernel": guest.get("kernel"),
        "machine": guest.get("machine"),
        "hostname": guest.get("hostname"),
        "boot_id": guest.get("boot_id"),
        "page_size": guest.get("page_size"),
        "clock": section(trace.header, "clock") or None,
        "begin_ns": trace.entire.begin_ns,
        "end_ns": trace.entire.end_ns,
        "since_ns": trace.begin_ns if trace.entire is not trace else None,
        "until_ns": trace.end_ns if trace.entire is not trace else None,
        "complete": recording.complete and not trace.trailer.get("lost_events"),
        "incomplete_because": shortcomings(trace),
        "lost_events": trace.trailer.get("lost_events"),
        "lost_events_by_kind": {kind: number for kind, number in lost.items() if number},
        "traced_by": _rungs(trace),
        "not_recorded": not_recorded(trace, tuple(dict.fromkeys((*kinds_of(trace), *DECLARED)))),
    }
    return {key: plain(value) for key, value in found.items()}


def _rungs(trace: Trace) -> dict[str, dict[str, Any]]:
    """Of each seam that was attached: its rung, and what that loses."""
    seams = {name: section(trace.seams, name) for name in trace.seams}
    return {
        name: {"rung": seam["rung"], "loses": seam.get("loses") or ""}
        for name, seam in seams.items()
        if seam.get("rung") is not None
    }


def shortcomings(trace: Trace) -> list[str]:
    """Why not all that happened is in the recording, in words; empty if it is whole."""
    recording = trace.recording
    lost = trace.trailer.get("lost_events")
    said = []
    if recording.trailer is None:
        said.append(
            "no trailer: the recorder was killed or goes on, how many events it lost is not known"
        )
    if recording.missing_blocks:
        said.append(f"{recording.missing_blocks:,} blocks are missing")
    if recording.damage:
        said.append(f"{sum(d.length for d in recording.damage):,} bytes cannot be read")
    if lost:
        said.append(f"{lost:,} events were lost")
    known = list(section(trace.header, "kinds").values())
    if unknown := int((~np.isin(trace.records["kind"], known)).sum()):
        said.append(f"{unknown:,} events are of kinds that the recording does not name")
    return said


def kinds_of(trace: Trace) -> tuple[str, ...]:
    """The kinds of event the recording's header names, by number."""
    kinds = section(trace.header, "kinds")
    return tuple(sorted(kinds, key=lambda kind: int(kinds[kind])))
