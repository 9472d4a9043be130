# SPDX-License-Identifier: Apache-2.0
"""What the recording says of itself: how it ended, and what is not in it."""

from __future__ import annotations

from typing import Any

from balloontrace.analysis.base import Question, Result, Section
from balloontrace.analysis.fields import Field, Shape, Unit
from balloontrace.analysis.trace.sample_gaps import sample_gaps
from balloontrace.analysis.trace.trace import Trace, section
from balloontrace.analysis.trace.underway import is_underway

_COMMAND = (
    Field("argv", Unit.TEXT, shape=Shape.ARRAY),
    Field(
        "status",
        Unit.NUMBER,
        "its exit status; negative: the signal that ended it; null: it could not be ended",
    ),
)


class Recording(Question):
    """Facts of the file, which stand at the top of the report and of the JSON's object."""

    section = Section(
        "recording",
        "Recording",
        0,
        "the recording itself: how it ended, and what is not in it",
        (
            Field("path", Unit.TEXT, never_null=True),
            Field("tool", Unit.TEXT, "which balloontrace recorded it"),
            Field("started_at", Unit.CLOCK, "the guest's, at 0 s; null: not recorded"),
            Field("ended_at", Unit.CLOCK),
            Field("duration_s", Unit.SECONDS, never_null=True),
            Field("complete", Unit.FLAG, "it has its end, and nothing of it is damaged"),
            Field("means", Unit.TEXT, "how it was traced: kprobe.multi, fentry, kprobe"),
            Field(
                "counter_interval_s",
                Unit.SECONDS,
                "nothing was traced, but the guest's counters read so often; null: it was traced",
            ),
            Field("lost_events", Unit.NUMBER, "null: there is no trailer to say so"),
            Field("lost_pages", Unit.PAGES, "of those, by kind", shape=Shape.NAMED),
            Field("returns_missed", Unit.NUMBER, "calls without a duration", shape=Shape.NAMED),
            Field("ring_lost", Unit.NUMBER, "events lost because the ring was full"),
            Field("ring_bytes", Unit.BYTES),
            Field("ended", Unit.TEXT, "why"),
            Field(
                "kept_for",
                (
                    Field("finding", Unit.TEXT, "asked: somebody asked for it"),
                    Field("at_s", Unit.MOMENT, "when it fired"),
                ),
                "what made `watch` keep it; the full analysis may find otherwise",
                shape=Shape.ARRAY,
            ),
            Field("truncated", Unit.FLAG, "there is no trailer"),
            Field("underway", Unit.FLAG, "its recorder still runs, on this machine"),
            Field("missing_blocks", Unit.NUMBER, "of the file"),
            Field("missing_events", Unit.NUMBER, "the recorder wrote them, the file lacks them"),
            Field("left_out", Unit.NUMBER, "of those: the stream's reader was too slow for them"),
            Field("damaged_bytes", Unit.BYTES),
            Field("events", Unit.NUMBER),
            Field("open_calls", Unit.NUMBER, "still under way when it ended"),
            Field("command", _COMMAND, "that was recorded"),
            Field(
                "sample_gaps",
                (
                    Field("number", Unit.NUMBER, "of times without a sample"),
                    Field("total_s", Unit.SECONDS),
                    Field("longest_s", Unit.SECONDS),
                    Field("longest_at_s", Unit.MOMENT),
                    Field("longest_silent", Unit.FLAG, "no event in that either"),
                ),
                "the guest's clock went on and the recorder did not run, 5 s or more; not while "
                "the guest was suspended; null: not known",
            ),
            Field(
                "stolen_share",
                Unit.SHARE,
                "of its CPUs' time, in which the host ran something else (steal); null: not known",
            ),
            Field("since_s", Unit.MOMENT, "begin of the window that is shown; null: all is"),
            Field("until_s", Unit.MOMENT, "its end"),
            *(Field("since_at", Unit.CLOCK), Field("until_at", Unit.CLOCK)),
        ),
        head=True,
        inline=True,
    )

    def run(self, trace: Trace) -> Result:
        """Scalars only, of the whole recording also where a window of it is shown; None: the
        recording does not say."""
        shown, trace = _shown(trace), trace.entire
        recording = trace.recording
        return Result(
            self.name,
            {
                "path": recording.path,
                "tool": trace.header.get("tool"),
                "started_at": trace.wall_clock(trace.begin_ns),
                "ended_at": trace.wall_clock(trace.end_ns),
                "duration_s": trace.seconds(trace.end_ns),
                "complete": recording.complete,
                "means": section(trace.header, "means").get("used"),
                "counter_interval_s": trace.counter_interval_s,
                "lost_events": trace.trailer.get("lost_events"),
                "lost_pages": _counted(trace, "lost_pages"),
                "returns_missed": _missed(trace),
                "ring_lost": sum(_counted(trace, "lost").values()),
                "ring_bytes": trace.header.get("ring_bytes"),
                "ended": trace.trailer.get("reason"),
                "kept_for": _kept_for(trace),
                "truncated": recording.trailer is None,
                "underway": recording.trailer is None and is_underway(trace.header),
                "missing_blocks": recording.missing_blocks,
                "missing_events": _missing_events(trace),
                "left_out": trace.trailer.get("left_out", 0) if trace.trailer else None,
                "damaged_bytes": sum(damage.length for damage in recording.damage),
                "events": len(trace.all_events),
                "open_calls": trace.trailer.get("open_calls"),
                "command": trace.trailer.get("command"),
                "sample_gaps": _sample_gaps(trace),
                "stolen_share": _stolen_share(trace),
                **shown,
            },
        )


def _kept_for(trace: Trace) -> list[dict[str, Any]]:
    fired = section(trace.header, "watch").get("fired") or []
    return [
        {"finding": one["finding"], "at_s": trace.seconds(one["t_ns"])}
        for one in fired
        if "finding" in one and "t_ns" in one
    ]


def _stolen_share(trace: Trace) -> float | None:
    """Of the time of all CPUs; None: not recorded, or a host whose steal is more than that."""
    stolen_ns, cpus = trace.trailer.get("stolen_ns"), section(trace.header, "guest").get("cpus")
    if stolen_ns is None or not cpus or trace.end_ns <= trace.begin_ns:
        return None
    share = int(stolen_ns) / (int(cpus) * (trace.end_ns - trace.begin_ns))
    return share if 0 <= share <= 1 else None


def _shown(trace: Trace) -> dict[str, Any]:
    """From when to when the report is; None: all of the recording."""
    if trace.entire is trace:
        return dict.fromkeys(("since_s", "until_s", "since_at", "until_at"))
    begin_ns, end_ns = trace.begin_ns, trace.end_ns
    return {
        "since_s": trace.seconds(begin_ns),
        "until_s": trace.seconds(end_ns),
        "since_at": trace.wall_clock(begin_ns),
        "until_at": trace.wall_clock(end_ns),
    }


def _sample_gaps(trace: Trace) -> dict[str, Any] | None:
    """Times in which the recorder was not run (sample_gaps.py)."""
    gaps = sample_gaps(trace)
    if gaps is None:
        return None
    content = {"number": gaps.number, "total_s": gaps.total_ns / 1e9}
    if gaps.longest is None:
        return content | dict.fromkeys(("longest_s", "longest_at_s", "longest_silent"))
    start_ns, end_ns = gaps.longest
    return {
        **content,
        "longest_s": (end_ns - start_ns) / 1e9,
        "longest_at_s": trace.seconds(start_ns),
        "longest_silent": gaps.silent,
    }


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
