# SPDX-License-Identifier: Apache-2.0
"""The events against what the BPF programs summed up beside them: a second witness of whether all
that was traced is in the file, for every kind of event, and not only for what /proc/vmstat counts.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from balloontrace.analysis.trace.causes import CAUSE_NAMES, cause_codes
from balloontrace.analysis.trace.columns import Calls
from balloontrace.analysis.trace.trace import Bools, Trace, known_pages, section
from balloontrace.events import KINDS, QUEUES

_PAGED = frozenset(kind.name for kind in KINDS if kind.moves_pages)


@dataclass(frozen=True)
class Told:
    """Calls, and balloon pages that they moved. missed: those of the calls whose return was missed;
    the sums have some of them, for others are found only when the recording ends."""

    calls: int = 0
    missed: int = 0
    pages: int = 0

    def __add__(self, other: Told) -> Told:
        return Told(self.calls + other.calls, self.missed + other.missed, self.pages + other.pages)


def differing(trace: Trace) -> list[str] | None:
    """Where the sums are not those of the events and of what was lost, a line for each kind of
    event, cause of leaks and queue of acks; None: the recording has no sums.

    Of the whole recording; a part of it has no sums of its own.
    """
    trace = trace.entire
    sums = trace.trailer.get("sums")
    if not isinstance(sums, dict):
        return None
    known = {kind.name for kind in KINDS}
    kinds = [kind for kind in section(trace.header, "kinds") if kind in known]
    return [line for kind in kinds for line in _of_kind(trace, sums, kind)]


def _of_kind(trace: Trace, sums: dict[str, Any], kind: str) -> list[str]:
    """The lines of one kind. What was lost of it may be of any of its rows."""
    counts = section(section(trace.trailer, "counters"), kind)
    lost = Told(int(counts.get("lost") or 0), 0, int(counts.get("lost_pages") or 0))
    told = {f"{kind} {detail}".rstrip(): one for detail, one in _told(trace, kind).items()}
    summed = {name: _summed(section(sums, name)) for name in told}
    lines = [
        _line(name, summed[name], told[name])
        for name in told
        if not _fits(summed[name], told[name], Told(), lost)
    ]
    all_summed, all_told = sum(summed.values(), Told()), sum(told.values(), Told())
    if not lines and not _fits(all_summed, all_told, lost, lost):
        lines.append(_line(kind, all_summed, all_told + lost))
    return lines


def _told(trace: Trace, kind: str) -> dict[str, Told]:
    """What the events of one kind tell of: by cause of a leak, queue of an ack, or ''."""
    calls = trace.calls(kind)
    returned = ~calls["open"]
    missed = trace.marked(calls, "flags", "flags", "missed")
    pages = known_pages(calls) if kind in _PAGED else np.zeros(len(calls), np.int64)
    return {
        detail: Told(
            int((of & returned).sum()), int((of & missed).sum()), int(pages[of & returned].sum())
        )
        for detail, of in _details(trace, kind, calls).items()
    }


def _details(trace: Trace, kind: str, calls: Calls) -> dict[str, Bools]:
    """Which calls are of which row of the sums."""
    if kind == "leak":
        codes = cause_codes(trace, calls)
        return {cause: codes == code for code, cause in enumerate(CAUSE_NAMES)}
    if kind == "ack":
        queues = np.asarray(calls["queue"])
        return {queue.name: queues == trace.number("queues", queue.name) for queue in QUEUES[1:]}
    return {"": np.ones(len(calls), bool)}


def _summed(row: dict[str, Any]) -> Told:
    return Told(int(row.get("calls") or 0), 0, int(row.get("done") or 0))


def _fits(summed: Told, told: Told, least_lost: Told, most_lost: Told) -> bool:
    """Whether the sum is that of the events and of what was lost, between these two."""
    calls = (
        told.calls - told.missed + least_lost.calls <= summed.calls <= told.calls + most_lost.calls
    )
    if told.missed:  # nor is it known whether their pages were summed up
        return calls
    pages = told.pages + least_lost.pages <= summed.pages <= told.pages + most_lost.pages
    return calls and pages


def _line(name: str, summed: Told, told: Told) -> str:
    if summed.calls == told.calls:
        return f"{name}: {summed.pages:,} pages summed up, {told.pages:,} in events"
    return f"{name}: {summed.calls:,} calls summed up, {told.calls:,} in events"
