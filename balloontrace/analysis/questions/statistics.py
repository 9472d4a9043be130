# SPDX-License-Identifier: Apache-2.0
"""The statistics queue: whether the guest answers its host, how late, and with what."""

from __future__ import annotations

from typing import Any

import numpy as np

from balloontrace.analysis.base import Question, Result, Section, not_recorded
from balloontrace.analysis.fields import Field, Table, Unit
from balloontrace.analysis.trace.trace import Trace

NAMES = (
    *("swap-in", "swap-out", "major-faults", "minor-faults", "free-memory", "total-memory"),
    *("available-memory", "disk-caches", "hugetlb-allocations", "hugetlb-failures", "oom-kills"),
    *("alloc-stalls", "async-scans", "direct-scans", "async-reclaims", "direct-reclaims"),
)
"""By tag: VIRTIO_BALLOON_S_NAMES of include/uapi/linux/virtio_balloon.h."""

_BYTES = ("swap-in", "swap-out", "free-memory", "total-memory", "available-memory", "disk-caches")


def _asked(result: Result) -> bool:
    """Whether the host takes an interest in them."""
    return not result.missing and bool(result.scalars["asked"] or result.scalars["answered"])


class Statistics(Question):
    """What the host asked of the guest's memory, and what it was told.

    The host asks with an interrupt; the driver has a worker for the answer, which is one for all
    that were asked before it began (stats_request and update_balloon_stats_func in
    drivers/virtio/virtio_balloon.c).
    """

    section = Section(
        "statistics",
        "Statistics queue",
        125,
        "what the host asked of the guest's memory, and what it was told",
        (
            Field("offered", Unit.FLAG, "by the device; null: not known"),
            Field("asked", Unit.NUMBER, "interrupts of the host", "asked"),
            Field("answered", Unit.NUMBER, title="answered"),
            Field(
                "median_answer_s", Unit.SECONDS, "from interrupt to answer", "median time to answer"
            ),
            Field("longest_answer_s", Unit.SECONDS, "the same", "longest time to answer"),
            Field(
                "unanswered_s",
                Unit.SECONDS,
                "from the first interrupt without an answer to the end; null: all are answered",
                "unanswered at the end for",
            ),
            Field(
                "longest_pause_s",
                Unit.SECONDS,
                "from one interrupt to the next, or to the end: what the host knew was as old",
                "longest time not asked for",
            ),
        ),
        (
            Table(
                "values",
                (
                    Field("name", Unit.TEXT, "of the tag", "value", never_null=True),
                    Field("tag", Unit.NUMBER, never_null=True),
                    Field("first", Unit.NUMBER, "the first time it was sent", "first"),
                    Field("last", Unit.NUMBER, "the last time", "last"),
                    Field("unit", Unit.TEXT, title="unit", words=("bytes", "number")),
                ),
                "values",
            ),
        ),
        shown=_asked,
    )
    optional = ("stats", "stats_ask")

    def run(self, trace: Trace) -> Result:
        """Scalars in seconds; what was sent as it was sent: pages as bytes, counts since boot."""
        if not trace.negotiated("stats"):
            return Result(self.name, {"offered": False}, missing=["stats (not negotiated)"])
        if lacking := not_recorded(trace, ("stats",)):
            return Result(self.name, {"offered": None}, missing=lacking)
        scalars: dict[str, Any] = dict.fromkeys(field.key for field in self.section.fields)
        scalars["offered"] = True
        if doubts := [f"{kind} ({why})" for kind in self.optional if (why := trace.doubt(kind))]:
            # An answer that is lost makes the next one late.
            note = f"how often and when the host was answered is not known: {', '.join(doubts)}"
            return Result(self.name, scalars, {"values": _values(trace)}, notes=[note])
        answers = trace.calls("stats")
        started, is_open = np.asarray(answers["start_ns"]), np.asarray(answers["open"])
        scalars["answered"] = int((~is_open).sum())
        if not not_recorded(trace, ("stats_ask",)):
            asks = np.sort(np.asarray(trace.calls("stats_ask")["start_ns"]))
            ended = np.asarray(answers["end_ns"])
            scalars |= _times(trace, asks, started[~is_open], ended[~is_open])
        return Result(self.name, scalars, {"values": _values(trace)})


def _times(trace: Trace, asks: Any, started: Any, ended: Any) -> dict[str, Any]:
    """What interrupts and answers say together. started, ended: of the answers."""
    order = np.argsort(started)
    started, ended = started[order], ended[order]
    # An answer is one to all that was asked since the one before it began.
    first = np.searchsorted(asks, np.concatenate(([np.iinfo(np.int64).min], started[:-1])), "right")
    after = np.searchsorted(asks, started, "right")
    asked = first < after
    late_s = (ended[asked] - asks[first[asked]]) / 1e9
    left = asks[after[-1] :] if len(after) else asks
    pauses_s = np.diff(asks, append=trace.end_ns) / 1e9
    return {
        "asked": len(asks),
        "median_answer_s": float(np.median(late_s)) if len(late_s) else None,
        "longest_answer_s": float(late_s.max()) if len(late_s) else None,
        "unanswered_s": int(trace.end_ns - left[0]) / 1e9 if len(left) else None,
        "longest_pause_s": float(pauses_s.max()) if len(pauses_s) else None,
    }


def _values(trace: Trace) -> list[dict[str, Any]]:
    """A row for each tag that was sent, in order of tags."""
    found: dict[int, list[int]] = {}
    for sample in trace.recording.samples:
        stats = sample.get("stats")
        if not isinstance(stats, dict) or not trace.contains(int(sample.get("t_ns") or 0)):
            continue
        for tag, value in stats.get("sent") or []:
            found.setdefault(tag, [value, value])[1] = value
    return [
        {
            "name": (name := NAMES[tag] if tag < len(NAMES) else f"tag {tag}"),
            "tag": tag,
            "first": first,
            "last": last,
            "unit": "bytes" if name in _BYTES else "number",
        }
        for tag, (first, last) in sorted(found.items())
    ]
