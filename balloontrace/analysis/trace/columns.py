# SPDX-License-Identifier: Apache-2.0
"""The events of a recording by kind, one array per field, filled block by block while it is read.

A recording of millions of events takes gigabytes as it stands in the file; here it takes some 40
bytes per event, and what no analysis asks for is not computed.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from balloontrace.analysis.trace.items import Items
from balloontrace.events import OPEN_DURATION
from balloontrace.recording.reader import Span

Array = npt.NDArray[Any]
Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]

_TIMES = ("start_ns", "duration_ns")
_STORED = (*_TIMES, "asked", "done", "within", "queue", "flags")
_TASK = ("tid", "pid", "comm")
"""Who made the call."""

INTEGERS = (*_STORED, "tid", "pid", "kind")
"""Integer fields an event must have; `comm` is the only other one."""

COLUMNS = (
    *("record", "start_ns", "end_ns", "duration_ns", "open", "asked", "done"),
    *("tid", "pid", "within", "queue", "flags"),
)
"""What can be asked of calls, in the order of a data frame's columns."""

_NOT_KEPT = ("record", "tid", "pid")
"""What few ask for, and large."""

_OPEN = np.uint64(OPEN_DURATION).astype(np.int64)

_FEW, _LEAST_SHARE, _SPARE = 4096, 0.002, 1.25
"""From so many events of a kind on, and from so much of the file, they say how many there will be;
and how much room to leave for it to be more."""

_NONE: Ints = np.empty(0, np.int64)

_GATHERED_BYTES = 1 << 20
"""So much is gathered before it is sorted into columns, for each step of that takes some time
however few events there are. It stays in the processor's cache."""


_PIECE = 1 << 18
"""Calls that are looked at together."""


class _Column:
    """An array that grows. Room that was not used yet takes no memory."""

    def __init__(self, dtype: Any) -> None:
        self._room: Array = np.empty(0, dtype)
        self._used = 0

    def extend(self, values: Array, share_read: float) -> None:
        """Append these, converted to the column's type. share_read: see Recording."""
        end = self._used + len(values)
        if end > len(self._room):
            # Growing makes a copy: the second time to what all of the file may need.
            share = max(share_read, _LEAST_SHARE) if end > _FEW else 0.5
            room = np.empty(int(end / share * _SPARE), self._room.dtype)
            room[: self._used] = self.values
            self._room = room
        self._room[self._used : end] = values
        self._used = end

    @property
    def values(self) -> Array:
        """What was appended so far; not a copy."""
        return self._room[: self._used]


class _Fields:
    """The fields of all events of one kind.

    Tasks as runs, from one place to the next: a task makes many calls in a row.
    """

    def __init__(self, layout: np.dtype[np.void]) -> None:
        types = {name: np.int64 if name in _TIMES else layout[name] for name in (*_STORED, *_TASK)}
        self.columns = {name: _Column(types[name]) for name in _STORED}
        self.run_starts = _Column(np.int64)
        self.run_tasks = {name: _Column(types[name]) for name in _TASK}
        self.length = 0

    def extend(self, items: Items, rows: npt.NDArray[np.intp], runs: Ints, share: float) -> None:
        """Append the events in these rows. runs: of each of all items, the number of its run."""
        for name, column in self.columns.items():
            column.extend(items[name][rows], share)
        starts = np.flatnonzero(np.diff(runs[rows], prepend=-1))
        tasks = {name: items.at(name, rows[starts]) for name in self.run_tasks}
        # Calls of another kind by another task may have parted one run.
        anew = np.ones(len(starts), bool)
        anew[1:] = np.logical_or.reduce([task[1:] != task[:-1] for task in tasks.values()])
        self.run_starts.extend(starts[anew] + self.length, share)
        for name, column in self.run_tasks.items():
            column.extend(tasks[name][anew], share)
        self.length += len(rows)

    def chosen(self, rows: npt.NDArray[np.intp], layout: np.dtype[np.void]) -> _Fields:
        """The fields of the events in these rows, which are in order."""
        part = _Fields(layout)
        part.length = len(rows)
        for name, column in part.columns.items():
            column.extend(self.columns[name].values[rows], 1.0)
        runs = np.searchsorted(self.run_starts.values, rows, side="right") - 1
        starts = np.flatnonzero(np.diff(runs, prepend=-1))
        part.run_starts.extend(starts, 1.0)
        for name, column in part.run_tasks.items():
            column.extend(self.run_tasks[name].values[runs[starts]], 1.0)
        return part

    def tids(self) -> Array:
        """Thread id of each event."""
        return self.per_event(self.run_tasks["tid"].values)

    def per_event(self, of_runs: Array) -> Array:
        """One value for each event of one for each run."""
        values: Array = np.repeat(of_runs, np.diff(self.run_starts.values, append=self.length))
        return values


