# SPDX-License-Identifier: Apache-2.0
"""Reads a .btrace file, format 1 or 2, as far as it can be read (docs/format.md)."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, BinaryIO, NamedTuple, Protocol

from balloontrace import untrusted_json
from balloontrace.errors import UserError
from balloontrace.recording import layout
from balloontrace.recording.blocks import Block, Damage, Fields, Source, runs_of_blocks
from balloontrace.recording.differences import Differences, Reference

MAX_PIPED = 1 << 30
"""Bytes of a recording that comes through a pipe, and is kept in memory."""


class Planes(NamedTuple):
    """A span of events in planes, as many bytes each has (docs/format.md)."""

    payload: bytes
    item_bytes: int

    @property
    def rows(self) -> bytes:
        """The span as it was read from the ring."""
        return layout.from_planes(self.payload, self.item_bytes)


Span = bytes | Planes
"""The events of a block: one after the other, or in planes."""


def rows_of(span: Span) -> bytes:
    """The events of a block, one after the other."""
    return span if isinstance(span, bytes) else span.rows


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


EventsTaker = Callable[[Recording, Span], None]


class SampleTaker(Protocol):
    """Who wants samples as they are read."""

    def take(self, payload: bytes) -> bool:
        """Take the JSON of a sample; False: it must be read with care."""

    def take_differences(self, reference: Reference, payloads: list[bytes]) -> bool:
        """Take samples that stand as differences from `reference`; False, and none is taken, if
        they must be read with care. Each payload is as in the file, and as long as it must be."""

    def add(self, sample: dict[str, Any]) -> bool:
        """Take a sample that was; False: somebody else must keep it."""


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
    sorting = _Sorting(found, take, samples)
    expected, length = 0, len(data)
    for run in runs_of_blocks(data):
        if isinstance(run, Damage):
            found.damage.append(run)
            continue
        sequences = [block[3] for block in run]
        if sequences != list(range(expected, expected + len(run))):
            before = [expected, *(sequence + 1 for sequence in sequences[:-1])]
            found.missing_blocks += sum(
                max(0, s - b) for s, b in zip(sequences, before, strict=True)
            )
        expected = sequences[-1] + 1
        found.share_read = run[-1][6] / length
        sorting.take(run)
    sorting.flush()
    found.share_read = 1.0
    if not found.header:
        raise UserError(f"{path} has lost its header", "nothing can be read without it")
    return found


_SHAPES = {
    layout.HEADER: untrusted_json.HEADER,
    layout.SAMPLE: untrusted_json.SAMPLE,
    layout.TRAILER: untrusted_json.TRAILER,
}


class _Sorting:
    """Puts each block where it belongs, without what is not as it must be: that is damage."""

    def __init__(
        self, found: Recording, take: EventsTaker | None, samples: SampleTaker | None
    ) -> None:
        self._found, self._take, self._taker = found, take, samples
        self._differences = Differences()

    def take(self, run: list[Fields]) -> None:
        """Take blocks in order."""
        events, differences, gathered = layout.EVENTS, layout.DIFFERENCES, self._differences
        take, found = self._take, self._found
        for block in run:
            kind, payload = block[0], block[4]
            if kind == differences:
                if not gathered.add(block):
                    found.damage.append(Damage(block[5], len(payload)))
            elif kind == events:
                span = Planes(payload, block[2]) if block[1] & layout.PLANES else payload
                if take:
                    take(found, span)
                else:
                    found.events.append(rows_of(span))
            elif kind in _SHAPES:
                self._json(Block(*block))
        if gathered.full:
            self.flush()

    def _json(self, block: Block) -> None:
        if block.kind == layout.SAMPLE:
            self.flush()
            if block.flags & layout.REFERENCE:
                self._differences.refer_to(block.sequence, block.rows)
            if self._taker is not None and self._taker.take(block.rows):
                return
        try:
            content = json.loads(block.rows)
        except (ValueError, RecursionError):
            content = None
        content = self._fit(content, block.kind, block.offset, len(block.payload))
        if content is None:
            return
        if block.kind == layout.SAMPLE:
            self._keep(content)
        elif block.kind == layout.TRAILER:
            self._found.trailer = content
        elif content.get("format") is not None and not self._found.header:
            _check_format(self._found.path, content["format"])
            self._found.header = content

    def flush(self) -> None:
        """Read the differences that were gathered."""
        gathered, taker = self._differences, self._taker
        if not gathered.blocks:
            return
        payloads = [block[4] for block in gathered.blocks]
        if taker is None or not taker.take_differences(gathered.reference, payloads):
            for block, sample in zip(gathered.blocks, gathered.samples(), strict=True):
                content = self._fit(sample, layout.SAMPLE, block[5], len(block[4]))
                if content is not None:
                    self._keep(content)
        gathered.blocks = []

    def _fit(self, content: Any, kind: int, offset: int, length: int) -> dict[str, Any] | None:
        """What fits of the content of a block. length: of damage, if none of it does."""
        fitting = untrusted_json.Fitting()
        fitted = fitting.fit(content, _SHAPES[kind]) if content is not None else None
        if not isinstance(fitted, dict):
            self._found.damage.append(Damage(offset, length))
            return None
        self._found.damage += [Damage(offset, len(repr(value))) for value in fitting.dropped]
        return fitted

    def _keep(self, sample: dict[str, Any]) -> None:
        if self._taker is None or not self._taker.add(sample):
            self._found.samples.append(sample)


def _check_format(path: str, version: int) -> None:
    if version > layout.FORMAT_VERSION:
        raise UserError(
            f"{path} has format {version}, this version reads up to {layout.FORMAT_VERSION}",
            "upgrade balloontrace",
        )
