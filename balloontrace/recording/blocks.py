# SPDX-License-Identifier: Apache-2.0
"""Finds the valid blocks of a .btrace file, whatever else is in it (docs/format.md).

A reader that meets damage looks for the next valid frame. A guest at rest writes two small blocks a
second, 1.7 million in ten days: their frames are found together, a window of the file at a time.
"""

from __future__ import annotations

import os
import zlib
from bisect import bisect_left
from collections.abc import Iterator
from itertools import repeat
from typing import Any, BinaryIO, NamedTuple

import numpy as np
import numpy.typing as npt

from balloontrace.recording import layout
from balloontrace.recording.block import Block, Damage, block_at, payload_of


def _large_inflater() -> Any:
    """ISA-L's zlib, which inflates large blocks in three quarters of the time, and sums up all in a
    third, or the standard one where that is not installed."""
    try:
        from isal import isal_zlib
    except ImportError:
        return zlib
    return isal_zlib


_LARGE = _large_inflater()

_WASTE_SHARE, _WASTE_BYTES = 16, 256 << 20
"""What a reader sums up in vain, and what it inflates beyond four times the file, is at most so
many times the file's size, and so much more: nobody can make a file that takes for ever to read. Of
a file that is only damaged each block is summed up in vain twice."""

_TINY, _TINY_RAW = 1 << 10, 1 << 13
"""Bytes, stored and inflated, of the blocks of a guest at rest: samples, and a few events."""

_WINDOW = 1 << 20
"""Bytes of a file that are read, and searched for frames, at once."""

_FRAME = np.dtype(
    [
        ("sync", "<u4"),
        ("kind", "u1"),
        ("flags", "u1"),
        ("item", "<u2"),
        ("sequence", "<u4"),
        ("stored", "<u4"),
        ("raw", "<u4"),
        ("crc", "<u4"),
    ]
)
"""layout.FRAME"""


class Run(NamedTuple):
    """Valid blocks, each where the one before ends: a column for each field of Block, which spares
    an object of each."""

    kinds: bytes
    flags: bytes
    item_bytes: list[int]
    sequences: list[int]
    payloads: list[bytes]
    offsets: list[int]
    ends: list[int]

    def blocks(self) -> Iterator[Block]:
        """The blocks, one by one."""
        return map(Block, *self)

    def block(self, number: int) -> Block:
        """One of the blocks."""
        return next(self.part(number, number + 1).blocks())

    def part(self, first: int, last: int) -> Run:
        """The blocks from the first to before the last."""
        columns: Any = self
        cut = [column[first:last] for column in columns]
        return Run(*cut)


class Source:
    """The bytes of a file, `data[:b]` and `data[a:b]`, read when they are asked for.

    Not mapped: whoever truncates a mapped file kills its reader (SIGBUS). What is gone by then is
    an end that comes early.
    """

    def __init__(self, file: BinaryIO) -> None:
        """Raises OSError if the file cannot be read at any place, as a pipe."""
        self._file = file
        self._length = file.seek(0, os.SEEK_END)
        self._start, self._window = 0, b""

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, span: slice) -> bytes:
        start, stop = span.start or 0, span.stop
        first, last = start - self._start, stop - self._start
        if first < 0 or last > len(self._window):
            if stop - start > _WINDOW:
                return os.pread(self._file.fileno(), stop - start, start)
            self._start, first, last = start, 0, stop - start
            self._window = os.pread(self._file.fileno(), _WINDOW, start)
        return self._window[first:last]

    def find(self, wanted: bytes, start: int) -> int:
        """The first place of `wanted` from `start` on; -1: there is none."""
        while True:
            # Only behind what is in the window is the file read: each byte once for many places.
            if not 0 <= start - self._start <= len(self._window) - len(wanted):
                self._start, self._window = start, os.pread(self._file.fileno(), _WINDOW, start)
                if len(self._window) < len(wanted):
                    return -1
            place = self._window.find(wanted, start - self._start)
            if place >= 0:
                return self._start + place
            start = self._start + len(self._window) - len(wanted) + 1


def read_blocks(data: bytes | Source) -> Iterator[Block | Damage]:
    """Every valid block of `data` (a whole file) in order, and the spans between that are not.

    Raises nothing: whatever `data` holds, what is readable is returned, unless it was made to take
    for ever (see _WASTE_SHARE): then the rest is damage.
    """
    for found in runs_of_blocks(data):
        if isinstance(found, Damage):
            yield found
        else:
            yield from found.blocks()


def runs_of_blocks(data: bytes | Source) -> Iterator[Run | Damage]:
    """`read_blocks`, some blocks that follow each other at once."""
    offset = len(layout.MAGIC) if data[: len(layout.MAGIC)] == layout.MAGIC else 0
    bad_from, length = offset, len(data)
    vain_left = _WASTE_SHARE * length + _WASTE_BYTES
    inflated_left = vain_left + 4 * length
    window = _Window(data, offset)
    while offset < length and vain_left >= 0 and inflated_left >= 0:
        if offset >= window.end:
            window = _Window(data, offset)
        run = window.run(offset)
        if run is None:
            block, end = block_at(data, offset, length, _LARGE)
            if block is None:
                vain_left -= 2 * (end - offset)
                following = data.find(layout.SYNC, offset + 1)
                offset = following if following >= 0 else length
                continue
            run = _run_of(block)
        if offset > bad_from:
            yield Damage(bad_from, offset - bad_from)
        yield run
        inflated_left -= sum(map(len, run.payloads))
        offset = bad_from = run.ends[-1]
    if length > bad_from:
        yield Damage(bad_from, length - bad_from)


