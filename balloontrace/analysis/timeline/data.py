# SPDX-License-Identifier: Apache-2.0
"""What the pictures of a recording are drawn from: its course over time, in a bounded size.

Not one of the registered analyses: it answers no question that the results do not answer, and has
no place in the JSON. Time is cut into equal bins of a round length. What happened in a bin is
summed, so that sums over the bins equal the totals; a curve keeps first, least, greatest and last
value of each bin with their true times, so that no peak is lost.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from balloontrace.analysis.base import Result, not_recorded
from balloontrace.analysis.timeline.reclaim import reclaim
from balloontrace.analysis.trace.balloon_size import known_curve
from balloontrace.analysis.trace.causes import CAUSE_NAMES, cause_codes
from balloontrace.analysis.trace.counters import moved_of
from balloontrace.analysis.trace.pressure import SHARES
from balloontrace.analysis.trace.samples import UNREAD
from balloontrace.analysis.trace.trace import Ints, Trace, known_pages
from balloontrace.analysis.trace.window import targets_of
from balloontrace.events import UNKNOWN_PAGES

Rows = list[dict[str, Any]]

BINS = 1200
"""At most so many bins: about one for each pixel of a screen."""

MOST_SPANS = 500
"""At most so many spans of a kind, the longest ones."""

MOST_WORDS = 200
"""At most so many marks of people, the first ones."""

MARKS = ("sleep", "oom_notify", "oom_kill")
"""Kinds of event that are drawn as marks."""


class Bins:
    """Equal bins from the begin of the recording, or of a window of it, which reach to its end."""

    def __init__(self, trace: Trace, most: int, span_s: float) -> None:
        """most: greatest number of bins; span_s: shortest time they are made for."""
        span_ns = max(1, trace.end_ns - trace.begin_ns)
        self.length_ns = _round_up(-(-max(span_ns, round(span_s * 1e9)) // most))
        self.number = -(-span_ns // self.length_ns)
        self.begin_ns = trace.begin_ns

    def places(self, time_ns: Ints) -> Ints:
        """The bin of each moment; what stands beyond the end belongs to the last."""
        places: Ints = np.clip((time_ns - self.begin_ns) // self.length_ns, 0, self.number - 1)
        return places

    def sums(self, time_ns: Ints, values: Ints) -> Ints:
        """For each bin the sum of the values whose moments it holds."""
        # Sums of pages stay far below 2**53: no digit is lost on the way.
        sums = np.bincount(self.places(time_ns), weights=values, minlength=self.number)
        return sums.astype(np.int64)

    def thin(self, time_ns: Ints, values: npt.NDArray[Any]) -> Ints:
        """Which points of a curve in order of time to keep: all if they are few, else first,
        least, greatest and last of each bin, or of each part of a bin if most bins are empty."""
        most = 4 * self.number
        if len(time_ns) <= most:
            return np.arange(len(time_ns))
        for parts in (100, 50, 20, 10, 5, 2, 1):
            places = (time_ns - self.begin_ns) // max(1, self.length_ns // parts)
            firsts = np.flatnonzero(np.diff(np.maximum(places, 0), prepend=-1))
            if 4 * len(firsts) <= most:
                break
        kept: set[int] = set()
        for first, until in pairwise([*firsts.tolist(), len(time_ns)]):
            part = values[first:until]
            kept |= {first, until - 1, first + int(part.argmin()), first + int(part.argmax())}
        return np.array(sorted(kept), dtype=np.int64)


def timeline(
    trace: Trace, results: Mapping[str, Result], bins: int = BINS, span_s: float = 0.0
) -> Result:
    """The course of a recording; seconds since attach, balloon pages unless a name says else.

    results: those of the analyses of the same trace; bins: greatest number of bins; span_s: bins
    as long as for a recording of so many seconds, if this one is shorter, to compare the two.
    Scalars: `begin_s`; `end_s`; `bin_s`; `bins`; `size_exact`, None: the size is not known;
    `causes`, those of `flow` that occur; `not_recorded`, part of the picture -> what it lacks.
    Tables: `size` and `target`, step functions (`at_s`, `pages`); `flow`, one row per bin in which
    pages moved (`start_s`, `in`, and one key per cause); `psi` (`start_s`, `end_s`, `some` and
    `full` in percent of that time); `reclaim` (see reclaim.py); `memory` (`at_s`, `free_bytes`,
    `available_bytes`); `marks`, one row per kind and bin (`kind`, `at_s` of the first, `count`,
    `pages`, `busy_s`, `who`);
    `words`, what people said in the guest (`at_s`, `text`); `host_actual`, the balloon as the host
    was told (`at_s`, `pages`), and `host_memory`, of the hypervisor's process (`at_s`,
    `resident_bytes`): empty without the host's view.
    Intervals: `no_progress`, `gaps` (no driver was traced), in order of time.
    """
    cut = Bins(trace, bins, span_s)
    curve = known_curve(trace)
    result = Result("timeline")
    flow, causes = _flow(trace, cut)
    result.scalars = {
        "begin_s": trace.seconds(trace.begin_ns),
        "end_s": trace.seconds(trace.end_ns),
        "bin_s": cut.length_ns / 1e9,
        "bins": cut.number,
        "size_exact": curve.exact if curve else None,
        "causes": causes,
    }
    size: Rows = []
    if curve is not None:
        times = np.concatenate(([trace.begin_ns], curve.time_ns))
        sizes = np.concatenate(([curve.base], curve.size))
        size = _steps(trace, cut, times, sizes)
    psi, memory = _psi(trace, cut), _memory(trace, cut)
    result.tables = {
        "size": size,
        "target": _targets(trace, cut),
        "flow": flow,
        "psi": psi,
        "memory": memory,
        "reclaim": reclaim(trace, cut.number),
        "host_actual": _of_host(trace, cut, "actual", "pages"),
        "host_memory": _of_host(trace, cut, "resident", "resident_bytes"),
        "words": results["marks"].tables.get("marks", [])[:MOST_WORDS],
        "marks": [row for kind in MARKS for row in _marks(trace, cut, kind, results)],
    }
    result.scalars["not_recorded"] = _lacking(trace, result)
    result.notes = _notes(trace, results)
    if (more := len(results["marks"].tables.get("marks", [])) - MOST_WORDS) > 0:
        result.notes.append(f"the last {more:,} marks are not in the picture")
    _spans(result, results)
    return result


def _round_up(length_ns: int) -> int:
    """The next length of the series 1, 2, 5, 10, 20, ... nanoseconds."""
    power = int("1" + "0" * (len(str(length_ns)) - 1))
    return next(step * power for step in (1, 2, 5, 10) if step * power >= length_ns)


def _steps(trace: Trace, cut: Bins, time_ns: Ints, pages: Ints) -> Rows:
    """A step function up to the recording's end, thinned."""
    kept = cut.thin(time_ns, pages)
    ends = max(trace.end_ns, int(time_ns[-1]))
    times = [*_seconds(trace, time_ns[kept]), trace.seconds(ends)]
    values = [*pages[kept].tolist(), int(pages[-1])]
    return [
        {"at_s": at_s, "pages": None if value == UNKNOWN_PAGES else value}
        for at_s, value in zip(times, values, strict=True)
    ]