class Events:
    """All events of a recording; `add` its blocks in order, then `finish`.

    first_ns, last_ns: CLOCK_MONOTONIC of the first start and the last end; None without events.
    """

    def __init__(self, layout: np.dtype[np.void]) -> None:
        """layout: of one item of an event block."""
        self._layout = layout
        self._gathered = Items(layout)
        self._kinds = _Column(layout["kind"])
        self._fields: dict[int, _Fields] = {}
        self.first_ns: int | None = None
        self.last_ns: int | None = None

    def __len__(self) -> int:
        return len(self._kinds.values)

    def add(self, spans: list[Span], share_read: float) -> None:
        """Take spans of events; a torn event at the end of one is passed over. share_read: see
        Recording, after these."""
        self._gathered.add(spans)
        if self._gathered.bytes >= _GATHERED_BYTES:
            self.finish(share_read)

    def finish(self, share_read: float = 1.0) -> None:
        """Sort into columns what was gathered."""
        items, self._gathered = self._gathered, Items(self._layout)
        if not len(items):
            return
        self._widen_span(items)
        kinds = items["kind"].copy()
        self._kinds.extend(kinds, share_read)
        runs: Ints = np.cumsum(items.changes(*_TASK), dtype=np.int64)
        order = np.argsort(kinds, kind="stable")
        for rows in np.split(order, np.flatnonzero(np.diff(kinds[order])) + 1):
            kind = int(kinds[rows[0]])
            if kind not in self._fields:
                self._fields[kind] = _Fields(self._layout)
            self._fields[kind].extend(items, rows, runs, share_read)

    def _widen_span(self, items: Items) -> None:
        starts, durations = items["start_ns"].astype(np.int64), items["duration_ns"]
        ends = starts + np.where(durations == OPEN_DURATION, 0, durations.astype(np.int64))
        first, last = int(starts.min()), int(ends.max())
        self.first_ns = first if self.first_ns is None else min(first, self.first_ns)
        self.last_ns = last if self.last_ns is None else max(last, self.last_ns)

    def close_missed(self, flag: int) -> dict[int, int]:
        """Mark open calls that cannot be open with `flag`, and take their duration away.

        A task's calls nest: what began within a call that has returned, or before one of the same
        kind, has lost its return. Recorders tell of that themselves since balloontrace 0.1; before,
        they wrote such a call as an open one. Returns kind -> how many.
        """
        opened = {
            kind: rows
            for kind, fields in self._fields.items()
            if len(rows := np.flatnonzero(fields.columns["duration_ns"].values == _OPEN))
        }
        if not opened:  # most recordings: who made each call is not worked out then
            return {}
        tids = {kind: self._fields[kind].tids()[rows] for kind, rows in opened.items()}
        theirs = self._calls_of(np.unique(np.concatenate([*tids.values()])))
        missed: dict[int, int] = {}
        for kind, rows in opened.items():
            fields = self._fields[kind]
            for row, tid in zip(rows.tolist(), tids[kind].tolist(), strict=True):
                start = fields.columns["start_ns"].values[row]
                mine = theirs["tid"] == tid
                around = mine & (theirs["start_ns"] <= start) & (theirs["end_ns"] > start)
                anew = mine & (theirs["kind"] == kind) & (theirs["start_ns"] > start)
                if around.any() or anew.any():
                    fields.columns["duration_ns"].values[row] = 0
                    fields.columns["flags"].values[row] |= flag
                    missed[kind] = missed.get(kind, 0) + 1
        return missed

    def _calls_of(self, tids: Array) -> dict[str, Array]:
        """tid, kind, start and end of all events of these tasks; what is open ends as it began."""
        parts: dict[str, list[Array]] = {"tid": [], "kind": [], "start_ns": [], "end_ns": []}
        for kind, fields in self._fields.items():
            tid = fields.tids()
            mine = np.isin(tid, tids)
            starts, durations = (fields.columns[name].values[mine] for name in _TIMES)
            parts["tid"].append(tid[mine])
            parts["kind"].append(np.full(len(starts), kind))
            parts["start_ns"].append(starts)
            parts["end_ns"].append(starts + np.where(durations == _OPEN, 0, durations))
        return {name: np.concatenate(arrays) for name, arrays in parts.items()}

    def is_first(self, first: int, second: int) -> Bools:
        """For each event with one of two numbers, in order of return, whether it has the first."""
        kinds = self._kinds.values
        both = kinds[((kinds == first) | (kinds == second)) & (kinds != 0)]
        is_first: Bools = both == first
        return is_first

    def names_at(self, places: Ints) -> tuple[Ints, list[str]]:
        """For each place in the file an index in the list of task names (see Trace.names)."""
        kinds = self._kinds.values[places]
        codes, known = np.empty(len(places), dtype=np.int64), dict[str, int]()
        for kind in np.unique(kinds).tolist():
            mine, fields = np.flatnonzero(kinds == kind), self._fields[kind]
            run_codes, names = _names(fields.run_tasks["comm"].values)
            numbers = [known.setdefault(name, len(known)) for name in names]
            run_codes = np.array(numbers, dtype=np.int64)[run_codes]
            of_kind = np.flatnonzero(self._kinds.values == kind)
            for first in range(0, len(mine), _PIECE):  # of all the steps would take much memory
                some = mine[first : first + _PIECE]
                rows = np.searchsorted(of_kind, places[some])
                runs = np.searchsorted(fields.run_starts.values, rows, side="right") - 1
                codes[some] = run_codes[runs]
        return codes, list(known)

    def kinds(self) -> list[int]:
        """The numbers of the kinds that occur."""
        return list(self._fields)

    def chosen(self, which: dict[int, Bools]) -> tuple[Events, Bools]:
        """Some of the events, as events of their own, and which of all these are, in the order of
        the file. which: for each of `kinds` which of its events."""
        part = Events(self._layout)
        kept = np.zeros(len(self), dtype=bool)
        for kind, mine in which.items():
            kept[self._kinds.values == kind] = mine
            part._fields[kind] = self._fields[kind].chosen(np.flatnonzero(mine), self._layout)
        part._kinds.extend(self._kinds.values[kept], 1.0)
        return part, kept

    def first_start_after(self, time_ns: int) -> int | None:
        """When the first event after a moment began; None if there is none."""
        starts = [fields.columns["start_ns"].values for fields in self._fields.values()]
        later = [int(s[s > time_ns].min()) for s in starts if (s > time_ns).any()]
        return min(later, default=None)

    def of_kind(self, kind: int, end_ns: int) -> Calls:
        """The events with this number, 0 for none; end_ns: when those end that were still open."""
        none = _Fields(self._layout)
        return Calls(self._fields.get(kind, none) if kind else none, self._kinds, kind, end_ns)


