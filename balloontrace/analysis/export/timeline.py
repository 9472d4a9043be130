# SPDX-License-Identifier: Apache-2.0
"""What a picture of a recording shows: calls per thread, counters, marks and spans."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from balloontrace.analysis.export.facts import facts, kinds_of
from balloontrace.analysis.trace.balloon_size import known_curve
from balloontrace.analysis.trace.causes import CAUSE_NAMES, cause_codes
from balloontrace.analysis.trace.gaps import driver_gaps
from balloontrace.analysis.trace.marks import marks_of as words_of
from balloontrace.analysis.trace.samples import UNREAD
from balloontrace.analysis.trace.trace import Ints, Trace
from balloontrace.analysis.trace.window import targets_of
from balloontrace.escape import visible
from balloontrace.events import BALLOON_PAGE_BYTES, UNKNOWN_PAGES

FOREVER = 2**63 - 1
"""The end of a call that had not returned."""

INSTANTS = ("kswapd_wake",)
"""Kinds that have a task but no duration."""

MARKED = ("notice", "oom_kill")
"""Kinds that are no call of the task they name."""


class Numbers(dict[str, int]):
    """Numbers for strings, counted from `first` in order of appearance."""

    def __init__(self, first: int = 0) -> None:
        super().__init__()
        self._first = first

    def of(self, text: str) -> int:
        """The number of `text`."""
        return self.setdefault(text, len(self) + self._first)


@dataclass(frozen=True)
class Calls:
    """All calls in order of return, one array element each.

    record: place in the recording; end_ns: FOREVER if open; thread: index in `threads` (pid, tid);
    kind, name, task: index in `kinds`, `names`, `tasks`; last_task: of each thread, the name it
    had last. Strings are visible.
    """

    record: Ints
    start_ns: Ints
    end_ns: Ints
    thread: Ints
    kind: Ints
    name: Ints
    task: Ints
    threads: list[tuple[int, int]]
    kinds: list[str]
    names: list[str]
    tasks: list[str]
    last_task: list[int]


@dataclass(frozen=True)
class Counter:
    """Bytes over time: each value holds from its moment on."""

    name: str
    doc: str
    time_ns: Ints
    value: Ints


@dataclass(frozen=True)
class Mark:
    """Something at one moment on a track of its own kind."""

    track: str
    name: str
    time_ns: int
    arguments: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Span:
    """Something that lasted; end_ns: None if to the recording's end and beyond."""

    track: str
    name: str
    start_ns: int
    end_ns: int | None
    arguments: dict[str, Any] = field(default_factory=dict)


def calls_of(trace: Trace) -> Calls:
    """The calls of a recording."""
    kinds = [kind for kind in kinds_of(trace) if kind not in MARKED]
    numbers = [trace.number("kinds", kind) for kind in kinds]
    record = np.flatnonzero(np.isin(trace.records["kind"], numbers))
    start_ns, end_ns, thread, kind_of, name, task = (
        np.zeros(len(record), dtype=np.int64) for _ in range(6)
    )
    names, tasks = Numbers(), Numbers()
    for number, kind in enumerate(kinds):
        frame = trace.events(kind)
        place = np.searchsorted(record, frame["record"].to_numpy())
        start_ns[place] = frame["start_ns"]
        end_ns[place] = np.where(frame["open"], FOREVER, frame["end_ns"])
        thread[place] = _thread_numbers(frame)
        kind_of[place] = number
        name[place] = _slice_names(trace, kind, frame, names)
        codes, comms = trace.names(kind)
        task[place] = np.array([tasks.of(visible(comm)) for comm in comms], dtype=np.int64)[codes]
    thread_codes, owners = pd.factorize(thread)
    last_task = np.zeros(len(owners), dtype=np.int64)
    last_task[thread_codes] = task  # of equal places the last one stays
    return Calls(
        record=record,
        start_ns=start_ns,
        end_ns=end_ns,
        thread=thread_codes.astype(np.int64),
        kind=kind_of,
        name=name,
        task=task,
        threads=[(owner >> 32, owner & 0xFFFFFFFF) for owner in owners.tolist()],
        kinds=[visible(kind) for kind in kinds],
        names=list(names),
        tasks=list(tasks),
        last_task=last_task.tolist(),
    )


def _thread_numbers(frame: pd.DataFrame) -> Ints:
    """Process and thread id of each event in one number."""
    ids: Ints = frame["pid"].to_numpy(np.int64) << 32 | frame["tid"].to_numpy(np.int64)
    return ids


def _slice_names(trace: Trace, kind: str, frame: pd.DataFrame, names: Numbers) -> Ints:
    """What each call is called: its kind, and what tells calls of that kind apart."""
    if kind == "leak":
        codes = cause_codes(trace, frame).astype(np.int64)
        return np.array([names.of(f"leak ({cause})") for cause in CAUSE_NAMES])[codes]
    if kind == "ack":
        queues = frame["queue"].to_numpy()
        found = np.full(len(frame), names.of("ack"), dtype=np.int64)
        for queue in ("inflate", "deflate"):
            number = trace.number("queues", queue)
            found[(queues == number) & (number > 0)] = names.of(f"ack ({queue})")
        return found
    if kind == "hint":
        returned = trace.marked(frame, "flags", "flags", "returned")
        return np.where(returned, names.of("hint (returned)"), names.of("hint"))
    return np.full(len(frame), names.of(visible(kind)), dtype=np.int64)


