# SPDX-License-Identifier: Apache-2.0
"""Reads a .btrace file (docs/format.md), as far as it can be read."""

from __future__ import annotations

import json
import os
import zlib
from collections.abc import Callable, Iterator
from typing import Any, BinaryIO, NamedTuple, Protocol

from balloontrace import untrusted_json
from balloontrace.errors import UserError
from balloontrace.recording import layout

MAX_PAYLOAD = 32 << 20
"""Bytes; a frame that promises more is damage. The writer's largest block is one whole ring."""

MAX_PIPED = 1 << 30
"""Bytes of a recording that comes through a pipe, and is kept in memory."""

_WASTE_SHARE, _WASTE_BYTES = 16, 256 << 20
"""What a reader sums up in vain, and what it inflates beyond four times the file, is at most so
many times the file's size, and so much more: nobody can make a file that takes for ever to read. Of
a file that is only damaged each block is summed up in vain once."""

_SHORT = 1 << 16
"""Stored bytes up to which a block is inflated at one go, which spares a copy: deflate makes at
most 1,032 times as much of them."""


class Block(NamedTuple):
    """One valid block: its type, its place in the writer's order, its payload as first written.

    offset, end: where it stands in the file.
    """

    kind: int
    sequence: int
    payload: bytes
    offset: int
    end: int


class Damage(NamedTuple):
    """A span of bytes in which no valid block was found; or a value in the block at `offset` that
    is not as it must be, and was left out (its length as text)."""

    offset: int
    length: int


class Recording:
    """What could be read of one recording.

    header: metadata; events: the payloads of all event blocks in order; samples: the slow sources;
    trailer: None if the recorder did not get to write it; damage: unreadable spans;
    missing_blocks: blocks that the sequence numbers show to be lost between readable ones;
    share_read: of the file's bytes, 1 when all of it was read.
    """

    def __init__(self, path: str, header: dict[str, Any]) -> None:
        self.path = path
        self.header = header
        self.events: list[bytes] = []
        self.samples: list[dict[str, Any]] = []
        self.trailer: dict[str, Any] | None = None
        self.damage: list[Damage] = []
        self.missing_blocks = 0
        self.share_read = 0.0

    @property
    def complete(self) -> bool:
        """True if the recorder ended in order and every block could be read."""
        return self.trailer is not None and not self.damage and not self.missing_blocks


_SHAPES = {
    layout.HEADER: untrusted_json.HEADER,
    layout.SAMPLE: untrusted_json.SAMPLE,
    layout.TRAILER: untrusted_json.TRAILER,
}

EventsTaker = Callable[[Recording, bytes], None]


class SampleTaker(Protocol):
    """Who wants samples as they are read."""

    def take(self, payload: bytes) -> bool:
        """Take the JSON of a sample; False: it must be read with care."""

    def add(self, sample: dict[str, Any]) -> bool:
        """Take a sample that was; False: somebody else must keep it."""


class Source:
    """The bytes of a file, `data[:b]` and `data[a:b]`, read when they are asked for.

    Not mapped: whoever truncates a mapped file kills its reader (SIGBUS). What is gone by then is
    an end that comes early.
    """

    _WINDOW = 1 << 20

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
            if stop - start > self._WINDOW:
                return os.pread(self._file.fileno(), stop - start, start)
            self._start, first, last = start, 0, stop - start
            self._window = os.pread(self._file.fileno(), self._WINDOW, start)
        return self._window[first:last]

    def find(self, wanted: bytes, start: int) -> int:
        """The first place of `wanted` from `start` on; -1: there is none."""
        while len(part := self[start : start + self._WINDOW]) >= len(wanted):
            place = part.find(wanted)
            if place >= 0:
                return start + place
            start += len(part) - len(wanted) + 1
        return -1


def read_blocks(data: bytes | Source) -> Iterator[Block | Damage]:
    """Every valid block of `data` (a whole file) in order, and the spans between that are not.

    Raises nothing: whatever `data` holds, what is readable is returned, unless it was made to take
    for ever (see _WASTE_SHARE): then the rest is damage.
    """
    offset = len(layout.MAGIC) if data[: len(layout.MAGIC)] == layout.MAGIC else 0
    bad_from, length = offset, len(data)
    vain_left = _WASTE_SHARE * length + _WASTE_BYTES
    inflated_left = vain_left + 4 * length
    while offset < length and vain_left >= 0 and inflated_left >= 0:
        block, end = _block_at(data, offset, length)
        if block is None:
            vain_left -= end - offset
            following = data.find(layout.SYNC, offset + 1)
            offset = following if following >= 0 else length
            continue
        if offset > bad_from:
            yield Damage(bad_from, offset - bad_from)
        yield block
        inflated_left -= len(block.payload)
        offset = bad_from = end
    if length > bad_from:
        yield Damage(bad_from, length - bad_from)


