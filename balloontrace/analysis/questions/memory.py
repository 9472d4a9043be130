# SPDX-License-Identifier: Apache-2.0
"""The guest's memory beside its balloon, from samples alone: how much it has, how much of that the
balloon holds, what was left, and what the lack of it cost."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from balloontrace.analysis.base import Question, Result, Section, answered
from balloontrace.analysis.fields import Field, Table, Unit
from balloontrace.analysis.trace.balloon_size import known_curve
from balloontrace.analysis.trace.minutes import Growth, Minutes
from balloontrace.analysis.trace.sampled_size import Ram, ram_of, sampled_size
from balloontrace.analysis.trace.samples import UNREAD
from balloontrace.analysis.trace.starvation import Starved, starved
from balloontrace.analysis.trace.trace import Ints, Trace, section
from balloontrace.events import BALLOON_PAGE_BYTES
from balloontrace.thresholds import AVAILABLE_SHARE, HELD_SHARE

RATES = {
    "file refaults": ("workingset_refault_file", "workingset_refault"),
    "anonymous refaults": ("workingset_refault_anon",),
    "major faults": ("pgmajfault",),
    "allocation stalls": ("allocstall",),
    "swapped in": ("pswpin",),
    "swapped out": ("pswpout",),
    "scanned": ("pgscan",),
    "reclaimed": ("pgsteal",),
}
"""What -> columns of /proc/vmstat, the first that the kernel has: before v5.9 it did not tell
refaults of files from others."""

BEFORE_KILL_NS = 5_000_000_000
"""A sample can be taken when the victim's memory is free already, and its kill not counted yet."""

MOST_KILLS = 1000
"""Rows of kills: a guest that kills all day has no more to tell."""

NEVER = "2"
OVERCOMMIT = {"0": "heuristic", "1": "always", NEVER: "never beyond CommitLimit"}
"""vm.overcommit_memory (Documentation/mm/overcommit-accounting.rst)."""

_CPU = ("kswapd", "kcompactd", "kworker")

_STARVED = (
    Field("start_s", Unit.MOMENT, title="from s"),
    Field("end_s", Unit.MOMENT, title="to s"),
    Field("balloon_pages", Unit.PAGES, "held at least", "in the balloon"),
    Field("available_bytes", Unit.BYTES, "median of MemAvailable", "available"),
    Field("ram_bytes", Unit.BYTES, "RAM at its end"),
    Field("psi_some_share", Unit.SHARE, title="PSI some"),
    Field("psi_full_share", Unit.SHARE, title="PSI full"),
    Field("file_refaults_per_s", Unit.PER_S, title="file\nrefaults/s"),
    Field("anon_refaults_per_s", Unit.PER_S),
    Field("major_faults_per_s", Unit.PER_S, title="major\nfaults/s"),
    Field("stalls_per_s", Unit.PER_S, title="stalls/s"),
    Field("swapped_in_per_s", Unit.PER_S, title="swapped\nin/s"),
)


