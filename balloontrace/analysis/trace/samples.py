# SPDX-License-Identifier: Apache-2.0
"""The regular samples of a recording as columns, filled while it is read.

A guest at rest writes little but samples, one a second: 864,000 in ten days, of some sixty numbers
each. Only those that an analysis asks for are kept. An export, which shows all, reads them anew.
"""

from __future__ import annotations

from array import array
from operator import attrgetter
from typing import Annotated, Any

import msgspec
import numpy as np
import numpy.typing as npt

from balloontrace.analysis.trace.task_delays import TaskDelays
from balloontrace.recording.differences import Reference

Ints = npt.NDArray[np.int64]

WANTED = {
    "vmstat": (
        *("balloon_inflate", "balloon_deflate", "balloon_migrate", "oom_kill"),
        *("workingset_refault_file", "workingset_refault"),
    ),
    "meminfo": ("MemFree", "MemAvailable"),
    "memory": ("some_us", "full_us"),
}
"""What is kept of each source; `memory` is that of PSI."""

UNREAD = -1
"""In a column: this sample does not have it."""

_COLUMNS = [(source, key) for source, keys in WANTED.items() for key in keys]

_SPECIAL = ("driver", "uevent", "uevents", "delays", "delayacct", "since_boot",
            "taskstats_version", "why", "failed", "mark", "stats", "cgroups")  # fmt: skip
"""A sample with any of these tells more than numbers."""

_Whole = Annotated[int, msgspec.Meta(ge=0, le=(1 << 63) - 1)]
_STRUCTS: dict[str, Any] = {
    source: msgspec.defstruct(source, [(key, _Whole, UNREAD) for key in keys], frozen=True)
    for source, keys in WANTED.items()
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
_VALUES = attrgetter("t_ns", *(f"{'psi.' * (s == 'memory')}{s}.{key}" for s, key in _COLUMNS))
_PATHS = [
    ("t_ns",),
    *(("psi", source, key) if source == "memory" else (source, key) for source, key in _COLUMNS),
]
_OF_DELAYS = {"t_ns", "delays"}
_IS_SPECIAL = attrgetter(*_SPECIAL)
_NONE = (None,) * len(_SPECIAL)


class Samples:
    """Moment and numbers of each regular sample, in the order in which they were taken.

    delays: of tasks, from the samples that have these; last_ns: when the last one was taken that
    holds nothing else, 0: none.
    """

    def __init__(self) -> None:
        self.delays = TaskDelays()
        self.last_ns = 0
        self._decode = msgspec.json.Decoder(_Sample).decode
        self._values = array("q")
        self._table: Ints = np.empty((0, len(_PATHS)), np.int64)
        self._names: list[Any] = []
        self._places: tuple[list[int], list[int]] | None = None

    def take(self, payload: bytes) -> bool:
        """Take a sample as it stands in the file. False if it is not a regular one, or has a number
        that cannot be: whoever reads it with care may `add` it then."""
        try:
            sample = self._decode(payload)
        except (msgspec.MsgspecError, RecursionError, ValueError):
            return False
        if _IS_SPECIAL(sample) != _NONE:
            return False
        self._values.extend(_VALUES(sample))
        return True

    def take_numbers(self, reference: Reference, numbers: Ints) -> bool:
        """Take samples of the names of `reference`, a row of numbers for each. False if they are
        not regular ones, or have a number that cannot be: then none is taken."""
        if reference.names != self._names:
            self._names, self._places = reference.names, _places(reference.content)
        if self._places is None or numbers.min() < 0:
            return False
        rows = np.full((len(numbers), len(_PATHS)), UNREAD, np.int64)
        columns, places = self._places
        rows[:, columns] = numbers[:, places]
        self._values.frombytes(rows.tobytes())
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
            value = held.get(key) if isinstance(held, dict) else None
            self._values.append(UNREAD if value is None else int(value))
        return False

    def within(self, after_ns: int, until_ns: int, delays: TaskDelays) -> Samples:
        """Those taken after one moment and up to another. delays: of tasks, in that time."""
        part = Samples()
        part.delays = delays
        inside = (self.time_ns > after_ns) & (self.time_ns <= until_ns)
        part._values.frombytes(np.ascontiguousarray(self._columns[inside]).tobytes())
        return part

    def __len__(self) -> int:
        return len(self._columns)

    @property
    def time_ns(self) -> Ints:
        """CLOCK_MONOTONIC of each sample."""
        return self._columns[:, 0]

    def column(self, source: str, key: str) -> Ints:
        """One number of each sample, one of WANTED; UNREAD where it is missing."""
        return self._columns[:, 1 + _COLUMNS.index((source, key))]

    def counters(self, place: int) -> dict[str, int]:
        """What one sample has of /proc/vmstat."""
        found = {key: int(self.column("vmstat", key)[place]) for key in WANTED["vmstat"]}
        return {key: value for key, value in found.items() if value != UNREAD}

    @property
    def _columns(self) -> Ints:
        if self._values:
            # The array's own memory: ten days of samples are 90 MB.
            more = np.frombuffer(self._values, np.int64).reshape(-1, len(_PATHS))
            self._table = np.concatenate([self._table, more]) if len(self._table) else more
            self._values = array("q")
        return self._table


def _places(content: dict[str, Any]) -> tuple[list[int], list[int]] | None:
    """The columns that a sample has, and the place of each one's number in the order of flatten;
    None if it is no regular sample."""
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
    there = [column for column, path in enumerate(_PATHS) if path in paths]
    return there, [paths.index(_PATHS[column]) for column in there]