def _block_at(data: bytes | Source, offset: int, length: int) -> tuple[Block | None, int]:
    """The block whose frame starts at `offset`, or None; and the end of what was read for it.
    length: of all data."""
    frame = data[offset : offset + layout.FRAME.size]
    start = offset + layout.FRAME.size
    if len(frame) < layout.FRAME.size:
        return None, offset
    sync, kind, flags, _, sequence, stored_len, raw_len, crc = layout.FRAME.unpack(frame)
    end = start + stored_len
    if sync != layout.SYNC or max(stored_len, raw_len) > MAX_PAYLOAD or length < end:
        return None, offset
    stored = data[start:end]
    if zlib.crc32(stored, zlib.crc32(frame[: layout.SUMMED])) != crc:
        return None, end
    payload = _inflate(stored, raw_len) if flags & layout.ZLIB else stored
    if payload is None or len(payload) != raw_len:
        return None, end + raw_len
    return Block(kind, sequence, payload, offset, end), end


def _inflate(stored: bytes, raw_len: int) -> bytes | None:
    """`stored` decompressed; None if it is not zlib. If it holds more than `raw_len` says, no more
    is inflated than one byte over that, or 64 MiB."""
    try:
        if len(stored) <= _SHORT:
            return zlib.decompress(stored, bufsize=raw_len)
        return zlib.decompressobj().decompress(stored, raw_len + 1)
    except zlib.error:
        return None


STDIN = "-"
"""Instead of a path."""


def read_recording(
    path: str, take: EventsTaker | None = None, samples: SampleTaker | None = None
) -> Recording:
    """Read the .btrace file at `path`, as far as it can be read; STDIN: what comes there.

    take: is given each event block as it is read, with the recording so far, which then does not
    keep them; samples: is given each sample, and the recording keeps those only that this does not
    take. Raises UserError if the file cannot be opened, is not a recording, or has lost its
    header.
    """
    stdin = path == STDIN
    try:
        with open(0 if stdin else path, "rb", closefd=not stdin) as file:
            data = _contents(file)
            if not len(data):
                raise UserError(
                    f"{path} is empty", "the recorder had not attached when it was stopped"
                )
            if data[: len(layout.MAGIC)] != layout.MAGIC:
                raise UserError(
                    f"{path} is not a balloontrace recording",
                    "record one with: balloontrace record",
                )
            return _collect(path, data, take, samples)
    except OSError as error:
        raise UserError(f"cannot read {'stdin' if stdin else path}: {error.strerror}") from None


def _contents(file: BinaryIO) -> bytes | Source:
    """What is in a file, without taking memory for all of it; a pipe is read, if it begins as a
    recording does. Raises UserError if more comes than can be a sensible one."""
    try:
        return Source(file)
    except OSError:
        pass
    begin = file.read(len(layout.MAGIC))
    if begin != layout.MAGIC:
        return begin
    content = begin + file.read(MAX_PIPED)
    if len(content) > MAX_PIPED:
        raise UserError(
            f"over {MAX_PIPED >> 30} GiB came through the pipe", "put it in a file, and read that"
        )
    return content


def _collect(
    path: str, data: bytes | Source, take: EventsTaker | None, samples: SampleTaker | None
) -> Recording:
    """Sort the blocks of a file by type into a Recording."""
    found = Recording(path, {})
    expected = 0
    for block in read_blocks(data):
        if isinstance(block, Damage):
            found.damage.append(block)
            continue
        found.missing_blocks += max(0, block.sequence - expected)
        expected = block.sequence + 1
        found.share_read = block.end / len(data)
        if block.kind == layout.EVENTS and take:
            take(found, block.payload)
        elif block.kind == layout.EVENTS:
            found.events.append(block.payload)
        elif block.kind == layout.SAMPLE and samples is not None:
            taken = samples.take(block.payload)
            if not taken and (content := _take_json(found, block)) and samples.add(content):
                found.samples.pop()
        elif block.kind in (layout.HEADER, layout.SAMPLE, layout.TRAILER):
            _take_json(found, block)
    found.share_read = 1.0
    if not found.header:
        raise UserError(f"{path} has lost its header", "nothing can be read without it")
    return found


def _take_json(found: Recording, block: Block) -> dict[str, Any] | None:
    """Put a JSON block where it belongs, without what is not as it must be: that is damage. Returns
    what is left of it."""
    fitting = untrusted_json.Fitting()
    try:
        content = fitting.fit(json.loads(block.payload), _SHAPES[block.kind])
    except (ValueError, RecursionError):
        content = None
    if content is None:
        found.damage.append(Damage(block.offset, len(block.payload)))
        return None
    found.damage += [Damage(block.offset, len(repr(value))) for value in fitting.dropped]
    if block.kind == layout.SAMPLE:
        found.samples.append(content)
    elif block.kind == layout.TRAILER:
        found.trailer = content
    elif content.get("format") is not None and not found.header:
        _check_format(found.path, content["format"])
        found.header = content
    fitted: dict[str, Any] = content
    return fitted


def _check_format(path: str, version: int) -> None:
    if version > layout.FORMAT_VERSION:
        raise UserError(
            f"{path} has format {version}, this version reads {layout.FORMAT_VERSION}",
            "upgrade balloontrace",
        )