class Memory(Question):
    """RAM, the balloon's share of it, what was available, and the kernel's totals of reclaim."""

    section = Section(
        "memory",
        "Memory",
        6,
        "the guest's memory beside its balloon, from samples",
        (
            Field("ram_bytes", Unit.BYTES, "MemTotal, plus the balloon where the driver lowers it"),
            Field("total_lowered", Unit.FLAG, "MemTotal lacks what the balloon holds"),
            Field(
                "commit_limit_lowered",
                Unit.FLAG,
                "CommitLimit counts, and lacks a share of what the balloon holds",
            ),
            Field("size_begin_pages", Unit.PAGES),
            Field("size_end_pages", Unit.PAGES),
            Field("size_most_pages", Unit.PAGES),
            Field("size_most_share", Unit.SHARE, "of RAM"),
            Field("kernel_size_pages", Unit.PAGES, "nr_balloon_pages in the last sample"),
            Field("kernel_size_difference_pages", Unit.PAGES, "that less our size then"),
            Field("available_least_bytes", Unit.BYTES, "MemAvailable"),
            Field("available_least_share", Unit.SHARE, "of RAM then"),
            Field("available_least_at_s", Unit.MOMENT),
            Field("available_median_bytes", Unit.BYTES),
            Field("psi_some_share", Unit.SHARE, "of the time some task stalled for memory"),
            Field("psi_full_share", Unit.SHARE, "of the time all did"),
            Field("psi_some_worst_share", Unit.SHARE, "in the worst minute"),
            Field("psi_full_worst_share", Unit.SHARE, "in the worst minute"),
            Field("committed_most_bytes", Unit.BYTES, "Committed_AS when its share was largest"),
            Field("commit_limit_bytes", Unit.BYTES, "CommitLimit then"),
            Field("committed_most_share", Unit.SHARE, "of CommitLimit"),
            Field(
                "overcommit", Unit.TEXT, "vm.overcommit_memory", words=tuple(OVERCOMMIT.values())
            ),
            *(Field(f"{name}_cpu_share", Unit.SHARE, "of one CPU") for name in _CPU),
            Field("inflation_swapped_out", Unit.NUMBER, "guest pages, while the balloon grew"),
            Field("inflation_swapped_in", Unit.NUMBER, "guest pages, from the first of those on"),
            Field("inflation_swap_from_s", Unit.MOMENT, "the sample before the first of those"),
            Field("inflation_swap_until_s", Unit.MOMENT, "the sample after the last"),
            Field(
                "oom_kills", Unit.NUMBER, "by /proc/vmstat, else those traced; memory cgroups' too"
            ),
            Field("starved_s", Unit.SECONDS, "in all of `starved`"),
            Field("floor_bytes", Unit.BYTES, "MemAvailable that a host should leave"),
        ),
        (
            Table(
                "rates",
                (
                    Field("what", Unit.TEXT, words=tuple(RATES), title="of the kernel's counters"),
                    Field("total", Unit.NUMBER, "guest pages or events", "in all"),
                    Field("per_s", Unit.PER_S, title="per s"),
                    Field("worst_per_s", Unit.PER_S, title="in the worst minute"),
                    Field("worst_start_s", Unit.MOMENT, title="from s"),
                    Field("worst_end_s", Unit.MOMENT),
                ),
                "counters",
                "over the recording, and in the minute in which it was most",
            ),
            Table(
                "ram_changes",
                (
                    Field("at_s", Unit.MOMENT, title="at s"),
                    Field("ram_bytes", Unit.BYTES, "from then on", "RAM"),
                ),
                "changes of RAM",
                "plugged and unplugged memory",
            ),
            Table(
                "starved",
                _STARVED,
                "stretches",
                "the balloon stood still, and tasks waited for memory that reclaim took from them",
            ),
            Table(
                "kills",
                (
                    Field("start_s", Unit.MOMENT, "the sample before", "after s"),
                    Field("end_s", Unit.MOMENT, "the sample that counted it", "until s"),
                    Field("kills", Unit.NUMBER, title="kills"),
                    Field("balloon_pages", Unit.PAGES, "before", "in the balloon"),
                    Field("available_bytes", Unit.BYTES, "least in the 5 s before", "available"),
                ),
                "samples with kills",
                "OOM kills as /proc/vmstat counts them, the first 1,000",
            ),
        ),
        first_screen=answered,
    )
    by_counters = True

    def run(self, trace: Trace) -> Result:
        """Sizes in balloon pages and bytes, counts in pages of the guest; None: not recorded."""
        minutes = Minutes(trace.samples)
        sizes = sampled_size(trace, minutes)
        ram = ram_of(trace, minutes, sizes)
        size = _size(trace, minutes, sizes, ram)
        stretches = _stretches(minutes, sizes, ram, size["size_most_share"])
        scalars: dict[str, Any] = {
            "ram_bytes": ram.first if ram else None,
            "total_lowered": ram.lowered if ram else None,
            **size,
            **_available(trace, minutes, ram),
            **_pressure(minutes),
            **_commit(minutes),
            **_overcommit(trace, ram),
            **_cpu(trace),
            **_swap(trace, minutes, sizes),
            "starved_s": _total_s(stretches),
            "floor_bytes": int(ram.last * AVAILABLE_SHARE) if ram else None,
        }
        kills, counted = _kills(trace, minutes, sizes) or ([], None)
        scalars["oom_kills"] = _killed(trace, counted)
        changes = ram.changes if ram else ()
        tables = {
            "rates": [row for what in RATES if (row := _rate(trace, minutes, what))],
            "ram_changes": [
                {"at_s": trace.seconds(change.at_ns), "ram_bytes": change.ram} for change in changes
            ],
            "starved": [_starved_row(trace, one) for one in stretches or []],
            "kills": kills,
        }
        return Result(self.name, scalars, tables)


def _overcommit(trace: Trace, ram: Ram | None) -> dict[str, Any]:
    """How the kernel treats CommitLimit, and whether the balloon lowers that."""
    mode = section(trace.header, "guest").get("overcommit_memory")
    never, lowered = (None if mode is None else mode == NEVER), ram.lowered if ram else None
    both = False if False in (never, lowered) else None if None in (never, lowered) else True
    return {"overcommit": OVERCOMMIT.get(str(mode)), "commit_limit_lowered": both}


