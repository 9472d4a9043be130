# SPDX-License-Identifier: Apache-2.0
"""The events of a stream, as its header says they are laid out. A header is untrusted input."""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from typing import Any, NamedTuple

from balloontrace.errors import UserError
from balloontrace.events import CAUSES

_WANTED = (
    *("start_ns", "duration_ns", "asked", "done", "tid", "pid", "kind", "within", "queue"),
    *("flags", "comm"),
)

_FORMAT = re.compile(r"[<|]?([uiSVfc])(\d{1,4})")
_UNSIGNED = {1: "B", 2: "H", 4: "I", 8: "Q"}
_MOST_BYTES = 4096
"""Of one event, as in analysis/trace/trace.py."""

_NUMBERS = 256
"""Of kinds, queues and bits: fields of one byte."""


class Event(NamedTuple):
    """One call, fields as in events.RECORD. Most are read as plain tuples in this order."""

    start_ns: int
    duration_ns: int
    asked: int
    done: int
    tid: int
    pid: int
    kind: int
    within: int
    queue: int
    flags: int
    comm: bytes


class Decoding:
    """How events are read.

    kinds, queues: names by number; within: bits by name.
    """

    def __init__(self, name: str, header: dict[str, Any]) -> None:
        """Raises UserError if the header of the stream of this name does not describe events."""
        self._name = name
        self._layout, self._order = self._read(header)
        self.kinds = _by_number(header.get("kinds"))
        self.queues = _by_number(header.get("queues"))
        within = _numbers(header.get("within"))
        self.within = {name: within.get(name, 0) for name in ("worker", "scan")}
        self._causes = [_cause_of(number, within) for number in range(_NUMBERS)]
        self._flags = _numbers(header.get("flags"))

    def bit(self, flag: str) -> int:
        """The bit of a flag; 0: this recording has none."""
        return self._flags.get(flag, 0)

    def cause(self, within: int) -> str:
        """Of a leak."""
        return self._causes[within % _NUMBERS]

    def events(self, rows: bytes) -> Iterator[tuple[Any, ...]]:
        """The events of a block, each as Event has it; a torn one at its end is passed over."""
        whole = len(rows) - len(rows) % self._layout.size
        found = self._layout.iter_unpack(memoryview(rows)[:whole])
        if self._order == tuple(range(len(_WANTED))):
            return found
        return (tuple(event[place] for place in self._order) for event in found)

    def _read(self, header: dict[str, Any]) -> tuple[struct.Struct, tuple[int, ...]]:
        ring_header, record = header.get("ring_header_bytes"), header.get("record")
        if not isinstance(ring_header, int) or not 0 <= ring_header <= _MOST_BYTES:
            raise self._undescribed("the ring's header is missing")
        if not isinstance(record, list):
            raise self._undescribed("their fields are missing")
        parts, names = [f"<{ring_header}x"], []
        for field in record:
            name, code = self._field(field)
            wanted = name in _WANTED and name not in names
            parts.append(code if wanted else f"{struct.calcsize('<' + code)}x")
            names += [name] * wanted
        lacking = [name for name in _WANTED if name not in names]
        if lacking:
            raise self._undescribed(f"they have no usable field {lacking[0]!r}")
        layout = struct.Struct("".join(parts))
        if layout.size > _MOST_BYTES:
            raise self._undescribed("they cannot be so long")
        return layout, tuple(map(names.index, _WANTED))

    def _field(self, field: Any) -> tuple[str, str]:
        """Name and format of struct."""
        if not isinstance(field, list) or len(field) != 2:
            raise self._undescribed("a field is none")
        name, code = field
        match = _FORMAT.fullmatch(code) if isinstance(code, str) else None
        if not isinstance(name, str) or not match:
            raise self._undescribed("a field is none")
        size = int(match[2])
        if match[1] == "u" and size in _UNSIGNED and name != "comm":
            return name, _UNSIGNED[size]
        text = match[1] == "S" and size and name == "comm"
        return name if text else "", f"{size}s"

    def _undescribed(self, why: str) -> UserError:
        return UserError(f"{self._name} does not describe its events: {why}")


def _numbers(table: Any) -> dict[str, int]:
    """The numbers of a table that fit a byte."""
    if not isinstance(table, dict):
        return {}
    return {name: n for name, n in table.items() if isinstance(n, int) and 0 < n < _NUMBERS}


def _by_number(table: Any) -> dict[int, str]:
    return {number: name for name, number in _numbers(table).items()}


def _cause_of(within: int, numbers: dict[str, int]) -> str:
    """events.cause_of, by this recording's numbers."""
    return next((cause for cause, bit in CAUSES if within & numbers.get(bit, 0)), "unknown")