def _targets(trace: Trace, cut: Bins) -> Rows:
    """The target from the first one on that was read; pages None: it could not be seen."""
    time_ns, asked = targets_of(trace)
    return _steps(trace, cut, time_ns, asked) if len(time_ns) else []


def _flow(trace: Trace, cut: Bins) -> tuple[Rows, list[str]]:
    """Pages in and out per bin, at the end of each call; and the causes that occur."""
    fills, leaks = trace.calls("fill"), trace.calls("leak")
    columns = {"in": cut.sums(fills["end_ns"], known_pages(fills))}
    if trace.counter_interval_s is not None and (counted := moved_of(trace)):
        columns["in"] = cut.sums(counted.time_ns[1:], np.diff(counted.inflated))
        columns["unknown"] = cut.sums(counted.time_ns[1:], np.diff(counted.deflated))
    codes, ends, pages = cause_codes(trace, leaks), leaks["end_ns"], known_pages(leaks)
    for code in np.unique(codes[pages > 0]).tolist():
        mine = codes == code
        columns[CAUSE_NAMES[code]] = cut.sums(ends[mine], pages[mine])
    moved = np.flatnonzero(np.sum(list(columns.values()), axis=0))
    values = (column[moved].tolist() for column in columns.values())
    starts = (trace.seconds(cut.begin_ns) + moved * cut.length_ns / 1e9).tolist()
    rows = [
        {"start_s": start_s, **dict(zip(columns, row, strict=True))}
        for start_s, row in zip(starts, zip(*values, strict=True), strict=True)
    ]
    return rows, [name for name in columns if name != "in"]


