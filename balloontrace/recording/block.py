# SPDX-License-Identifier: Apache-2.0
"""One block of a recording (docs/format.md): frame, checksum, payload. Standard library only: who
follows a stream in a guest reads with this, too."""

from __future__ import annotations

import zlib
from typing import Any, NamedTuple, Protocol

from balloontrace.recording import layout

_SHORT = 1 << 16
"""Stored bytes up to which a block is inflated at one go, which spares a copy: deflate makes at
most 1,032 times as much of them."""

_SMALL = 1 << 12
"""Stored bytes up to which the standard zlib is no slower than ISA-L's."""


class Bytes(Protocol):
    """Bytes, or what hands them out by `data[a:b]`."""

    def __getitem__(self, span: slice, /) -> bytes:
        """Those from a to before b."""


class Block(NamedTuple):
    """One valid block: its type and flags, its place in the writer's order, its payload inflated.

    item_bytes: of what stands in planes, 0 if nothing does; offset, end: where it stands in the
    file.
    """

    kind: int
    flags: int
    item_bytes: int
    sequence: int
    payload: bytes
    offset: int
    end: int

    @property
    def rows(self) -> bytes:
        """The payload as it was before it was sorted into planes."""
        in_planes = self.flags & layout.PLANES
        return layout.from_planes(self.payload, self.item_bytes) if in_planes else self.payload


class Damage(NamedTuple):
    """A span of bytes in which no valid block was found; or a value in the block at `offset` that
    is not as it must be, and was left out (its length as text)."""

    offset: int
    length: int


def block_at(data: Bytes, offset: int, length: int, large: Any = zlib) -> tuple[Block | None, int]:
    """The block whose frame starts at `offset`, or None; and the end of what was read for it.
    length: of all data; large: what has zlib's functions for large blocks."""
    frame = data[offset : offset + layout.FRAME.size]
    start = offset + layout.FRAME.size
    if len(frame) < layout.FRAME.size:
        return None, offset
    sync, kind, flags, item, sequence, stored_len, raw_len, crc = layout.FRAME.unpack(frame)
    end = start + stored_len
    if sync != layout.SYNC or max(stored_len, raw_len) > layout.MAX_PAYLOAD or length < end:
        return None, offset
    stored = data[start:end]
    if large.crc32(stored, large.crc32(frame[: layout.SUMMED])) != crc:
        return None, end
    payload = payload_of(flags, item, stored, raw_len, large)
    if payload is None:
        return None, end + raw_len
    return Block(kind, flags, item, sequence, payload, offset, end), end


def payload_of(
    flags: int, item: int, stored: bytes, raw_len: int, large: Any = zlib
) -> bytes | None:
    """What a block holds, inflated; None if that is not what its frame says.

    If there is more in it than `raw_len`, no more is inflated than one byte over that, or 64 MiB.
    """
    try:
        if not flags & layout.ZLIB:
            payload = stored
        elif len(stored) <= _SMALL:
            payload = zlib.decompress(stored, bufsize=raw_len)
        elif len(stored) <= _SHORT:
            payload = large.decompress(stored, bufsize=raw_len)
        else:
            payload = large.decompressobj().decompress(stored, raw_len + 1)
    except (zlib.error, large.error):
        return None
    if len(payload) != raw_len or (flags & layout.PLANES and not item):
        return None
    return payload
