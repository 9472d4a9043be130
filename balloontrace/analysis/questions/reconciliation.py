# SPDX-License-Identifier: Apache-2.0
"""Traced totals against the guest's own count in /proc/vmstat (metrics.md: reconciliation), and
events against the sums that the BPF programs made beside them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from balloontrace.analysis.base import Question, Result, Section, never
from balloontrace.analysis.fields import Field, Shape, Unit
from balloontrace.analysis.trace.columns import Calls
from balloontrace.analysis.trace.counters import moved_of
from balloontrace.analysis.trace.gaps import (
    DEFLATED,
    INFLATED,
    MIGRATED,
    driver_gaps,
    moved_unseen,
    said_unseen,
)
from balloontrace.analysis.trace.kernel_sums import differing
from balloontrace.analysis.trace.trace import Trace, known_pages, section
from balloontrace.events import CHUNK_PAGES

COUNTERS = {
    "inflate": ("fill", INFLATED, "in"),
    "deflate": ("leak", DEFLATED, "out"),
    "migrate": ("migrate", MIGRATED, "migrated"),
}
"""Name -> kind of event, counter in /proc/vmstat (in pages of the kernel), word in sentences."""

_ASKED = ("inflate", "deflate")
"""Without these there is no verdict."""

SAMPLE_SKEW_NS = 100_000_000
"""A sample has one time stamp for several files read one after the other; on a guest that reclaims
hard, under emulation, that takes tens of milliseconds. Only used if the recorder was killed."""


@dataclass(frozen=True)
class Span:
    """A time in which the driver was traced, and the readings of /proc/vmstat that bracket it.

    begin, end: readings {before, after}: between those of `begin` the first traced page moved,
    between those of `end` the last.
    """

    begin_ns: int
    begin: dict[str, Any]
    end_ns: int
    end: dict[str, Any]


@dataclass(frozen=True)
class Window:
    """What is compared: the traced spans; the whole recording, unless the driver went or came.

    sample_ns: None, or the moment of the sample that stands for the readings at detach.
    """

    spans: list[Span]
    sample_ns: int | None = None


class Reconciliation(Question):
    """Whether the traced totals agree with /proc/vmstat, to the page or within a bound.

    Of the whole recording, of which a window is a part: a total that is right to the page leaves
    nothing out in any part of it.
    """

    section = Section(
        "reconciliation",
        "Reconciliation",
        20,
        "traced totals against the guest's own counters in /proc/vmstat, over the traced spans",
        (
            Field(
                "agrees",
                Unit.FLAG,
                "null: could not be compared; where nothing was traced, totals are the guest's own",
            ),
            Field("exact", Unit.FLAG, "to the page; else within bounds"),
            *(Field(f"vmstat_{name}", Unit.PAGES, "as /proc/vmstat counts") for name in COUNTERS),
            *(Field(f"traced_{name}", Unit.PAGES) for name in COUNTERS),
            *(Field(f"lost_{name}", Unit.PAGES, "in events that were lost") for name in COUNTERS),
            *(
                Field(f"bounds_{name}", Unit.PAGES, "[least, most]", shape=Shape.ARRAY)
                for name in COUNTERS
            ),
            *(
                Field(
                    f"untraced_{name}",
                    Unit.PAGES,
                    "[least, most], moved in gaps",
                    shape=Shape.ARRAY,
                )
                for name in COUNTERS
            ),
            Field("until", Unit.TEXT, "what was compared up to", words=("detach", "sample")),
            Field("inexact_because", Unit.TEXT, shape=Shape.ARRAY),
            Field(
                "sums_agree",
                Unit.FLAG,
                "events and losses of every kind, and their pages, are those that the BPF programs"
                " summed up beside them; null: the recording has no such sums",
            ),
            Field("sums_differing", Unit.TEXT, "where they are not", shape=Shape.ARRAY),
            Field("summary", Unit.TEXT, "the same in words"),
        ),
        shown=never,
    )
    optional = ("fill", "leak", "migrate")
    by_counters = True

    def run(self, trace: Trace) -> Result:
        """Pages are balloon pages. `agrees` is None if inflate or deflate could not be compared."""
        of_all = "over the whole recording, " if trace.is_part else ""
        trace = trace.entire
        window = _window(trace)
        rows = {name: _compare(trace, window, name) for name in COUNTERS}
        compared = [row["agrees"] for row in rows.values() if row["agrees"] is not None]
        needed = [rows[name]["agrees"] for name in _ASKED]
        agrees = False if False in compared else None if None in needed else True
        exact = agrees is not None and all(
            row["exact"] for row in rows.values() if row["agrees"] is not None
        )
        scalars: dict[str, Any] = {"agrees": agrees, "exact": exact}
        for key in ("vmstat", "traced", "lost", "bounds", "untraced"):
            scalars |= {f"{key}_{name}": row[key] for name, row in rows.items()}
        scalars["until"] = "detach" if window.sample_ns is None else "sample"
        reasons = _reasons(trace, window)
        scalars["inexact_because"] = reasons
        off = differing(trace)
        scalars |= {"sums_agree": None if off is None else not off, "sums_differing": off or []}
        scalars["summary"] = of_all + _summary(agrees, exact, rows, reasons)
        if trace.counter_interval_s is not None:
            known = moved_of(trace) is not None
            scalars |= {"agrees": known or None, "exact": known}
            scalars["summary"] = _summary_of_counters(trace)
        if agrees is not None and (unseen := said_unseen(trace)):
            scalars["summary"] += f", less {unseen} that moved while the driver was not traced"
        return Result(self.name, scalars)


def equal_kinds(reconciled: dict[str, Any]) -> frozenset[str]:
    """The kinds of event whose pages are those of /proc/vmstat, to the page. reconciled: the
    scalars of a Reconciliation."""
    return frozenset(
        kind
        for name, (kind, _, _) in COUNTERS.items()
        if reconciled[f"traced_{name}"] is not None
        and reconciled[f"bounds_{name}"] is None
        and reconciled[f"traced_{name}"] == reconciled[f"vmstat_{name}"]
    )


def _window(trace: Trace) -> Window:
    """The readings that bracket the traced spans; without a trailer, up to a sample."""
    detach = section(trace.trailer, "vmstat_detach")
    if detach:
        return Window(_spans(trace, trace.end_ns, detach))
    sample = _last_sample(trace)
    until = int(sample.get("t_ns", trace.begin_ns))
    counters = section(sample, "vmstat")
    return Window(_spans(trace, until, {"before": counters, "after": counters}), until)


def _spans(trace: Trace, until_ns: int, last: dict[str, Any]) -> list[Span]:
    """The traced spans up to a moment; `last`: the readings of that moment."""
    gaps = driver_gaps(trace)
    begins = [(trace.begin_ns, section(trace.header, "vmstat_attach"))]
    begins += [(gap.end_ns, gap.found) for gap in gaps if not gap.open]
    ends = [(gap.noticed_ns, gap.left) for gap in gaps if not gap.untraced_before]
    if gaps and gaps[0].absent:
        begins, ends = begins[1:], ends[1:]
    if not (gaps and gaps[-1].open):
        ends.append((until_ns, last))
    return [
        Span(*begin, *(end if end[0] <= until_ns else (until_ns, last)))
        for begin, end in zip(begins, ends, strict=True)
        if begin[0] <= until_ns
    ]


def _last_sample(trace: Trace) -> dict[str, Any]:
    """The regular sample to compare a killed recording with.

    The last one that is followed by an event: had the recorder kept an earlier event back, this
    later one would not be in the file either. Failing that the first sample.
    """
    samples = trace.samples
    if not len(samples):
        return {}
    ends = (trace.calls(kind)["end_ns"] for kind, _, _ in COUNTERS.values())
    last_event = max(int(end.max(initial=0)) for end in ends)
    place = int(np.flatnonzero(samples.time_ns <= last_event)[-1:].sum())
    return {"t_ns": int(samples.time_ns[place]), "vmstat": samples.counters(place)}


def _compare(trace: Trace, window: Window, name: str) -> dict[str, Any]:
    """One counter: its change, what was traced, and between which bounds that must lie."""
    kind, counter, _ = COUNTERS[name]
    unit = trace.pages_per_page
    inner, outer = _changes(window, counter, unit)
    row: dict[str, Any] = {"vmstat": inner, "traced": None, "bounds": None}
    row |= {"exact": False, "agrees": None, "untraced": moved_unseen(trace, counter)}
    row["lost"] = section(section(trace.trailer, "counters"), kind).get("lost_pages")
    if not trace.attached(kind):
        return row
    calls = trace.calls(kind)
    traced = _traced(calls, window.sample_ns) * (unit if kind == "migrate" else 1)
    row["traced"] = traced
    if inner is None or outer is None:
        return row
    row["exact"] = inner == outer and window.sample_ns is None and not _blurred(trace, kind)
    if row["exact"]:
        row["agrees"] = traced == inner
        return row
    below, above = _slack(calls, window, trace.unknown_pages(kind))
    low, high = max(0, inner - below), outer + above
    return row | {"bounds": [low, high], "agrees": low <= traced <= high}


_ENDS = ("before", "after")


def _changes(window: Window, counter: str, unit: int) -> tuple[int | None, int | None]:
    """Balloon pages counted from after attach to before detach, and from before to after, over all
    spans.

    The counters only grow: if the two are equal, nothing moved at either end.
    """
    inner: int | None = 0 if window.spans else None
    outer: int | None = inner
    for span in window.spans:
        attaching, attached = (section(span.begin, at).get(counter) for at in _ENDS)
        detaching, detached = (section(span.end, at).get(counter) for at in _ENDS)
        if inner is None or attached is None or detaching is None:
            return None, None
        inner += (detaching - attached) * unit
        if outer is not None and attaching is not None and detached is not None:
            outer += (detached - attaching) * unit
        else:
            outer = None
    return inner, outer


def _slack(calls: Calls, window: Window, unknown_calls: int) -> tuple[int, int]:
    """How many pages less and more than /proc/vmstat counted may have been traced."""
    spans = len(window.spans)
    below, above = CHUNK_PAGES * (spans + unknown_calls), CHUNK_PAGES * spans
    if window.sample_ns is not None:
        early, now, late = (
            _traced(calls, window.sample_ns + skew) for skew in (-SAMPLE_SKEW_NS, 0, SAMPLE_SKEW_NS)
        )
        below, above = below + late - now, above + now - early
    return below, above


def _traced(calls: Calls, until_ns: int | None) -> int:
    """Pages of all calls, or of those that had returned at a moment."""
    pages = known_pages(calls)
    return int(pages.sum() if until_ns is None else pages[calls["end_ns"] <= until_ns].sum())


def _in_flight(trace: Trace, kind: str) -> bool:
    """Whether a call of this kind was under way when the probes attached or detached."""
    calls = trace.calls(kind)
    counts = section(section(trace.trailer, "counters"), kind)
    if section(trace.header, "underway").get(kind) or counts.get("open"):
        return True
    return bool(calls["open"].any() or trace.marked(calls, "flags", "flags", "partial").any())


def _blurred(trace: Trace, kind: str) -> bool:
    """Whether the traced pages of this kind are themselves not known to the page."""
    return _in_flight(trace, kind) or trace.unknown_pages(kind) > 0


def _reasons(trace: Trace, window: Window) -> list[str]:
    """Why exactness cannot be claimed; empty if it can."""
    counters = [counter for _, counter, _ in COUNTERS.values()]
    kinds = [kind for kind, _, _ in COUNTERS.values()]

    def moved(readings: dict[str, Any]) -> bool:
        before, after = (section(readings, at) for at in _ENDS)
        return any(before.get(counter) != after.get(counter) for counter in counters)

    spans = window.spans
    reasons = {
        "no end was recorded": window.sample_ns is not None,
        "the balloon moved while probes attached": any(moved(span.begin) for span in spans),
        "the balloon moved while probes detached": any(moved(span.end) for span in spans),
        "a call was under way at attach or detach": any(_in_flight(trace, k) for k in kinds),
        "calls moved pages that could not be seen": any(trace.unknown_pages(k) for k in kinds),
    }
    return [reason for reason, applies in reasons.items() if applies]


def _summary(
    agrees: bool | None, exact: bool, rows: dict[str, dict[str, Any]], reasons: list[str]
) -> str:
    """The reconciliation in one sentence."""
    because = f" ({', '.join(reasons)})" if reasons else ""
    if agrees is None:
        whys = [
            f"{COUNTERS[name][2]}: {'not traced' if rows[name]['traced'] is None else 'no vmstat'}"
            for name in _ASKED
            if rows[name]["agrees"] is None
        ]
        return f"traced totals cannot be checked against /proc/vmstat: {', '.join(whys)}{because}"
    compared = {COUNTERS[name][2]: row for name, row in rows.items() if row["agrees"] is not None}
    if agrees and exact:
        pages = [f"{row['traced']:,} {word}" for word, row in compared.items()]
        return f"traced totals equal /proc/vmstat to the page: {', '.join(pages)}"
    lines = [_line(word, row) for word, row in compared.items()]
    verdict = "lie within the bounds of" if agrees else "DISAGREE with"
    return f"traced totals {verdict} /proc/vmstat{because}: {'; '.join(lines)}"


def _summary_of_counters(trace: Trace) -> str:
    """The same where nothing was traced."""
    moved = moved_of(trace)
    if not moved:
        return "nothing was traced, and /proc/vmstat has no counters of this balloon"
    inflated, deflated = int(moved.inflated[-1]), int(moved.deflated[-1])
    return f"nothing was traced; by /proc/vmstat itself {inflated:,} in, {deflated:,} out"


def _line(word: str, row: dict[str, Any]) -> str:
    """One counter in words, where totals are not simply equal."""
    traced, vmstat = row["traced"], row["vmstat"]
    if row["bounds"]:
        low, high = row["bounds"]
        return f"{traced:,} {word}, bounds {low:,} to {high:,}"
    if traced == vmstat:
        return f"{traced:,} {word}, equal"
    off = f"{abs(vmstat - traced):,} {'short of' if traced < vmstat else 'more than'} {vmstat:,}"
    return f"{traced:,} {word}, {off}" + (
        f", {row['lost']:,} in lost events" if row["lost"] else ""
    )
