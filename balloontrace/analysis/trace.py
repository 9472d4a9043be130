"""A recording as data frames: one per kind of event, in the units of metrics.md.

The layout of an event, and the numbers of kinds and bits, are read from the recording's own header,
so a recording of another version stays readable as long as it has the fields used here.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from balloontrace.errors import UserError
from balloontrace.events import BALLOON_PAGE_BYTES, OPEN_DURATION, UNKNOWN_PAGES
from balloontrace.recording import Recording, read_recording

Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]

_INTEGERS = (
    *("start_ns", "duration_ns", "asked", "done", "tid", "pid"),
    *("kind", "within", "queue", "flags"),
)
"""Integer fields an analysis may read; `comm` is the only other one."""


@dataclass
class Trace:
    """One recording, ready for the analyses.

    recording: what could be read of the file; records: all events, in order of return;
    begin_ns, end_ns: CLOCK_MONOTONIC, from probes attached (or the first event, which can come
    before the recorder said so) to the recording's end (without a trailer: the last timestamp).
    """

    recording: Recording
    records: npt.NDArray[np.void]
    begin_ns: int
    end_ns: int
    _frames: dict[str, pd.DataFrame] = field(default_factory=dict)

    @property
    def header(self) -> dict[str, Any]:
        """The recording's metadata."""
        return self.recording.header

    @property
    def trailer(self) -> dict[str, Any]:
        """The recording's trailer; empty if the recorder did not get to write it."""
        return self.recording.trailer or {}

    @cached_property
    def samples(self) -> list[dict[str, Any]]:
        """The regular samples: `t_ns`, `vmstat` and the other slow sources, all of one moment."""
        return [
            sample
            for sample in self.recording.samples
            if "t_ns" in sample and isinstance(sample.get("vmstat"), dict)
        ]

    @cached_property
    def driver_changes(self) -> list[dict[str, Any]]:
        """What the recorder said each time the driver went or came: `t_ns`, `state` (absent, gone,
        attached, untraceable) and the facts of that state."""
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
        """Device, features and driver, from where `seams` is."""
        return section(self._described, "balloon")

    @property
    def _described(self) -> dict[str, Any]:
        return self.header if section(self.header, "seams") else self.attachments[-1]

    @cached_property
    def starts_ns(self) -> Ints:
        """When each event of the recording began, in order of time."""
        # Nearly in order already, which a stable sort makes use of.
        return np.sort(self.records["start_ns"].astype(np.int64), kind="stable")

    @property
    def pages_per_page(self) -> int:
        """Balloon pages in one page of the guest's kernel (/proc/vmstat counts the latter)."""
        page_size = int(section(self.header, "guest").get("page_size") or BALLOON_PAGE_BYTES)
        return max(1, page_size // BALLOON_PAGE_BYTES)

    def seconds(self, time_ns: int) -> float:
        """Seconds since the probes were attached."""
        return (int(time_ns) - self.begin_ns) / 1e9

    def recorded(self, kind: str) -> bool:
        """Whether events of this kind would be here had they happened: its seam had a rung, and
        the recorder knew the kind (older ones traced some seams for `within` only)."""
        if not self.number("kinds", kind):
            return False
        seam = self.seams.get(kind)
        if isinstance(seam, dict):
            return seam.get("rung") is not None
        return len(self.events(kind)) > 0

    def number(self, table: str, name: str) -> int:
        """The number of `name` in the header's `kinds`, `within`, `queues` or `flags`; 0: none."""
        return int(section(self.header, table).get(name) or 0)

    def marked(self, frame: pd.DataFrame, column: str, table: str, *names: str) -> Bools:
        """Which rows of `frame` have any of these bits in `column` (`within` or `flags`)."""
        mask = sum(self.number(table, name) for name in names)
        marked: Bools = (frame[column].to_numpy() & mask) != 0
        return marked

    def events(self, kind: str) -> pd.DataFrame:
        """All events of one kind, in order of return; no rows if there are none.

        Columns: record (place in the file), start_ns, end_ns, duration_ns (int64; a call still
        open at the end lasts until the end), open (bool), asked, done (int64, UNKNOWN_PAGES if not
        visible), tid, pid, within, queue, flags.
        """
        if kind not in self._frames:
            rows = np.flatnonzero(self.records["kind"] == self.number("kinds", kind))
            self._frames[kind] = _frame(self.records[rows], rows, self.end_ns)
        return self._frames[kind]

    def names(self, kind: str) -> tuple[Ints, list[str]]:
        """Task names of the events of one kind: for each event an index in the list of names.

        Names are as hostile as the guest: bytes that are not UTF-8 stand as surrogates.
        """
        return self.names_of(self.events(kind))

    def names_of(self, frame: pd.DataFrame) -> tuple[Ints, list[str]]:
        """Task names of the events of any frame that has their `record`, as in `names`."""
        return _names(self.records["comm"][frame["record"].to_numpy()])

    def unknown_pages(self, kind: str) -> int:
        """Calls of this kind whose `done` the seam's rung could not see."""
        return int((self.events(kind)["done"] == UNKNOWN_PAGES).sum())


def section(content: dict[str, Any], key: str) -> dict[str, Any]:
    """`content[key]` if that is an object, else an empty one."""
    value = content.get(key)
    return value if isinstance(value, dict) else {}


def known_pages(frame: pd.DataFrame) -> Ints:
    """`done` of each call in pages, 0 where the rung could not see it."""
    done = frame["done"].to_numpy()
    known: Ints = np.where(done == UNKNOWN_PAGES, 0, done)
    return known


def read_trace(path: str) -> Trace:
    """Read the recording at `path`.

    Raises UserError if it cannot be read or lacks what every analysis needs.
    """
    return trace_of(read_recording(path))


def trace_of(recording: Recording) -> Trace:
    """The trace of a recording; UserError if its header does not describe its events."""
    records = _records(recording)
    begin_ns, end_ns = _span(recording, records)
    return Trace(recording, records, begin_ns, end_ns)


def _records(recording: Recording) -> npt.NDArray[np.void]:
    """All events as one structured array; a torn event at the end of a block is passed over."""
    layout = _layout(recording)
    size = layout.itemsize
    whole = [block[: len(block) - len(block) % size] for block in recording.events]
    return np.frombuffer(b"".join(whole), dtype=layout)


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
    wanted = dict.fromkeys(_INTEGERS, "u") | {"comm": "S"}
    for name, numpy_kind in wanted.items():
        if name not in (layout.names or ()) or layout[name].kind != numpy_kind:
            raise UserError(
                f"{recording.path} has no usable field {name!r} in its events",
                f"it was written by {header.get('tool', 'another tool')}; use that version",
            )
    return layout


def _span(recording: Recording, records: npt.NDArray[np.void]) -> tuple[int, int]:
    """First and last nanosecond of the recording."""
    returned = records["duration_ns"] != OPEN_DURATION
    ends = records["start_ns"] + np.where(returned, records["duration_ns"], 0)
    seen = [int(sample["t_ns"]) for sample in recording.samples if "t_ns" in sample]
    if len(records):
        seen += [int(records["start_ns"].min()), int(ends.max())]
    attached = recording.header.get("attached_ns")
    if attached is not None:
        seen.append(int(attached))
    begin = min(seen, default=0)
    ended = (recording.trailer or {}).get("ended_ns")
    end = int(ended) if ended is not None else max(seen, default=begin)
    return begin, max(begin, end)


def _frame(records: npt.NDArray[np.void], rows: npt.NDArray[np.intp], end_ns: int) -> pd.DataFrame:
    """The columns of Trace.events for these records."""
    is_open = records["duration_ns"] == OPEN_DURATION
    start = records["start_ns"].astype(np.int64)
    until_end = np.maximum(end_ns - start, 0)
    duration = np.where(is_open, until_end, records["duration_ns"].astype(np.int64))
    columns: dict[str, Any] = {
        "record": rows,
        "start_ns": start,
        "end_ns": start + duration,
        "duration_ns": duration,
        "open": is_open,
        "asked": records["asked"].astype(np.int64),
        "done": records["done"].astype(np.int64),
    }
    columns |= {name: records[name].copy() for name in ("tid", "pid", "within", "queue", "flags")}
    return pd.DataFrame(columns)


def _names(comm: npt.NDArray[np.bytes_]) -> tuple[Ints, list[str]]:
    """For each name its index in the list of different ones: millions of events, few names.

    Hashing the bytes as integers is some thirty times as fast as making Python objects of them.
    """
    width = -(-comm.dtype.itemsize // 8)
    words = comm.astype(f"S{8 * width}").view(np.uint64).reshape(len(comm), width)
    codes = np.zeros(len(comm), dtype=np.int64)
    for word in words.T:
        word_codes, values = pd.factorize(word)
        codes = pd.factorize(codes * len(values) + word_codes)[0].astype(np.int64)
    _, first = np.unique(codes, return_index=True)
    # What stands behind the first NUL is left over from a longer name.
    names = [bytes(name).split(b"\0")[0].decode("utf-8", "surrogateescape") for name in comm[first]]
    place = {name: number for number, name in enumerate(dict.fromkeys(names))}
    places = np.array([place[name] for name in names], dtype=np.int64)
    return places[codes], list(place)