def _size(trace: Trace, minutes: Minutes, sizes: Ints, ram: Ram | None) -> dict[str, Any]:
    """Balloon pages at the begin, the end and at most; the kernel's count in the last sample."""
    curve = known_curve(trace)
    known = sizes[sizes != UNREAD] if curve is None else np.append(curve.base, curve.size)
    begin, end, most = (
        (int(known[0]), int(known[-1]), int(known.max())) if len(known) else (None, None, None)
    )
    held = minutes.column("vmstat", "nr_balloon_pages")
    both = np.flatnonzero((held != UNREAD) & (sizes != UNREAD))
    last = int(both[-1]) if len(both) else None
    counted = None if last is None else int(held[last]) * trace.pages_per_page
    return {
        "size_begin_pages": begin,
        "size_end_pages": end,
        "size_most_pages": most,
        "size_most_share": _most_share(trace, minutes, sizes, ram, most),
        "kernel_size_pages": counted,
        "kernel_size_difference_pages": None
        if counted is None or last is None
        else counted - int(sizes[last]),
    }


def _most_share(
    trace: Trace, minutes: Minutes, sizes: Ints, ram: Ram | None, most: int | None
) -> float | None:
    """Of RAM as it was then, at most. most: pages."""
    if not ram or most is None:
        return None
    if not ram.changes:
        return most * BALLOON_PAGE_BYTES / ram.first
    times, pages = minutes.time_ns[sizes != UNREAD], sizes[sizes != UNREAD]
    if curve := known_curve(trace):
        times = np.concatenate((times, [trace.begin_ns], curve.time_ns))
        pages = np.concatenate((pages, [curve.base], curve.size))
    return float((pages * BALLOON_PAGE_BYTES / ram.at(times)).max())


def _stretches(
    minutes: Minutes, sizes: Ints, ram: Ram | None, share: float | None
) -> list[Starved] | None:
    """See starvation.py; None: not known. None of a balloon that is too small, whatever else."""
    if share is not None and share < HELD_SHARE:
        return []
    return starved(minutes, sizes, ram.at(minutes.time_ns)) if ram else None


def _available(trace: Trace, minutes: Minutes, ram: Ram | None) -> dict[str, Any]:
    left = minutes.only(minutes.having(("meminfo", "MemAvailable")))
    available = left.column("meminfo", "MemAvailable")
    if not len(available):
        keys = ("least_bytes", "least_share", "least_at_s", "median_bytes")
        return dict.fromkeys(f"available_{key}" for key in keys)
    least = int(available.argmin())
    return {
        "available_least_bytes": int(available[least]),
        "available_least_share": float((available / ram.at(left.time_ns)).min()) if ram else None,
        "available_least_at_s": trace.seconds(left.time_ns[least]),
        "available_median_bytes": int(np.median(available)),
    }


def _pressure(minutes: Minutes) -> dict[str, Any]:
    """Shares of the time; a sample is read some time after its time stamp, so that they can come
    out above 1."""
    found: dict[str, Any] = {}
    for share in ("some", "full"):
        grown = minutes.growth("memory", f"{share}_us")
        found[f"psi_{share}_share"] = min(1.0, grown.per_s / 1e6) if grown else None
        found[f"psi_{share}_worst_share"] = min(1.0, grown.worst_per_s / 1e6) if grown else None
    return found


def _commit(minutes: Minutes) -> dict[str, Any]:
    """When committed memory was the largest share of its limit, which a balloon lowers where it
    lowers MemTotal."""
    columns = (("meminfo", "Committed_AS"), ("meminfo", "CommitLimit"))
    told = minutes.only(minutes.having(*columns))
    committed, limit = (told.column(*column) for column in columns)
    if not len(committed):
        return dict.fromkeys(("committed_most_bytes", "commit_limit_bytes", "committed_most_share"))
    shares = committed / np.maximum(1, limit)
    most = int(shares.argmax())
    return {
        "committed_most_bytes": int(committed[most]),
        "commit_limit_bytes": int(limit[most]),
        "committed_most_share": float(shares[most]),
    }


def _cpu(trace: Trace) -> dict[str, Any]:
    """Of the whole recording, where it was recorded (`record --counters`)."""
    used = section(trace.trailer, "cpu")
    span_ns = max(1, trace.entire.end_ns - trace.entire.begin_ns)
    return {
        f"{name}_cpu_share": used[f"{name}_ns"] / span_ns if f"{name}_ns" in used else None
        for name in _CPU
    }


