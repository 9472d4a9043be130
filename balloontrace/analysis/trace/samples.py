# SPDX-License-Identifier: Apache-2.0
"""The regular samples of a recording as columns, filled while it is read.

A guest at rest writes little but samples, one a second: 864,000 in ten days, of some sixty numbers
each. Only those that an analysis asks for are kept. An export, which shows all, reads them anew.
"""

from __future__ import annotations

from array import array
from operator import attrgetter
from typing import Annotated, Any, NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt

from balloontrace.analysis.trace.task_delays import TaskDelays
from balloontrace.recording.differences import Reference

Ints = npt.NDArray[np.int64]

WANTED = {
    "vmstat": (
        *("balloon_inflate", "balloon_deflate", "balloon_migrate", "oom_kill"),
        *("workingset_refault_file", "workingset_refault", "workingset_refault_anon"),
        *("pgmajfault", "pswpin", "pswpout", "nr_balloon_pages"),
        *("allocstall", "pgscan", "pgsteal"),
    ),
    "meminfo": ("MemTotal", "MemFree", "MemAvailable", "CommitLimit", "Committed_AS"),
    "memory": ("some_us", "full_us"),
}
"""What is kept of each source; `memory` is that of PSI."""

_RECLAIMERS = ("kswapd", "direct", "khugepaged", "proactive")
SUMS = {
    "allocstall": (
        "allocstall",
        *(f"allocstall_{zone}" for zone in ("dma", "dma32", "normal", "movable", "device")),
    ),
    "pgscan": tuple(f"pgscan_{who}" for who in _RECLAIMERS),
    "pgsteal": tuple(f"pgsteal_{who}" for who in _RECLAIMERS),
}
"""Those that are sums of what the kernel counts apart: by zone since v4.8, and by who reclaimed."""

UNREAD = -1
"""In a column: this sample does not have it."""

_PACKED = 1 << 13
"""Samples that are packed together. They stay in the processor's cache."""

_COLUMNS = [(source, key) for source, keys in WANTED.items() for key in keys]
_READ = {
    source: [part for key in keys for part in SUMS.get(key, (key,))]
    for source, keys in WANTED.items()
}
"""What is read of each source for that."""

_SPECIAL = ("driver", "uevent", "uevents", "delays", "delayacct", "since_boot",
            "taskstats_version", "why", "failed", "mark", "stats", "cgroups")  # fmt: skip
"""A sample with any of these tells more than numbers."""

_MOST = (1 << 63) - 1
_Whole = Annotated[int, msgspec.Meta(ge=0, le=_MOST)]
_STRUCTS: dict[str, Any] = {
    source: msgspec.defstruct(source, [(key, _Whole, UNREAD) for key in keys], frozen=True)
    for source, keys in _READ.items()
}
_EMPTY = {source: struct() for source, struct in _STRUCTS.items()}
_Psi = msgspec.defstruct("Psi", [("memory", _STRUCTS["memory"], _EMPTY["memory"])], frozen=True)
_Sample = msgspec.defstruct(
    "Sample",
    [
        ("t_ns", _Whole),
        ("vmstat", _STRUCTS["vmstat"]),
        ("meminfo", _STRUCTS["meminfo"], _EMPTY["meminfo"]),
        ("psi", _Psi, _Psi()),
        *((key, msgspec.Raw, None) for key in _SPECIAL),
    ],
)
_PARTS: list[list[tuple[str, ...]]] = [[("t_ns",)]]
"""Of each column the places of its numbers in a sample: several of a sum."""
for _source, _key in _COLUMNS:
    _above = ("psi", _source) if _source == "memory" else (_source,)
    _PARTS.append([(*_above, part) for part in SUMS.get(_key, (_key,))])
