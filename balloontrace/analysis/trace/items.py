# SPDX-License-Identifier: Apache-2.0
"""The fields of events as they stand in blocks of a recording: in rows, or in planes."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from balloontrace.recording.reader import Planes, Span

Array = npt.NDArray[Any]
Bytes = npt.NDArray[np.uint8]


class Items:
    """Spans of events in order: `items[name]` is one array of all their values of a field.

    A torn event at the end of a span is passed over.
    """

    def __init__(self, layout: np.dtype[np.void]) -> None:
        """layout: of one event."""
        self._layout, self._size = layout, layout.itemsize
        self._rows: list[bytes] = []
        self._parts: list[Bytes] = []
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
            if span.item_bytes == size:
                self._join_rows()
                whole = len(span.payload) // size * size
                self._parts.append(np.frombuffer(span.payload, np.uint8, whole).reshape(size, -1))
                self.bytes += whole
                return
            span = span.rows
        if torn := len(span) % size:
            span = span[:-torn]
        self._rows.append(span)
        self.bytes += len(span)

    def _join_rows(self) -> None:
        """Put spans in rows that follow each other together."""
        if self._rows:
            rows = np.frombuffer(b"".join(self._rows), np.uint8)
            self._parts.append(rows.reshape(-1, self._size).T)
            self._rows = []

    def __len__(self) -> int:
        return self.bytes // self._size

    def __getitem__(self, name: str) -> Array:
        if name not in self._arrays:
            cells, kind = self._cells(name), self._layout[name]
            if kind.itemsize == 1 or cells.strides[0] == 1:  # each value's bytes stand together
                self._arrays[name] = cells.T.view(kind)[:, 0]
            else:
                self._arrays[name] = np.empty(len(self), kind)
                bytes_of = self._arrays[name].view(np.uint8).reshape(-1, kind.itemsize)
                for place, plane in enumerate(cells):  # faster than to transpose them at once
                    bytes_of[:, place] = plane
        return self._arrays[name]

    def at(self, name: str, places: npt.NDArray[np.intp]) -> Array:
        """The values of a field in some of the events."""
        cells = self._cells(name)[:, places]
        values: Array = np.ascontiguousarray(cells.T).view(self._layout[name])[:, 0]
        return values

    def changes(self, *names: str) -> npt.NDArray[np.bool_]:
        """Which events differ in any of these fields from the one before; the first one does."""
        differ = np.zeros(len(self), bool)
        differ[:1] = True
        for name in names:
            for plane in self._cells(name):
                differ[1:] |= plane[1:] != plane[:-1]
        return differ

    def _cells(self, name: str) -> Bytes:
        """The bytes of a field: a row for each of a value's bytes, a column for each event."""
        self._join_rows()
        if len(self._parts) > 1:
            self._parts = [np.concatenate(self._parts, axis=1)]
        fields: Any = self._layout.fields
        kind, offset = fields[name][:2]
        return self._parts[0][offset : offset + kind.itemsize]
