# SPDX-License-Identifier: Apache-2.0
"""Reads a recording as it comes: from a pipe, or a file that grows (docs/format.md).

What one block is, the reader of whole files has from the same places. Standard library only, for it
runs in guests. Damage is passed over as there: the next valid frame is looked for, and none that a
damaged length promises is awaited while valid blocks come behind it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

from balloontrace.errors import UserError
from balloontrace.recording import layout
from balloontrace.recording.block import Block, block_at
from balloontrace.recording.content import check_format, fitted, parsed
from balloontrace.recording.differences import Differences

_VAIN_SHARE, _VAIN_BYTES = 16, 256 << 20
"""What is summed up in vain, as in blocks.py; a frame that is looked at counts _FRAME_VAIN."""

_FRAME_VAIN = 1 << 10


class Part(NamedTuple):
    """What one block brought. kind: layout.HEADER, EVENTS, SAMPLE or TRAILER; content: of EVENTS
    their bytes, one after the other; else what fits of the JSON."""

    kind: int
    content: Any


class Following:
    """A stream, piece by piece.

    bytes: that came; damage_bytes: in which there was no valid block, or no valid content;
    missing_blocks: that the sequence shows to be lost between others; waiting: bytes that are kept
    for a block of which more is to come.
    """

    def __init__(self, name: str) -> None:
        """name: of the stream, for people."""
        self._name = name
        self.bytes = self.damage_bytes = self.missing_blocks = self.waiting = 0
        self._pieces: list[bytes] = []
        self._try_at, self._vain = 1, 0
        self._has_magic = self._has_header = self._has_begun = False
        self._expected = 0
        self._differences = Differences()

    def take(self, data: bytes) -> list[Part]:
        """What is whole of the stream with `data` behind what came before. Raises UserError if it
        is no recording, or one of a format that is too new."""
        self.bytes += len(data)
        self.waiting += len(data)
        self._pieces.append(data)
        return self._read(ended=False) if self.waiting >= self._try_at else []

    def end(self) -> list[Part]:
        """What is left at the end of the stream; a torn block is damage. Raises UserError as
        `take`, and if there was no header."""
        parts = self._read(ended=True)
        if not self._has_magic:
            raise self._no_recording()
        if not self._has_header:
            raise UserError(f"{self._name} has lost its header", "nothing can be read without it")
        return parts

    def _read(self, ended: bool) -> list[Part]:
        data = b"".join(self._pieces)
        place = self._magic(data)
        parts: list[Part] = []
        while place is not None and place < len(data):
            block, _ = block_at(data, place, len(data))
            if block is not None:
                place = block.end
                parts += self._parts(block)
                continue
            following = self._following(data, place, ended)
            if following is None:
                break
            self.damage_bytes += following - place
            place = following
        left = data[place or 0 :]
        self._pieces, self.waiting = [left], len(left)
        # Twice as much until it is looked at again: what is large is not joined for each piece.
        self._try_at = min(2 * len(left), self._promised(left)) or 1
        return parts

    def _magic(self, data: bytes) -> int | None:
        """Where blocks begin; None if that is not known yet."""
        if self._has_magic:
            return 0
        begin = data[: len(layout.MAGIC)]
        if not layout.MAGIC.startswith(begin):
            raise self._no_recording()
        self._has_magic = begin == layout.MAGIC
        return len(begin) if self._has_magic else None

    def _no_recording(self) -> UserError:
        if not self.bytes:
            hint = "the recorder had not attached when it was stopped"
            return UserError(f"{self._name} is empty", hint)
        return UserError(
            f"{self._name} is not a balloontrace recording", "record one with: balloontrace record"
        )

    @staticmethod
    def _promised(data: bytes) -> int:
        """How long `data` is to be, by the frame at its begin; a frame's, if that is not whole."""
        if len(data) < layout.FRAME.size:
            return layout.FRAME.size
        *_, stored, _, _ = layout.FRAME.unpack_from(data)
        return int(layout.FRAME.size + stored)

    def _following(self, data: bytes, place: int, ended: bool) -> int | None:
        """Where to go on, as there is no valid block here; None: when more has come."""
        awaited = not ended and self._may_come(data, place)
        following = data.find(layout.SYNC, place + 1)
        while awaited and following >= 0:
            self._vain += _FRAME_VAIN
            if self._vain > _VAIN_SHARE * self.bytes + _VAIN_BYTES:
                return None
            block, end = block_at(data, following, len(data))
            if block is not None:
                return following
            self._vain += end - following
            following = data.find(layout.SYNC, following + 1)
        if awaited:
            return None
        if following >= 0:
            return following
        # The begin of a frame may be at the end of what there is.
        return len(data) if ended else max(place + 1, len(data) - len(layout.SYNC) + 1)

    def _may_come(self, data: bytes, place: int) -> bool:
        """Whether a block that is not whole yet may begin here."""
        frame = data[place : place + layout.FRAME.size]
        if len(frame) < layout.FRAME.size:
            sync = frame[: len(layout.SYNC)]
            return layout.SYNC.startswith(sync)
        sync, _, _, _, _, stored, raw, _ = layout.FRAME.unpack(frame)
        sane = sync == layout.SYNC and max(stored, raw) <= layout.MAX_PAYLOAD
        return bool(sane and place + layout.FRAME.size + stored > len(data))

    def _parts(self, block: Block) -> Iterator[Part]:
        """What a valid block holds."""
        if not self._has_begun and block.kind == layout.HEADER:
            self._expected = block.sequence  # a segment of a longer recording (`watch`)
        self._has_begun = True
        self.missing_blocks += max(0, block.sequence - self._expected)
        self._expected = block.sequence + 1
        if block.kind == layout.EVENTS:
            yield Part(layout.EVENTS, block.rows)
        elif block.kind == layout.BOTH:
            yield Part(layout.EVENTS, block.payload[: block.item_bytes])
            yield from self._changed(block, block.payload[block.item_bytes :])
        elif block.kind == layout.DIFFERENCES:
            yield from self._changed(block, block.payload)
        elif block.kind == layout.SAMPLE:
            yield from self._sample(block)
        elif block.kind in (layout.HEADER, layout.TRAILER):
            yield from self._fitted(
                parsed(block.rows), block.kind, block.offset, len(block.payload)
            )

    def _changed(self, block: Block, payload: bytes) -> Iterator[Part]:
        """Samples as differences from an earlier one."""
        if self._differences.add([payload], [block.offset]):
            self.damage_bytes += len(payload)
        yield from self._gathered()

    def _sample(self, block: Block) -> Iterator[Part]:
        differences, rows = self._differences, block.rows
        if block.flags & layout.REFERENCE:
            if differences.go_on_from(block.sequence, rows, block.offset):
                yield from self._gathered()
                return
            differences.refer_to(block.sequence, rows)
        yield from self._fitted(parsed(rows), layout.SAMPLE, block.offset, len(rows))

    def _gathered(self) -> Iterator[Part]:
        for sample, offset, length in self._differences.samples():
            yield from self._fitted(sample, layout.SAMPLE, offset, length)
        self._differences.forget()

    def _fitted(self, content: Any, kind: int, offset: int, length: int) -> Iterator[Part]:
        found, damage = fitted(content, kind, offset, length)
        self.damage_bytes += sum(one.length for one in damage)
        if found is None:
            return
        if kind == layout.HEADER and not self._has_header:
            if found.get("format") is None:
                return
            check_format(self._name, found["format"])
            self._has_header = True
        yield Part(kind, found)
