# SPDX-License-Identifier: Apache-2.0
"""A recording as data frames: one per kind of event, in the units of metrics.md.

The layout of an event, and the numbers of kinds and bits, are read from the recording's own header,
so a recording of another version stays readable as long as it has the fields used here.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property, wraps
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import numpy.typing as npt
import pandas as pd

from balloontrace.analysis.trace.columns import INTEGERS, Calls, Events
from balloontrace.analysis.trace.columns import Bools as Bools
from balloontrace.analysis.trace.columns import Ints as Ints
from balloontrace.analysis.trace.samples import Samples
from balloontrace.errors import UserError
from balloontrace.events import BALLOON_PAGE_BYTES, FLAGS, LOSSES, UNKNOWN_PAGES, number_of
from balloontrace.recording.reader import Recording, Span, read_recording, rows_of

if TYPE_CHECKING:
    from balloontrace.analysis.trace.host_view import HostView

FOREVER = 2**63 - 1

MOVES = ("fill", "leak")
"""The kinds of event that change the balloon's size."""

Columns = Calls | pd.DataFrame
"""Events of one kind: either way, `columns[name]` is one value per event."""


@dataclass
class Trace:
    """One recording, ready for the analyses.

    recording: what could be read of the file, but for its events, and its samples if they are
    regular; all_events, samples: these;
    begin_ns, end_ns: CLOCK_MONOTONIC, from probes attached (or the first event, which can come
    before the recorder said so) to the recording's end (without a trailer: the last timestamp).
    """

    recording: Recording
    all_events: Events
    samples: Samples
    begin_ns: int
    end_ns: int
    disagrees: bool = False
    """The traced totals are known not to be those of /proc/vmstat, or the events not all that the
    BPF programs summed up."""
    proven: frozenset[str] = frozenset()
    """Kinds whose traced pages are those of /proc/vmstat, to the page: nothing of them is missing,
    whatever is of others."""
    missed: dict[str, int] = field(default_factory=dict)
    """Kind -> calls that the recorder took for open, and whose return was missed."""
    from_memory: bool = False
    """The recording keeps all of its samples, and is perhaps no file."""
    host: HostView | None = None
    """The host's view beside the recording; of a window, see `entire`."""
    computed: dict[Any, Any] = field(default_factory=dict)
    """What several analyses need (see `per_trace`)."""
    after_ns: int = -1
    until_ns: int = FOREVER
    """What ended after the first of these moments and up to the second is here (window.py)."""
    _calls: dict[str, Calls] = field(default_factory=dict)

    @property
    def entire(self) -> Trace:
        """The trace of the whole recording, of which this may be a window."""
        return self

    @property
    def is_part(self) -> bool:
        """Whether something of the recording may be outside of this window of it."""
        return self.after_ns >= 0 or self.until_ns < FOREVER

    def contains(self, time_ns: int) -> bool:
        """Whether what happened at a moment is in this window."""
        return self.after_ns < time_ns <= self.until_ns

    @property
    def header(self) -> dict[str, Any]:
        """The recording's metadata."""
        return self.recording.header

    @property
    def suspended_ns(self) -> int | None:
        """For how long the guest was suspended; None: the recording does not say. What is below
        10 ms is the time between two readings in recordings of early versions."""
        slept_ns = self.trailer.get("suspended_ns")
        return slept_ns if slept_ns is None or slept_ns >= 10_000_000 else 0

    @property
    def trailer(self) -> dict[str, Any]:
        """The recording's trailer; empty if the recorder did not get to write it."""
        return self.recording.trailer or {}

    @cached_property
    def driver_changes(self) -> list[dict[str, Any]]:
        """What the recorder said each time the driver went or came: `t_ns`, `state` (absent, gone,
        attached, untraceable, negotiated) and the facts of that state."""
        return [
            {"t_ns": int(sample["t_ns"]), **sample["driver"]}
            for sample in self.recording.samples
            if "t_ns" in sample and isinstance(sample.get("driver"), dict)
        ]

    @cached_property
    def attachments(self) -> list[dict[str, Any]]:
        """What described the driver each time the probes were attached to one, in order of time:
        `t_ns`, `seams`, `balloon`, `vmstat_attach`. The first is the header, if it was there."""
        later = [change for change in self.driver_changes if change.get("state") == "attached"]
        if section(self.header, "seams") or not later:
            return [{"t_ns": self.begin_ns, **self.header}, *later]
        return later

    @property
    def seams(self) -> dict[str, Any]:
        """How each seam was traced: as the header says, or where the recording began without a
        driver, as it was when one was last attached to."""
        return section(self._described, "seams")

    @property
    def balloon(self) -> dict[str, Any]:
        """Device, features and driver, as the recording last says."""
        said = [section(change, "balloon") for change in self.driver_changes]
        return next(filter(None, reversed(said)), section(self.header, "balloon"))

    @property
    def _described(self) -> dict[str, Any]:
        return self.header if section(self.header, "seams") else self.attachments[-1]

    @cached_property
    def records(self) -> npt.NDArray[np.void]:
        """All events as they stand in the file, in order of return: every field, for exports.

        They are read once more, and take 64 bytes each.
        """
        joined, layout = bytearray(), _layout(self.recording)

        def add(_: Recording, spans: list[Span]) -> None:
            for block in map(rows_of, spans):
                joined.extend(block[: len(block) - len(block) % layout.itemsize])

        add(self.recording, list(self.recording.events))
        if not self.recording.events:
            read_recording(self.recording.path, add)
        return np.frombuffer(joined, dtype=layout)

    @cached_property
    def every_sample(self) -> list[dict[str, Any]]:
        """All samples as they stand in the file: every number, for exports. They are read once
        more."""
        if self.from_memory:
            return self.recording.samples
        return read_recording(self.recording.path, lambda *_: None).samples

    @property
    def pages_per_page(self) -> int:
        """Balloon pages in one page of the guest's kernel (/proc/vmstat counts the latter)."""
        page_size = int(section(self.header, "guest").get("page_size") or BALLOON_PAGE_BYTES)
        return max(1, page_size // BALLOON_PAGE_BYTES)

    @property
    def counter_interval_s(self) -> float | None:
        """From one reading of the guest's counters to the next, where there are no events but these
        (`record --counters`); None: it was traced."""
        interval_s = section(self.header, "counters").get("interval_s")
        return None if interval_s is None else float(interval_s)

    def seconds(self, time_ns: int) -> float:
        """Seconds since the probes were attached, in a window too."""
        return (int(time_ns) - self.entire.begin_ns) / 1e9

    def wall_clock(self, time_ns: int) -> str | None:
        """The guest's wall clock at a moment, in UTC (ISO 8601); None if it is not recorded. Set
        while the recording was made, it is off by that."""
        clock = section(self.header, "clock")
        if "monotonic_ns" not in clock or "realtime_ns" not in clock:
            return None
        since_ns = int(clock["realtime_ns"]) + int(time_ns) - int(clock["monotonic_ns"])
        try:
            moment = datetime.fromtimestamp(since_ns / 1e9, UTC)
        except (OverflowError, ValueError, OSError):  # such a clock cannot be
            return None
        return moment.strftime("%Y-%m-%d %H:%M:%S.%f")[:-3] + "Z"

    def recorded(self, kind: str) -> bool:
        """Whether events of this kind would be here had they happened: where there are none, and it
        is doubtful whether all is here, nothing is known of them."""
        return self.attached(kind) and (len(self.calls(kind)) > 0 or not self.doubt(kind))

    def negotiated(self, kind: str) -> bool:
        """Whether there was anything to trace: False if it needs a feature, and neither is that
        negotiated nor any event here."""
        feature = section(self.seams, kind).get("feature")
        negotiated = self.balloon.get("features") or []
        return not feature or feature in negotiated or len(self.calls(kind)) > 0

    def doubt(self, kind: str) -> str:
        """Why events of this kind may be missing; '' if nothing says that any are."""
        counts = section(section(self.trailer, "counters"), kind)
        reasons = {
            "the probes ceased to fire": section(self.trailer, "proof").get("end") is False,
            "its events were lost": any(counts.get(name) for name in LOSSES),
            "blocks of the recording are missing": self.recording.missing_blocks > 0
            and kind not in self.proven,
            "totals disagree with what the kernel counted": self.disagrees
            and kind not in self.proven,
            "the size worker moved pages, and read one that was not seen": kind == "target"
            and not len(self.calls(kind))
            and self._worker_moved(),
        }
        return next((reason for reason, applies in reasons.items() if applies), "")

    @property
    def pages_missed(self) -> bool:
        """Whether pages moved that no event here tells of, or may have."""
        counters = section(self.trailer, "counters")
        lost = any(section(counters, kind).get(name) for kind in MOVES for name in LOSSES)
        # What is torn off a file's end is no loss within it.
        holes = self.recording.missing_blocks > 0
        return not self.proven.issuperset(MOVES) and bool(lost or holes or self.disagrees)

    def _worker_moved(self) -> bool:
        """Whether a run of the size worker was traced from its begin: that reads the target."""
        fills, leaks = self.calls("fill"), self.calls("leak")
        whole = ~self.marked(fills, "flags", "flags", "partial")
        by_worker = leaks["within"] == self.number("within", "worker")
        by_worker &= ~self.marked(leaks, "flags", "flags", "partial")
        return bool(whole.any() or by_worker.any())

    def attached(self, kind: str) -> bool:
        """Whether this kind's seam had a rung, and the recorder knew the kind (older ones traced
        some seams for `within` only)."""
        if not self.number("kinds", kind):
            return False
        seam = self.seams.get(kind)
        if isinstance(seam, dict):
            return seam.get("rung") is not None
        return len(self.calls(kind)) > 0

    def number(self, table: str, name: str) -> int:
        """The number of `name` in the header's `kinds`, `within`, `queues` or `flags`; 0: none."""
        return int(section(self.header, table).get(name) or 0)

    def marked(self, columns: Columns, column: str, table: str, *names: str) -> Bools:
        """Which events have any of these bits in `column` (`within` or `flags`)."""
        marks: Ints = np.asarray(columns[column])
        mask = 0
        for name in names:
            mask |= self.number(table, name)
        marked: Bools = (marks & (mask & np.iinfo(marks.dtype).max)) != 0
        return marked

    def calls(self, kind: str) -> Calls:
        """All events of one kind, in order of return, as arrays: only what is asked for is
        computed, which counts for kinds of which there are millions."""
        if kind not in self._calls:
            number = self.number("kinds", kind)
            self._calls[kind] = self.all_events.of_kind(number, self.end_ns)
        return self._calls[kind]

    def events(self, kind: str, *columns: str) -> pd.DataFrame:
        """All events of one kind, in order of return; no rows if there are none.

        columns: only these, which is cheaper than all.

        Columns: record (place in the file), start_ns, end_ns, duration_ns (int64; a call still
        open at the end lasts until the end), open (bool), asked, done (int64, UNKNOWN_PAGES if not
        visible), tid, pid, within, queue, flags.
        """
        return self.calls(kind).frame(*columns)

    def forget_arrays(self) -> None:
        """Let go of what `calls` has computed; who still holds an array keeps it."""
        for calls in self._calls.values():
            calls.forget()

    def names(self, kind: str) -> tuple[Ints, list[str]]:
        """Task names of the events of one kind: for each event an index in the list of names.

        Names are as hostile as the guest: bytes that are not UTF-8 stand as surrogates.
        """
        return self.calls(kind).names()

    def names_of(self, frame: pd.DataFrame) -> tuple[Ints, list[str]]:
        """Task names of the events of any frame that has their `record`, as in `names`."""
        return self.all_events.names_at(frame["record"].to_numpy())

    def unknown_pages(self, kind: str) -> int:
        """Calls of this kind whose `done` the seam's rung could not see."""
        return int((self.calls(kind)["done"] == UNKNOWN_PAGES).sum())


_Answer = TypeVar("_Answer")


def per_trace(compute: Callable[[Trace], _Answer]) -> Callable[[Trace], _Answer]:
    """A function of a trace that is computed once for each; its answer must not be changed."""

    @wraps(compute)
    def computed(trace: Trace) -> _Answer:
        if compute not in trace.computed:
            trace.computed[compute] = compute(trace)
        answer: _Answer = trace.computed[compute]
        return answer

    return computed


def section(content: dict[str, Any], key: str) -> dict[str, Any]:
    """`content[key]` if that is an object, else an empty one."""
    value = content.get(key)
    return value if isinstance(value, dict) else {}


def known_pages(columns: Columns) -> Ints:
    """`done` of each call in pages, 0 where the rung could not see it. Not to be changed."""
    done: Ints = np.asarray(columns["done"])
    unknown = done == UNKNOWN_PAGES
    return np.where(unknown, 0, done) if unknown.any() else done


def read_trace(path: str) -> Trace:
    """Read the recording at `path`.

    Raises UserError if it cannot be read or lacks what every analysis needs.
    """
    if not os.path.isfile(path):
        return trace_of(read_recording(path))  # a pipe cannot be read again
    blocks, samples = _Blocks(), Samples()
    recording = read_recording(path, blocks.take, samples)
    return _trace(recording, blocks.finish(recording), samples)


def trace_of(recording: Recording) -> Trace:
    """The trace of a recording; UserError if its header does not describe its events."""
    blocks, samples = _Blocks(), Samples()
    for block in recording.events:
        blocks.take(recording, [block])
    for sample in recording.samples:
        samples.add(sample)
    trace = _trace(recording, blocks.finish(recording), samples)
    trace.from_memory = True
    return trace


class _Blocks:
    """Turns event blocks into Events while they are read, as soon as the header says how."""

    def __init__(self) -> None:
        self._early: list[Span] = []
        self._events: Events | None = None

    def take(self, recording: Recording, spans: list[Span]) -> None:
        """The next events of this recording, of which the header may not be read yet."""
        if self._events is not None:
            self._events.add(spans, recording.share_read)
        elif recording.header:
            self._ready(recording).add(spans, recording.share_read)
        else:
            self._early += spans

    def finish(self, recording: Recording) -> Events:
        """All events of the recording, which has been read."""
        events = self._ready(recording)
        events.finish()
        return events

    def _ready(self, recording: Recording) -> Events:
        if self._events is None:
            self._events = Events(_layout(recording))
            self._events.add(self._early, recording.share_read)
        return self._events


def _trace(recording: Recording, events: Events, samples: Samples) -> Trace:
    begin_ns, end_ns = _span(recording, events, samples)
    flags = recording.header.setdefault("flags", {})
    missed = events.close_missed(flags.setdefault("missed", number_of(FLAGS, "missed")))
    kinds = section(recording.header, "kinds")
    names = {number: name for name, number in kinds.items()}
    if len(names) < len(kinds):
        raise UserError(f"{recording.path} does not describe its events: two kinds have one number")
    by_name = {names[kind]: calls for kind, calls in missed.items() if kind in names}
    return Trace(recording, events, samples, begin_ns, end_ns, missed=by_name)


_MOST_BYTES = 4096
"""Of one event: they have 64, and may come to have more."""


def _layout(recording: Recording) -> np.dtype[np.void]:
    """The numpy type of one item of an event block: the ring's header, then the record."""
    header = recording.header
    try:
        layout = np.dtype(
            [("ring_header", f"V{int(header['ring_header_bytes'])}")]
            + [(str(name), str(fmt)) for name, fmt in header["record"]]
        )
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"{recording.path} does not describe its events: {error}") from None
    swapped = any(layout[name].byteorder == ">" for name in layout.names or ())
    if layout.hasobject or swapped or layout.itemsize > _MOST_BYTES:
        raise UserError(f"{recording.path} does not describe its events: they cannot be so")
    wanted = dict.fromkeys(INTEGERS, "u") | {"comm": "S"}
    for name, numpy_kind in wanted.items():
        kind = layout[name] if name in (layout.names or ()) else None
        if kind is None or kind.kind != numpy_kind or not kind.itemsize:
            raise UserError(
                f"{recording.path} has no usable field {name!r} in its events",
                f"it was written by {header.get('tool', 'another tool')}; use that version",
            )
    return layout


def _span(recording: Recording, events: Events, samples: Samples) -> tuple[int, int]:
    """First and last nanosecond of the recording."""
    seen = [int(sample["t_ns"]) for sample in recording.samples if "t_ns" in sample]
    if len(samples):
        seen += [int(samples.time_ns.min()), int(samples.time_ns.max())]
    seen += [samples.last_ns] * (samples.last_ns > 0)
    seen += [at for at in (events.first_ns, events.last_ns) if at is not None]
    attached = recording.header.get("attached_ns")
    if attached is not None:
        seen.append(int(attached))
    begin = min(seen, default=0)
    ended = (recording.trailer or {}).get("ended_ns")
    end = int(ended) if ended is not None else max(seen, default=begin)
    return begin, max(begin, end)
