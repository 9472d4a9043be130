# SPDX-License-Identifier: Apache-2.0
"""Writes a .btrace file (docs/format.md). Runs inside small guests, whose memory counts."""

from __future__ import annotations

import errno
import os
import struct
import zlib

from balloontrace import events, json_text
from balloontrace.errors import UserError
from balloontrace.recording import layout

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from balloontrace.recording.spool import Spool

ITEM_BYTES = events.RING_HEADER_BYTES + events.record_bytes()
"""Of one event in a span of the ring."""

_PIECE_BYTES = 7 * ITEM_BYTES
"""Of events that cannot be compressed for want of memory: with its frame it is small enough for
Python to have room for in what it holds already."""

LEAST_PLANES = 16
"""Events from which on planes are smaller: of fewer, rows are."""

REFERENCE_INTERVAL = 64
"""Samples from one that is written in full to the next: as many are lost with it."""

_FASTEST = 1
_LIMIT = 1 << 63

_SMALL, _SMALL_WINDOW, _SMALL_MEMORY = 1 << 10, 10, 4
"""Bytes of what zlib compresses in a window of 2^10 bytes with little memory, for most of the time
that a small block takes is to clear what zlib needs for a large one."""


def _compressed(raw: bytes | memoryview) -> bytes:
    """As a zlib stream, fast."""
    if len(raw) > _SMALL:
        return zlib.compress(raw, _FASTEST)
    packer = zlib.compressobj(_FASTEST, zlib.DEFLATED, _SMALL_WINDOW, _SMALL_MEMORY)
    return packer.compress(raw) + packer.flush()


def _packed(raw: bytes | memoryview) -> tuple[bytes | memoryview, int]:
    """How it stands in the file, and the flag that says so: as it is where there is no memory to
    compress it."""
    try:
        return _compressed(raw), layout.ZLIB
    except MemoryError:
        return raw, 0