_PATHS = [path for parts in _PARTS for path in parts]
_VALUES = attrgetter(*(".".join(path) for path in _PATHS))
_SUMMED = [
    (sum(map(len, _PARTS[:column])), len(parts))
    for column, parts in enumerate(_PARTS)
    if len(parts) > 1
]
"""Of each column that is a sum, from which of _PATHS on it is, and of how many."""
_OF_DELAYS = {"t_ns", "delays"}
_IS_SPECIAL = attrgetter(*_SPECIAL)
_NONE = (None,) * len(_SPECIAL)


class _Pack(NamedTuple):
    """Numbers of a column: the least of them, and by how much each is above that; None: all are
    equal. A counter takes two to four bytes so, and what never changes nothing."""

    least: int
    above: npt.NDArray[Any] | None

    def numbers(self) -> Ints:
        """All of them."""
        if self.above is None:
            return np.full(_PACKED, self.least, np.int64)
        return self.above.astype(np.int64) + self.least

    def number(self, place: int) -> int:
        """One of them."""
        return self.least + (0 if self.above is None else int(self.above[place]))


def _pack(numbers: Ints) -> _Pack:
    least, most = int(numbers.min()), int(numbers.max())
    if least == most:
        return _Pack(least, None)
    above = (numbers - least).view(np.uint64)  # where that is more than 63 bits, it wraps around
    return _Pack(least, above.astype(np.min_scalar_type(most - least)))


class _Places(NamedTuple):
    """Where the numbers of a sample stand, in the order of flatten: those that are a column each,
    and of each column that is a sum, those that it is of."""

    columns: list[int]
    numbers: list[int]
    sums: dict[int, list[int]]


class Samples:
    """Moment and numbers of each regular sample, in the order in which they were taken.

    delays: of tasks, from the samples that have these; last_ns: when the last one was taken that
    holds nothing else, 0: none.
    """

    def __init__(self) -> None:
        self.delays = TaskDelays()
        self.last_ns = 0
        self._decode = msgspec.json.Decoder(_Sample).decode
        self._packs: list[list[_Pack]] = []
        self._values = array("q")
        self._time_ns: Ints = np.empty(0, np.int64)
        self._names: list[Any] = []
        self._places: _Places | None = None

    def take(self, payload: bytes) -> bool:
        """Take a sample as it stands in the file. False if it is not a regular one, or has a number
        that cannot be: whoever reads it with care may `add` it then."""
        try:
            sample = self._decode(payload)
        except (msgspec.MsgspecError, RecursionError, ValueError):
            return False
        if _IS_SPECIAL(sample) != _NONE:
            return False
        self._values.extend(_summed(_VALUES(sample)))
        self._pack()
        return True

    def take_numbers(self, reference: Reference, numbers: Ints) -> bool:
        """Take samples of the names of `reference`, a row of numbers for each. False if they are
        not regular ones, or have a number that cannot be: then none is taken."""
        if reference.names != self._names:
            self._names, self._places = reference.names, _places(reference.content)
        if self._places is None or numbers.min() < 0:
            return False
        rows = np.full((len(numbers), len(_PARTS)), UNREAD, np.int64)
        rows[:, self._places.columns] = numbers[:, self._places.numbers]
        for column, parts in self._places.sums.items():
            rows[:, column] = numbers[:, parts].sum(axis=1) & _MOST
        self._values.frombytes(rows.tobytes())
        self._pack()
        return True

    def add(self, sample: dict[str, Any]) -> bool:
        """Take a sample that was read already, if it is a regular one: it has `t_ns`, `vmstat`; or
        one of task delays. Returns whether nothing else is in it."""
        if isinstance(delays := sample.get("delays"), dict):
            self.delays.add(delays)
            if sample.keys() == _OF_DELAYS:
                self.last_ns = max(self.last_ns, int(sample["t_ns"]))
                return True
        if "t_ns" not in sample or not isinstance(sample.get("vmstat"), dict):
            return False
        psi = sample.get("psi")
        sources = {**sample, "memory": psi.get("memory") if isinstance(psi, dict) else None}
        self._values.append(int(sample["t_ns"]))
        for source, key in _COLUMNS:
            held = sources.get(source)
            content: dict[str, Any] = held if isinstance(held, dict) else {}
            parts = [content.get(part) for part in SUMS.get(key, (key,))]
            self._values.append(_sum([int(part) for part in parts if part is not None]))
        self._pack()
        return False

    def within(self, after_ns: int, until_ns: int, delays: TaskDelays) -> Samples:
        """Those taken after one moment and up to another. delays: of tasks, in that time."""
        part = Samples()
        part.delays = delays
        inside = (self.time_ns > after_ns) & (self.time_ns <= until_ns)
        columns = [self._column(number)[inside] for number in range(len(_PARTS))]
        part._values.frombytes(np.column_stack(columns).tobytes())
        part._pack()
        return part

    def __len__(self) -> int:
        return len(self._packs) * _PACKED + len(self._values) // len(_PARTS)

    @property
    def time_ns(self) -> Ints:
        """CLOCK_MONOTONIC of each sample."""
        if len(self._time_ns) < len(self):
            self._time_ns = self._column(0)
        return self._time_ns

    def column(self, source: str, key: str) -> Ints:
        """One number of each sample, one of WANTED; UNREAD where it is missing."""
        return self._column(_number_of(source, key))

    def number(self, source: str, key: str, place: int) -> int:
        """`column(source, key)[place]`, without the others."""
        pack, row = divmod(place, _PACKED)
        number = _number_of(source, key)
        if pack < len(self._packs):
            return self._packs[pack][number].number(row)
        return self._values[row * len(_PARTS) + number]

    def counters(self, place: int) -> dict[str, int]:
        """What one sample has of /proc/vmstat."""
        found = {key: self.number("vmstat", key, place) for key in WANTED["vmstat"]}
        return {key: value for key, value in found.items() if value != UNREAD}

    def _column(self, number: int) -> Ints:
        last = np.frombuffer(self._values, np.int64)[number :: len(_PARTS)]
        return np.concatenate([*(pack[number].numbers() for pack in self._packs), last])

    def _pack(self) -> None:
        """Pack what can be: of ten days of samples each column takes 7 MB as it is."""
        whole = _PACKED * len(_PARTS)
        while len(self._values) >= whole:
            rows = np.array(self._values[:whole]).reshape(_PACKED, -1)
            self._packs.append(list(map(_pack, np.ascontiguousarray(rows.T))))
            del self._values[:whole]


