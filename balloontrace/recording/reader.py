# SPDX-License-Identifier: Apache-2.0
"""Reads a .btrace file, format 1 or 2, as far as it can be read (docs/format.md)."""

from __future__ import annotations

import re
from collections.abc import Callable
from itertools import compress
from typing import Any, BinaryIO, NamedTuple, Protocol

from balloontrace.errors import UserError
from balloontrace.recording import layout
from balloontrace.recording.block import Block, Damage
from balloontrace.recording.blocks import Run, Source, runs_of_blocks
from balloontrace.recording.content import KINDS, check_format, fitted, parsed, since
from balloontrace.recording.differences import Reference
from balloontrace.recording.many_differences import Ints, ManyDifferences

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


EventsTaker = Callable[[Recording, list[Span]], None]


class SampleTaker(Protocol):
    """Who wants samples as they are read."""

    def take(self, payload: bytes) -> bool:
        """Take the JSON of a sample; False: it must be read with care."""

    def take_numbers(self, reference: Reference, numbers: Ints) -> bool:
        """Take samples of the same names as `reference`: a row of numbers for each, in the order of
        layout.flatten, below 0 where one cannot be. False, and none is taken, if they must be read
        with care."""

    def add(self, sample: dict[str, Any]) -> bool:
        """Take a sample that was; False: somebody else must keep it."""


STDIN = "-"
"""Instead of a path."""


def read_recording(
    path: str, take: EventsTaker | None = None, samples: SampleTaker | None = None
) -> Recording:
    """Read the .btrace file at `path`, as far as it can be read; STDIN: what comes there.

    take: is given event blocks as they are read, with the recording so far, which then does not
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
    begun = False
    for run in runs_of_blocks(data):
        if isinstance(run, Damage):
            found.damage.append(run)
            continue
        sequences = run.sequences
        if not begun and run.kinds[0] == layout.HEADER:
            expected = sequences[0]  # a segment of a longer recording, or several (`watch`)
        begun = True
        if sequences != list(range(expected, expected + len(sequences))):
            before = [expected, *(sequence + 1 for sequence in sequences[:-1])]
            found.missing_blocks += sum(
                max(0, s - b) for s, b in zip(sequences, before, strict=True)
            )
        expected = sequences[-1] + 1
        found.share_read = run.ends[-1] / length
        sorting.take(run)
    sorting.flush()
    found.share_read = 1.0
    if found.trailer is not None and "begun" in found.header:
        found.trailer = since(found.header["begun"], found.trailer)
    if not found.header:
        raise UserError(f"{path} has lost its header", "nothing can be read without it")
    return found


_JSON = re.compile(b"[%s]" % bytes(KINDS))
"""Types of blocks that are read one by one."""

_ARE_EVENTS, _ARE_DIFFERENCES = (
    bytes(kind in (alone, layout.BOTH) for kind in range(256))
    for alone in (layout.EVENTS, layout.DIFFERENCES)
)
_IN_PLANES = bytes(flags & layout.PLANES for flags in range(256))
"""For each type, or for all flags, of a block: whether it is so."""


def _spans(run: Run) -> list[Span]:
    """The events of a run of events, differences, and both."""
    are_events = run.kinds.translate(_ARE_EVENTS)
    if any(run.flags.translate(_IN_PLANES)):
        return list(map(_span, compress(run.blocks(), are_events)))
    payloads = run.payloads
    if layout.BOTH in run.kinds:
        payloads = [
            payload[:length] if kind == layout.BOTH else payload
            for kind, length, payload in zip(run.kinds, run.item_bytes, payloads, strict=True)
        ]
    return list(compress(payloads, are_events))


def _span(block: Block) -> Span:
    """The events of a block."""
    if block.kind == layout.BOTH:
        return block.payload[: block.item_bytes]
    in_planes = block.flags & layout.PLANES
    return Planes(block.payload, block.item_bytes) if in_planes else block.payload


def _differences(run: Run) -> list[bytes]:
    """The differences of such a run."""
    payloads, are_samples = run.payloads, run.kinds.translate(_ARE_DIFFERENCES)
    if layout.BOTH in run.kinds:
        payloads = [
            payload[length:] if kind == layout.BOTH else payload
            for kind, length, payload in zip(run.kinds, run.item_bytes, payloads, strict=True)
        ]
    return list(compress(payloads, are_samples))


class _Sorting:
    """Puts each block where it belongs, without what is not as it must be: that is damage."""

    def __init__(
        self, found: Recording, take: EventsTaker | None, samples: SampleTaker | None
    ) -> None:
        self._found, self._take, self._taker = found, take, samples
        self._differences = ManyDifferences()

    def take(self, run: Run) -> None:
        """Take blocks in order. Which events stand before which samples is of no matter."""
        if spans := _spans(run):
            if self._take:
                self._take(self._found, spans)
            else:
                self._found.events += map(rows_of, spans)
        are_samples = run.kinds.translate(_ARE_DIFFERENCES)
        payloads = _differences(run)
        offsets = list(compress(run.offsets, are_samples))
        begin = 0
        for match in _JSON.finditer(run.kinds):
            number = match.start()
            end = are_samples.count(1, 0, number)
            self._add(payloads[begin:end], offsets[begin:end])
            self._json(run.block(number))
            begin = end
        self._add(payloads[begin:], offsets[begin:])
        if self._differences.full:
            self.flush()

    def _add(self, payloads: list[bytes], offsets: list[int]) -> None:
        """Take differences."""
        for place in self._differences.add(payloads, offsets) if payloads else ():
            self._found.damage.append(Damage(offsets[place], len(payloads[place])))

    def _json(self, block: Block) -> None:
        if block.kind == layout.SAMPLE:
            refers = block.flags & layout.REFERENCE
            if refers and self._differences.go_on_from(block.sequence, block.rows, block.offset):
                return
            self.flush()
            if refers:
                self._differences.refer_to(block.sequence, block.rows)
            if self._taker is not None and self._taker.take(block.rows):
                return
        content = self._fit(parsed(block.rows), block.kind, block.offset, len(block.payload))
        if content is None:
            return
        if block.kind == layout.SAMPLE:
            self._keep(content)
        elif block.kind == layout.TRAILER:
            self._found.trailer = content
        elif content.get("format") is not None and not self._found.header:
            check_format(self._found.path, content["format"])
            self._found.header = content
        else:  # of the next segment: what ended was the one before it
            self._found.trailer = None

    def flush(self) -> None:
        """Read the differences that were gathered."""
        gathered, taker = self._differences, self._taker
        if not len(gathered):
            return
        if taker is None or not taker.take_numbers(gathered.reference, gathered.numbers()):
            for sample, offset, length in gathered.samples():
                content = self._fit(sample, layout.SAMPLE, offset, length)
                if content is not None:
                    self._keep(content)
        gathered.forget()

    def _fit(self, content: Any, kind: int, offset: int, length: int) -> dict[str, Any] | None:
        """What fits of the content of a block. length: of damage, if none of it does."""
        found, damage = fitted(content, kind, offset, length)
        self._found.damage += damage
        return found

    def _keep(self, sample: dict[str, Any]) -> None:
        if self._taker is None or not self._taker.add(sample):
            self._found.samples.append(sample)