class Calls:
    """All events of one kind, in order of return: `calls[name]` is an array for each of COLUMNS.

    record: place in the file; open: still under way at the recording's end, until which such a call
    lasts; pages are int64, for differences of unsigned integers wrap around. Arrays are computed
    when asked for, and shared: they must not be changed.
    """

    def __init__(self, fields: _Fields, kinds: _Column, kind: int, end_ns: int) -> None:
        self._fields, self._kinds, self._kind, self._end_ns = fields, kinds, kind, end_ns
        self._arrays: dict[str, Array] = {}

    def __len__(self) -> int:
        return self._fields.length

    def __getitem__(self, name: str) -> Array:
        if name in _NOT_KEPT:
            return self._array(name)
        if name not in self._arrays:
            self._arrays[name] = self._array(name)
        return self._arrays[name]

    def once(self, name: str) -> Array:
        """`calls[name]`, which is not kept if it was not before."""
        return self._arrays[name] if name in self._arrays else self._array(name)

    def _array(self, name: str) -> Array:
        match name:
            case "record":
                # Half the memory, and enough for what fits into it.
                record = np.flatnonzero(self._kinds.values == self._kind) if len(self) else _NONE
                return record.astype(np.uint32)
            case "open":
                is_open: Bools = self._stored("duration_ns") == _OPEN
                return is_open
            case "duration_ns":
                return self._duration()
            case "end_ns":
                return self["start_ns"] + self["duration_ns"]
            case "asked" | "done":
                return self._stored(name).astype(np.int64)
            case "tid" | "pid":
                return self._fields.per_event(self._fields.run_tasks[name].values)
        return self._stored(name)

    def _stored(self, name: str) -> Array:
        return self._fields.columns[name].values

    def _duration(self) -> Ints:
        durations: Ints = self._stored("duration_ns")
        if not self["open"].any():
            return durations
        until_end = np.maximum(self._end_ns - self["start_ns"], 0)
        return np.where(self["open"], until_end, durations)

    def forget(self) -> None:
        """Let go of the arrays that were computed: together they are as large as what is stored."""
        self._arrays.clear()

    def frame(self, *names: str) -> pd.DataFrame:
        """These columns, by default all, as a data frame, which shares the arrays."""
        return pd.DataFrame({name: self[name] for name in names or COLUMNS}, copy=False)

    def picked(self, which: Bools, *names: str) -> pd.DataFrame:
        """These columns of some of the calls, as a data frame of its own; nothing else is kept."""
        # One after the other: of all calls they would take several times as much.
        return pd.DataFrame({name: self.once(name)[which] for name in names}, copy=False)

    def pieces(self, which: Bools, *names: str) -> Iterator[pd.DataFrame]:
        """`picked`, some calls at a time: all of them take much memory."""
        columns = {name: self.once(name) for name in names}
        for first in range(0, len(which), _PIECE):
            part = slice(first, first + _PIECE)
            some = {name: values[part][which[part]] for name, values in columns.items()}
            yield pd.DataFrame(some, copy=False)

    def names(self) -> tuple[Ints, list[str]]:
        """For each event an index in the list of task names (see Trace.names)."""
        codes, names = _names(self._fields.run_tasks["comm"].values)
        return self._fields.per_event(codes), names


def _names(comm: npt.NDArray[np.bytes_]) -> tuple[Ints, list[str]]:
    """For each name its index in the list of different ones.

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
