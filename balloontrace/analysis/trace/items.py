# SPDX-License-Identifier: Apache-2.0
"""The fields of events as they stand in blocks of a recording: in rows, or in planes."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from balloontrace.recording.reader import Planes, Span

Array = npt.NDArray[Any]

_LEAST_PLANES = 1024
"""Events from which on planes are not made rows first: an array for each field costs some time."""


class Items:
    """Spans of events in order: `items[name]` is one array of all their values of a field.

    A torn event at the end of a span is passed over.
    """

    def __init__(self, layout: np.dtype[np.void]) -> None:
        """layout: of one event."""
        self._layout, self._size = layout, layout.itemsize
        self._rows: list[bytes] = []
        self._parts: list[Array | Planes] = []
        self._arrays: dict[str, Array] = {}
        self.bytes = 0

    def add(self, spans: list[Span]) -> None:
        """Take spans."""
        lengths = list(map(len, spans))
        if set(map(type, spans)) == {bytes} and not any(n % self._size for n in set(lengths)):
            self._rows += spans  # type: ignore[arg-type]  # all are bytes
            self.bytes += sum(lengths)
            return
        for span in spans:
            self._add(span)

    def _add(self, span: Span) -> None:
        size = self._size
        if isinstance(span, Planes):
            if span.item_bytes == size and len(span.payload) >= size * _LEAST_PLANES:
                self._join_rows()
                self._parts.append(span)
                self.bytes += len(span.payload) // size * size
                return
            span = span.rows
        if torn := len(span) % size:
            span = span[:-torn]
        self._rows.append(span)
        self.bytes += len(span)

    def _join_rows(self) -> None:
        """Put spans in rows that follow each other together."""
        if self._rows:
            self._parts.append(np.frombuffer(b"".join(self._rows), self._layout))
            self._rows = []

    def __len__(self) -> int:
        return self.bytes // self._size

    def __getitem__(self, name: str) -> Array:
        if name not in self._arrays:
            self._join_rows()
            arrays = [self._field(part, name) for part in self._parts]
            self._arrays[name] = arrays[0] if len(arrays) == 1 else np.concatenate(arrays)
        return self._arrays[name]

    def _field(self, part: Array | Planes, name: str) -> Array:
        if not isinstance(part, Planes):
            return part[name]
        size = self._size
        number = len(part.payload) // size
        planes = np.frombuffer(part.payload, np.uint8, number * size).reshape(size, number)
        fields: Any = self._layout.fields
        kind, offset = fields[name][:2]
        mine = planes[offset : offset + kind.itemsize]
        values: Array = np.ascontiguousarray(mine.T).view(kind).reshape(number)
        return values