def counters_of(trace: Trace) -> list[Counter]:
    """Target, balloon size and free memory in bytes; those that are not known are left out."""
    time_ns, asked = targets_of(trace)
    seen = asked != UNKNOWN_PAGES
    found = [
        Counter(
            "target",
            "the balloon size the host wants, as the size worker read it",
            time_ns[seen],
            asked[seen] * BALLOON_PAGE_BYTES,
        ),
        *_size(trace),
        *(_meminfo(trace, name) for name in ("MemFree", "MemAvailable")),
        *_host(trace),
    ]
    return [counter for counter in found if len(counter.time_ns)]


def _size(trace: Trace) -> list[Counter]:
    """The balloon's size, if it can be known."""
    curve = known_curve(trace)
    if curve is None:
        return []
    doubts = []
    if not curve.exact:
        doubts.append("the balloon moved while probes came or went")
    if unknown := sum(trace.unknown_pages(kind) for kind in ("fill", "leak")):
        doubts.append(f"the pages of {unknown:,} calls were not visible")
    if not trace.recording.complete or trace.trailer.get("lost_events"):
        doubts.append("the recording is not complete")
    doc = "pages the guest has given to the host; QEMU's actual is the complement"
    return [
        Counter(
            "balloon size (NOT EXACT)" if doubts else "balloon size",
            f"{doc}; not exact: {', '.join(doubts)}" if doubts else doc,
            np.concatenate(([trace.begin_ns], curve.time_ns)),
            np.concatenate(([curve.base], curve.size)) * BALLOON_PAGE_BYTES,
        )
    ]


def _host(trace: Trace) -> list[Counter]:
    """What the host was told, and what its memory was, by the guest's clock."""
    view = trace.entire.host
    if view is None:
        return []
    told_ns, told = view.actual
    of_balloon, of_process = "the balloon as the host was told", "of the hypervisor's process"
    series = {
        "host: actual": (of_balloon, (told_ns, told * BALLOON_PAGE_BYTES)),
        "host: resident memory": (of_process, view.resident),
    }
    return [
        Counter(name, doc, *view.by_guests_clock(trace, told))
        for name, (doc, told) in series.items()
    ]


def _meminfo(trace: Trace, name: str) -> Counter:
    """One field of /proc/meminfo, as often as it was read."""
    values = trace.samples.column("meminfo", name)
    read = values != UNREAD
    doc = f"{name} of /proc/meminfo, read once a second"
    return Counter(name, doc, trace.samples.time_ns[read], values[read])


def marks_of(trace: Trace) -> list[Mark]:
    """Targets, the host's notices, OOM kills, the driver's going and coming, and what people
    marked."""
    marks = [
        Mark("driver", f"driver {visible(str(c.get('state')))}", c["t_ns"], _why(c))
        for c in trace.driver_changes
        if trace.contains(c["t_ns"])
    ]
    for at in trace.events("notice")["start_ns"].tolist():
        marks.append(Mark("notices", "notice", at))
    targets = trace.events("target")
    columns = (targets[name].tolist() for name in ("start_ns", "asked", "done"))
    for at, asked, size in zip(*columns, strict=True):
        seen = {"target_balloon_pages": asked, "size_balloon_pages": size}
        known = {name: pages for name, pages in seen.items() if pages != UNKNOWN_PAGES}
        marks.append(Mark("target changes", "new target", at, known))
    marks += [Mark("marks", visible(text), at) for at, text in words_of(trace)]
    return marks + _kills(trace) + _set_by_host(trace)


def _set_by_host(trace: Trace) -> list[Mark]:
    """The targets that the host set, where it is known when."""
    view = trace.entire.host
    moments = [(view.set_at(target), target) for target in view.targets] if view else []
    return [
        Mark(
            "host: targets",
            "target set by the host",
            at.ns,
            {"target_balloon_pages": target.pages, "error_ns": at.error_ns},
        )
        for at, target in moments
        if at is not None and trace.begin_ns <= at.ns <= trace.end_ns
    ]


def _kills(trace: Trace) -> list[Mark]:
    """The victims of the OOM killer."""
    kills = trace.events("oom_kill")
    codes, names = trace.names("oom_kill")
    memcg = trace.marked(kills, "flags", "flags", "memcg")
    columns = [kills[name].tolist() for name in ("start_ns", "done", "tid", "pid")]
    marks = []
    for at, victim, tid, pid, code, of_memcg in zip(*columns, codes, memcg, strict=True):
        about: dict[str, Any] = {"needed_by_tid": tid, "needed_by_pid": pid}
        if victim != UNKNOWN_PAGES:
            about["victim_pid"] = victim
        about["memcg"] = bool(of_memcg)
        marks.append(Mark("OOM kills", f"OOM kill: {visible(names[code])}", at, about))
    return marks


def _why(change: dict[str, Any]) -> dict[str, Any]:
    return {"why": visible(str(change["why"]))} if change.get("why") else {}


def spans_of(trace: Trace) -> list[Span]:
    """The recording itself, which says what it lacks, and the gaps without a traced driver."""
    known = facts(trace)
    lacks = known["incomplete_because"]
    name = f"INCOMPLETE: {'; '.join(lacks)}" if lacks else "recording: complete, no event lost"
    if trace.is_part:
        name = f"a window of the recording; {name}"
    about = {key: value if _simple(value) else json.dumps(value) for key, value in known.items()}
    about = {key: value for key, value in about.items() if value is not None}
    spans = [Span("recording", name, trace.begin_ns, trace.end_ns, about)]
    for gap in driver_gaps(trace):
        end_ns = None if gap.open and gap.end_ns == trace.entire.end_ns else gap.end_ns
        whys = {"why": visible("; ".join(gap.whys))} if gap.whys else {}
        spans.append(Span("driver", "no driver was traced", gap.start_ns, end_ns, whys))
    return spans


def _simple(value: Any) -> bool:
    return value is None or isinstance(value, (bool, int, float, str))