def _number_of(source: str, key: str) -> int:
    """Of a column; that of the moments is the first."""
    return 1 + _COLUMNS.index((source, key))


def _summed(values: tuple[int, ...]) -> list[int]:
    """A number for each column from one for each of _PATHS."""
    row = list(values)
    for first, length in reversed(_SUMMED):
        known = [value for value in row[first : first + length] if value != UNREAD]
        row[first : first + length] = [_sum(known)]
    return row


def _sum(known: list[int]) -> int:
    """Their sum, which fits into a column whatever a damaged file says; UNREAD of none."""
    return sum(known) & _MOST if known else UNREAD


def _places(content: dict[str, Any]) -> _Places | None:
    """Where the numbers of a sample's columns stand; None if it is no regular sample."""
    paths: list[tuple[str, ...]] = []

    def walk(inner: dict[str, Any], above: tuple[str, ...]) -> None:
        for key, value in inner.items():
            if isinstance(value, dict):
                walk(value, (*above, key))
            else:
                paths.append((*above, key))

    walk(content, ())
    special = not content.keys().isdisjoint(_SPECIAL)
    if special or ("t_ns",) not in paths or not isinstance(content.get("vmstat"), dict):
        return None
    found = {path: place for place, path in enumerate(paths)}
    there = ([found[path] for path in parts if path in found] for parts in _PARTS)
    of = {column: places for column, places in enumerate(there) if places}
    alone = {column: places[0] for column, places in of.items() if len(places) == 1}
    sums = {column: places for column, places in of.items() if len(places) > 1}
    return _Places(list(alone), list(alone.values()), sums)