class Writer:
    """Appends blocks to a file descriptor with one write(2) each. Nothing is held back but a few
    events that a sample follows at once, and samples that more are to follow soon.

    left_out: events for which a spool had no room.
    Every method raises UserError if the file (called `name` for people) takes no more.
    """

    def __init__(
        self, fd: int, name: str = "the recording", sequence: int = 0, spool: Spool | None = None
    ) -> None:
        """sequence: number of the first block, where this goes on from another recording; spool:
        what lies between this and `fd`, where a reader may be slow."""
        self._fd = fd
        self._name = name
        self._sequence = sequence
        self._spool = spool
        self.left_out = 0
        self._reference = 0
        self._referring = 0
        self._names: list[Any] = []
        self._numbers: list[int] = []
        self._held = b""
        self._held_changes: list[int] = []
        self.bytes_written = 0
        self._write(layout.MAGIC)

    def header(self, content: dict[str, Any]) -> None:
        """Write the first block; `content` is the recording's metadata."""
        self._json(layout.HEADER, {**content, "format": layout.FORMAT_VERSION})

    def events(self, span: bytes | memoryview, sample_follows: bool = False) -> None:
        """Write a span of the ring as it was read: records with their ring headers.

        sample_follows: a few events are written with that, in one block: of a guest at rest that
        is half as many to write and to read. If none does, `write_held`.
        """
        if len(span) < LEAST_PLANES * ITEM_BYTES:
            self.write_held()
            if sample_follows:
                self._held = bytes(span)
            else:
                self._block(layout.EVENTS, span)
            return
        try:
            packer = zlib.compressobj(_FASTEST)
            parts = [packer.compress(plane) for plane in layout.planes(bytes(span), ITEM_BYTES)]
            stored = b"".join([*parts, packer.flush()])
        except MemoryError:
            for start in range(0, len(span), _PIECE_BYTES):
                piece = span[start : start + _PIECE_BYTES]
                self._append(layout.EVENTS, 0, 0, len(piece), piece)
            return
        flags = layout.ZLIB | layout.PLANES
        self._append(layout.EVENTS, flags, ITEM_BYTES, len(span), stored)

    def sample(self, content: dict[str, Any], more_follow: bool = False) -> None:
        """Write what the slow sources said at one moment (`t_ns`, CLOCK_MONOTONIC).

        Nothing but numbers is written as differences from an earlier sample of the same names:
        that takes half the time of JSON, and an eighth of the space. more_follow: such samples are
        written with those that follow, in one block.
        """
        names: list[Any] = []
        numbers: list[int] = []
        plain = layout.flatten(content, names, numbers) and bool(numbers)
        if not plain or min(numbers) < 0 or max(numbers) >= _LIMIT:
            self._json(layout.SAMPLE, content)
        elif self._referring and names == self._names:
            self._referring -= 1
            self._held_changes += [now - before for now, before in zip(numbers, self._numbers)]
            if not more_follow:
                self.write_held()
        else:
            self.write_held()  # it counts as a block before this one
            self._reference, self._referring = self._sequence, REFERENCE_INTERVAL - 1
            self._names, self._numbers = names, numbers
            self._json(layout.SAMPLE, content, layout.REFERENCE)

    def write_held(self) -> None:
        """Write what was held back: samples that no more followed, events that no sample did."""
        changes, self._held_changes = self._held_changes, []
        events, self._held = self._held, b""
        if changes:
            self._differences(events, changes)
        elif events:
            self._block(layout.EVENTS, events)

    def trailer(self, content: dict[str, Any]) -> None:
        """Write the last block: why the recording ended, counts, losses."""
        self._json(layout.TRAILER, content)

    @property
    def waits(self) -> bool:
        """Whether something waits for a slow reader."""
        return self._spool is not None and self._spool.waiting > 0

    def give(self) -> None:
        """Give a slow reader what it takes of what waits for it."""
        try:
            if self._spool:
                self._spool.give()
        except OSError as error:
            raise self._cannot(error) from None

    def end(self) -> None:
        """Wait for a slow reader, after the trailer."""
        try:
            left = self._spool.end() if self._spool else 0
        except OSError as error:
            raise self._cannot(error) from None
        if left:
            raise UserError(
                f"the reader of {self._name} takes no more, {left:,} bytes were left over",
                "what it has read is kept",
            )

    @property
    def sequence(self) -> int:
        """The number of the next block."""
        return self._sequence

    def sync(self) -> None:
        """Wait until all of it is on the disk. Nothing happens where there is none (a pipe)."""
        try:
            os.fdatasync(self._fd)
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise self._cannot(error) from None

    def _differences(self, events: bytes, changes: list[int]) -> None:
        packed = struct.pack(f"<{len(changes)}q", *changes)
        said_from = layout.SAID_FROM.pack(self._reference)
        raw = b"".join((events, said_from, *layout.planes(packed, layout.NUMBER_BYTES)))
        kind = layout.BOTH if events else layout.DIFFERENCES
        stored, flags = _packed(raw)
        self._append(kind, flags, len(events), len(raw), stored)

    def _json(self, kind: int, content: dict[str, Any], flags: int = 0) -> None:
        self._block(kind, json_text.dumps(content).encode(), flags)

    def _block(self, kind: int, raw: bytes | memoryview, flags: int = 0) -> None:
        stored, packed = _packed(raw)
        self._append(kind, flags | packed, 0, len(raw), stored)

    def _append(
        self, kind: int, flags: int, item: int, raw: int, stored: bytes | memoryview
    ) -> None:
        """Write one block: its payload as it is to stand in the file, and how long it was."""
        self.write_held()
        fields = (layout.SYNC, kind, flags, item, self._sequence, len(stored), raw, 0)
        summed = layout.FRAME.pack(*fields)[: layout.SUMMED]
        crc = zlib.crc32(stored, zlib.crc32(summed))
        needed = kind in (layout.HEADER, layout.TRAILER)
        if not self._write(summed + layout.CRC.pack(crc) + stored, needed):
            self._leave_out(kind, flags, item if kind == layout.BOTH else raw)
        self._sequence += 1

    def _leave_out(self, kind: int, flags: int, raw: int) -> None:
        """A block was not taken. raw: bytes of its events, if it is one of these."""
        if kind in (layout.EVENTS, layout.BOTH):
            self.left_out += raw // ITEM_BYTES
        if flags & layout.REFERENCE:
            self._referring = 0

    def _write(self, data: bytes, needed: bool = True) -> bool:
        """False: there was no room for it in the spool. needed: there is."""
        view = memoryview(data)
        try:
            if self._spool:
                if not self._spool.put(data, needed):
                    return False
                view = view[:0]
            while view:
                view = view[os.write(self._fd, view) :]
        except OSError as error:
            raise self._cannot(error) from None
        self.bytes_written += len(data)
        return True

    def unread(self) -> UserError:
        """That nobody reads what is written, any more."""
        return self._cannot(BrokenPipeError(errno.EPIPE, os.strerror(errno.EPIPE)))

    def _cannot(self, error: OSError) -> UserError:
        return UserError(
            f"cannot go on writing {self._name}: {error.strerror}",
            "what was recorded before is kept",
        )