class _Window:
    """Some of a file, and the frames in it whose blocks end in it, too, found at once.

    end: where it ends in the file.
    """

    _AT_ONCE, _STORED = 512, 1 << 16
    """Blocks, and bytes of tiny ones, that are taken together: of so many no more than 64 MiB can
    be inflated."""

    _INFLATED = 1 << 20
    """Bytes from which on no more blocks are kept at once."""

    def __init__(self, data: bytes | Source, start: int) -> None:
        self._part = data[start : start + _WINDOW]
        self._start, self.end = start, start + len(self._part)
        places, frames = _frames_in(self._part)
        ends = places + layout.FRAME.size + frames["stored"]
        whole = (ends <= len(self._part)) & (frames["raw"] <= layout.MAX_PAYLOAD)
        places, ends, frames = places[whole], ends[whole], frames[whole]
        self._places: list[int] = places.tolist()
        self._offsets: list[int] = (places + start).tolist()
        self._ends: list[int] = (ends + start).tolist()
        self._stops: list[int] = ends.tolist()
        self._summed: list[int] = (places + layout.SUMMED).tolist()
        self._begins: list[int] = (places + layout.FRAME.size).tolist()
        self._breaks: list[int] = np.flatnonzero(ends[:-1] != places[1:]).tolist()
        self._kinds, self._flags = frames["kind"].tobytes(), frames["flags"].tobytes()
        self._columns: list[list[int]] = [
            frames[name].tolist() for name in ("item", "sequence", "raw", "crc")
        ]
        tiny = frames["flags"] & ~np.uint8(layout.REFERENCE) == layout.ZLIB
        tiny &= frames["stored"] <= _TINY
        tiny &= frames["raw"] <= _TINY_RAW
        self._are_tiny = tiny.tobytes()
        self._doubtful = False

    def run(self, offset: int) -> Run | None:
        """Some valid blocks, the first at `offset` of the file; None if there is none, or it does
        not end in this window."""
        place = offset - self._start
        first = bisect_left(self._places, place)
        if first == len(self._places) or self._places[first] != place:
            return None
        after = bisect_left(self._breaks, first)
        last = self._breaks[after] + 1 if after < len(self._breaks) else len(self._places)
        last = min(last, first + self._AT_ONCE)
        payloads: list[bytes] = []
        if not self._doubtful:
            tiny = self._are_tiny[first]
            other = self._are_tiny.find(not tiny, first, last)
            last = other if other >= 0 else last
            if tiny:
                near = bisect_left(self._places, place + self._STORED, first, last)
                payloads = self._tiny(first, near)
        payloads = payloads or self._valid(first, last)
        if not payloads:
            return None
        last = first + len(payloads)
        items, sequences = (column[first:last] for column in self._columns[:2])
        return Run(
            self._kinds[first:last],
            self._flags[first:last],
            items,
            sequences,
            payloads,
            self._offsets[first:last],
            self._ends[first:last],
        )

    def _tiny(self, first: int, last: int) -> list[bytes]:
        """What these blocks hold, which are tiny, without a step of Python for each; [] if one is
        not valid: then each must be looked at, and so must others near it."""
        some, part = slice(first, last), self._part.__getitem__
        raw, crcs = (column[some] for column in self._columns[2:])
        heads = map(part, map(slice, self._places[some], self._summed[some]))
        bodies = list(map(part, map(slice, self._begins[some], self._stops[some])))
        if list(map(_LARGE.crc32, bodies, map(_LARGE.crc32, heads))) == crcs:
            try:
                payloads = list(map(zlib.decompress, bodies, repeat(zlib.MAX_WBITS), raw))
            except zlib.error:
                payloads = []
            if list(map(len, payloads)) == raw:
                return payloads
        self._doubtful = True
        return []

    def _valid(self, first: int, last: int) -> list[bytes]:
        """What these blocks hold up to the first that is not valid."""
        left, payloads = self._INFLATED, list[bytes]()
        items, _, raw, crcs = self._columns
        for number in range(first, last):
            stored = self._part[self._begins[number] : self._stops[number]]
            summed = self._part[self._places[number] : self._summed[number]]
            if left < 0 or _LARGE.crc32(stored, _LARGE.crc32(summed)) != crcs[number]:
                break
            payload = payload_of(self._flags[number], items[number], stored, raw[number], _LARGE)
            if payload is None:
                break
            left -= len(payload)
            payloads.append(payload)
        return payloads


def _frames_in(part: bytes) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.void]]:
    """Where in `part` frames begin, or what looks like one; and these."""
    data = np.frombuffer(part, np.uint8)
    places = np.flatnonzero(data[: max(0, len(data) - layout.FRAME.size + 1)] == layout.SYNC[0])
    for number, byte in enumerate(layout.SYNC[1:], 1):
        places = places[data[places + number] == byte]
    frames = data[places[:, None] + np.arange(layout.FRAME.size)]
    return places, frames.view(_FRAME).reshape(-1)


def _run_of(block: Block) -> Run:
    """One block as a run."""
    kind, flags, *others = block
    columns: Any = [[value] for value in others]
    return Run(bytes([kind]), bytes([flags]), *columns)