def _psi(trace: Trace, cut: Bins) -> Rows:
    """Memory pressure between samples, from the kernel's totals: exact over each row's time."""
    names = [f"{share}_us" for share in SHARES]
    some, full = (trace.samples.column("memory", name) for name in names)
    table = np.column_stack((trace.samples.time_ns, some, full))[some != UNREAD]
    # The differences of totals are as exact over several intervals as over one.
    read = table[:: max(1, -(-len(table) // cut.number))].tolist()
    rows = []
    for (start_ns, *before), (end_ns, *after) in pairwise(read):
        if end_ns > start_ns:
            span_us = (end_ns - start_ns) / 1e3
            shares = (_share(*pair, span_us) for pair in zip(before, after, strict=True))
            start_s, end_s = trace.seconds(start_ns), trace.seconds(end_ns)
            row: dict[str, Any] = {"start_s": start_s, "end_s": end_s}
            rows.append(row | dict(zip(SHARES, shares, strict=True)))
    return rows


def _share(before: int, after: int, span_us: float) -> float | None:
    """Percent of a span; None if not known."""
    if UNREAD in (before, after) or after < before:
        return None
    # A sample is read some time after its time stamp, so that a full second can come out longer.
    return min(100.0, (after - before) / span_us * 100)


def _memory(trace: Trace, cut: Bins) -> Rows:
    """Free and available memory in the samples, thinned by the free one."""
    free, available = (
        trace.samples.column("meminfo", name) for name in ("MemFree", "MemAvailable")
    )
    table = np.column_stack((trace.samples.time_ns, free, available))[free != UNREAD]
    kept = cut.thin(table[:, 0], table[:, 1])
    return [
        {
            "at_s": trace.seconds(at_ns),
            "free_bytes": free_bytes,
            "available_bytes": None if available_bytes == UNREAD else available_bytes,
        }
        for at_ns, free_bytes, available_bytes in table[kept].tolist()
    ]


def _of_host(trace: Trace, cut: Bins, name: str, key: str) -> Rows:
    """A series of the host's view, by the guest's clock, thinned. name: of HostView; key: of its
    values."""
    view = trace.entire.host
    if view is None:
        return []
    time_ns, values = view.by_guests_clock(trace, getattr(view, name))
    kept = cut.thin(time_ns, values)
    rows = zip(_seconds(trace, time_ns[kept]), values[kept].tolist(), strict=True)
    return [{"at_s": at_s, key: value} for at_s, value in rows]


def _marks(trace: Trace, cut: Bins, kind: str, results: Mapping[str, Result]) -> Rows:
    """The events of a kind, those of one bin in one row.

    busy_s: time in the calls; pages: what they gave back; who: the victim, if it is one.
    """
    calls = trace.events(kind).sort_values("start_ns", kind="stable")
    if kind == "sleep":
        calls = calls[~_inside(calls, trace.events("reclaim"))]
    starts = calls["start_ns"].to_numpy()
    places = cut.places(starts)
    first = np.flatnonzero(np.diff(places, prepend=-1))
    counts = np.diff(first, append=len(places))
    pages: list[int | None] = [None] * len(first)
    if kind == "oom_notify" and len(first):
        pages = (np.add.reduceat(known_pages(calls), first) * trace.pages_per_page).tolist()
    busy = np.add.reduceat(calls["duration_ns"].to_numpy(), first) if len(first) else first
    victims: Rows = results["oom"].tables.get("kills", []) if kind == "oom_kill" else []
    return [
        {
            "kind": kind,
            "at_s": at_s,
            "count": count,
            "pages": freed,
            "busy_s": busy_ns / 1e9,
            "who": victims[place]["victim"] if count == 1 and place < len(victims) else None,
        }
        for at_s, count, freed, busy_ns, place in zip(
            _seconds(trace, starts[first]),
            counts.tolist(),
            pages,
            busy.tolist(),
            first.tolist(),
            strict=True,
        )
    ]


def _inside(calls: pd.DataFrame, outer: pd.DataFrame) -> npt.NDArray[np.bool_]:
    """Which calls began within one of `outer`, which do not overlap: reclaim sleeps too, and such a
    sleep is not the driver's."""
    ordered = outer.sort_values("start_ns", kind="stable")
    starts, ends = ordered["start_ns"].to_numpy(), ordered["end_ns"].to_numpy()
    moments = calls["start_ns"].to_numpy()
    place = np.searchsorted(starts, moments, side="right") - 1
    inside = np.zeros(len(calls), dtype=bool)
    after = place >= 0
    inside[after] = moments[after] < ends[place[after]]
    return inside


def _spans(result: Result, results: Mapping[str, Result]) -> None:
    """Set the spans that are drawn; a note says how many are not."""
    gaps = results["driver"].tables.get("gaps", [])
    whole = {
        "no_progress": results["episodes"].intervals.get("no_progress", []),
        "gaps": [{key: gap[key] for key in ("start_s", "end_s", "open")} for gap in gaps],
    }
    for name, spans in whole.items():
        longest = sorted(spans, key=lambda span: float(span["start_s"] - span["end_s"]))
        kept = longest[:MOST_SPANS]
        result.intervals[name] = sorted(kept, key=lambda span: float(span["start_s"]))
        if hidden := len(spans) - len(kept):
            said = name.replace("_", "-")
            result.notes.append(f"the {hidden:,} shortest spans of {said} are not in the picture")


def _lacking(trace: Trace, result: Result) -> dict[str, str]:
    """Which parts of the picture have no data because it was not recorded, and why."""
    needs = {"size": ("fill", "leak"), "target": ("target",), "flow": ("fill", "leak")}
    needs |= {kind: (kind,) for kind in MARKS}
    if trace.counter_interval_s is not None:
        needs |= {"size": (), "flow": ()}
    lacking = {part: not_recorded(trace, kinds) for part, kinds in needs.items()}
    if result.scalars["size_exact"] is None and not lacking["size"]:
        lacking["size"] = ["the balloon's size at the start"]
    for part in ("psi", "memory"):
        if not result.tables[part]:
            lacking[part] = [f"{part} of at least two samples" if part == "psi" else "samples"]
    return {part: ", ".join(whys) for part, whys in lacking.items() if whys}


def _notes(trace: Trace, results: Mapping[str, Result]) -> list[str]:
    """What the picture cannot show."""
    notes = []
    if lost := trace.trailer.get("lost_events"):
        notes.append(f"{lost:,} events were lost: what they moved is not in the picture")
    if trace.recording.trailer is None:
        notes.append("no end was recorded: the picture ends with the last thing that was written")
    elif not trace.recording.complete:
        notes.append("parts of the recording cannot be read: what they held is not in the picture")
    return notes + results["totals"].notes


def _seconds(trace: Trace, time_ns: Ints) -> list[float]:
    """Seconds since attach."""
    seconds: list[float] = ((time_ns - trace.entire.begin_ns) / 1e9).tolist()
    return seconds