def _swap(trace: Trace, minutes: Minutes, sizes: Ints) -> dict[str, Any]:
    """What went to swap from samples between which the balloon grew, and what came from swap after
    the first of these moments. Nothing did if it never grew, or the kernel has no swap: it counts
    no pages of it then, but major faults."""
    keys = tuple(field.key for field in Memory.section.fields if "inflation_swap" in field.key)
    nothing = dict(zip(keys, (0, 0, None, None), strict=True))
    curve = known_curve(trace)
    swapless = not minutes.having(("vmstat", "pswpout")).any()
    if curve and not (curve.change > 0).any():
        return nothing
    if swapless and minutes.having(("vmstat", "pgmajfault")).any():
        return nothing
    read = minutes.having(("vmstat", "pswpin"), ("vmstat", "pswpout")) & (sizes != UNREAD)
    if read.sum() < 2:
        return dict.fromkeys(keys)
    told = minutes.only(read)
    out, into = (told.column("vmstat", key) for key in ("pswpout", "pswpin"))
    swapping = np.flatnonzero((np.diff(sizes[read]) > 0) & (np.diff(out) > 0))
    if not len(swapping):
        return nothing
    first, last = int(swapping[0]), int(swapping[-1]) + 1
    went = int(np.diff(out)[swapping].sum())
    moments = (trace.seconds(told.time_ns[place]) for place in (first, last))
    return dict(zip(keys, (went, int(into[-1] - into[first]), *moments), strict=True))


def _rate(trace: Trace, minutes: Minutes, what: str) -> dict[str, Any] | None:
    grown: Growth | None = None
    for key in RATES[what]:
        grown = grown or minutes.growth("vmstat", key)
    if grown is None:
        return None
    return {
        "what": what,
        "total": grown.total,
        "per_s": grown.per_s,
        "worst_per_s": grown.worst_per_s,
        "worst_start_s": trace.seconds(grown.worst_start_ns),
        "worst_end_s": trace.seconds(grown.worst_end_ns),
    }


def _kills(trace: Trace, minutes: Minutes, sizes: Ints) -> tuple[list[dict[str, Any]], int] | None:
    """One row per pair of samples between which the kernel counted a kill, the first MOST_KILLS,
    and how many it counted in all; None: it does not."""
    read = minutes.having(("vmstat", "oom_kill"))
    if read.sum() < 2:
        return None
    told = minutes.only(read)
    counts, available = told.column("vmstat", "oom_kill"), told.column("meminfo", "MemAvailable")
    pages = sizes[read]
    begins = np.searchsorted(told.time_ns, told.time_ns - BEFORE_KILL_NS, side="left")

    def least(place: int) -> int | None:
        before = available[begins[place] : place + 1]
        before = before[before != UNREAD]
        return int(before.min()) if len(before) else None

    grown = np.maximum(np.diff(counts), 0)
    rows = [
        {
            "start_s": trace.seconds(told.time_ns[place]),
            "end_s": trace.seconds(told.time_ns[place + 1]),
            "kills": int(grown[place]),
            "balloon_pages": None if pages[place] == UNREAD else int(pages[place]),
            "available_bytes": least(place),
        }
        for place in np.flatnonzero(grown)[:MOST_KILLS].tolist()
    ]
    return rows, int(grown.sum())


def _killed(trace: Trace, counted: int | None) -> int | None:
    if counted is not None:
        return counted
    return len(trace.calls("oom_kill")) if trace.recorded("oom_kill") else None


def _total_s(stretches: Sequence[Starved] | None) -> float | None:
    if stretches is None:
        return None
    return sum(one.end_ns - one.start_ns for one in stretches) / 1e9


def _starved_row(trace: Trace, one: Starved) -> dict[str, Any]:
    return {
        "start_s": trace.seconds(one.start_ns),
        "end_s": trace.seconds(one.end_ns),
        "balloon_pages": one.pages,
        "available_bytes": one.available,
        "ram_bytes": one.ram,
        "psi_some_share": one.some,
        "psi_full_share": one.full,
        "file_refaults_per_s": one.per_s.get("workingset_refault_file"),
        "anon_refaults_per_s": one.per_s.get("workingset_refault_anon"),
        "major_faults_per_s": one.per_s.get("pgmajfault"),
        "stalls_per_s": one.per_s.get("allocstall"),
        "swapped_in_per_s": one.per_s.get("pswpin"),
    }
