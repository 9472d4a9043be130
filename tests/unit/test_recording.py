# SPDX-License-Identifier: Apache-2.0
"""The .btrace file: what was written is read, and damage costs no more than itself."""

from __future__ import annotations

import os
import struct
import threading
import zlib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from balloontrace import events
from balloontrace.errors import UserError
from balloontrace.recording import reader
from balloontrace.recording.block import Block, Damage
from balloontrace.recording.blocks import Source, read_blocks
from balloontrace.recording.layout import MAGIC
from balloontrace.recording.reader import Span, read_recording, rows_of
from balloontrace.recording.writer import Writer

SPAN = events.pack(start_ns=5, done=256, kind=1, comm=b"kworker/0:1")
SAMPLE = {"t_ns": 7, "vmstat": {"balloon_inflate": 256}}


def write(path: Path, blocks: int = 3) -> bytes:
    """A recording of a header, `blocks` event blocks of one event each, a sample, a trailer."""
    fd = os.open(path, os.O_CREAT | os.O_WRONLY | os.O_TRUNC, 0o600)
    writer = Writer(fd)
    writer.header({"guest": {"kernel": "6.1"}})
    for _ in range(blocks):
        writer.events(SPAN)
    writer.sample(SAMPLE)
    writer.trailer({"reason": "interrupted"})
    os.close(fd)
    data = path.read_bytes()
    assert writer.bytes_written == len(data)
    return data


def kinds(data: bytes) -> list[int]:
    """Types of the readable blocks of `data`."""
    return [found.kind for found in read_blocks(data) if isinstance(found, Block)]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The bytes of one undamaged recording."""
    return write(tmp_path_factory.mktemp("whole") / "a.btrace")


def read(tmp_path: Path, data: bytes) -> Any:
    """read_recording of these bytes."""
    path = tmp_path / "b.btrace"
    path.write_bytes(data)
    return read_recording(str(path))


def test_what_was_written_is_read(tmp_path: Path, whole: bytes) -> None:
    recording = read(tmp_path, whole)
    assert recording.complete
    assert recording.header == {"format": 2, "guest": {"kernel": "6.1"}}
    assert recording.events == [SPAN] * 3
    assert recording.samples == [SAMPLE]
    assert recording.trailer == {"reason": "interrupted"}


@pytest.mark.parametrize(
    ("data", "complaint"),
    [
        (b"", "is empty"),
        (b"\x7fELF" + bytes(100), "not a balloontrace recording"),
        (MAGIC[:-1], "not a balloontrace recording"),
        (MAGIC, "lost its header"),
        (MAGIC + b"BTBK" * 50, "lost its header"),
    ],
)
def test_what_is_no_recording_is_said_so(tmp_path: Path, data: bytes, complaint: str) -> None:
    with pytest.raises(UserError, match=complaint):
        read(tmp_path, data)


def test_a_missing_file_and_a_directory_are_the_users_errors(tmp_path: Path) -> None:
    for path in (tmp_path / "none", tmp_path):
        with pytest.raises(UserError, match="cannot read"):
            read_recording(str(path))


def test_a_newer_format_is_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "new.btrace"
    fd = os.open(path, os.O_CREAT | os.O_WRONLY, 0o600)
    Writer(fd)._json(1, {"format": 3})
    os.close(fd)
    with pytest.raises(UserError, match="has format 3, this version reads up to 2"):
        read_recording(str(path))


@given(cut=st.integers(min_value=0, max_value=2000))
def test_a_torn_file_keeps_every_block_before_the_tear(whole: bytes, cut: int) -> None:
    torn = whole[: max(0, len(whole) - cut)]
    readable = kinds(torn)
    assert readable == kinds(whole)[: len(readable)]
    # Only the block the tear goes through is lost.
    ends, offset = [], len(MAGIC)
    for found in read_blocks(whole):
        assert isinstance(found, Block)
        offset = whole.find(b"BTBK", offset + 1) if found.kind != 4 else len(whole)
        ends.append(offset)
    assert len(readable) == sum(end <= len(torn) for end in ends)


@given(where=st.integers(min_value=8), flip=st.integers(min_value=1, max_value=255))
def test_a_flipped_byte_costs_its_block_only_and_is_noticed(
    whole: bytes, where: int, flip: int
) -> None:
    where = 8 + where % (len(whole) - 8)
    damaged = bytearray(whole)
    damaged[where] ^= flip
    found = list(read_blocks(bytes(damaged)))
    assert len([block for block in found if isinstance(block, Block)]) == len(kinds(whole)) - 1
    assert any(isinstance(block, Damage) for block in found)


@given(data=st.binary(max_size=4000))
@settings(max_examples=300)
def test_any_bytes_are_read_without_an_exception(data: bytes) -> None:
    for found in read_blocks(MAGIC + data):
        assert isinstance(found, Damage)


def test_blocks_missing_in_the_middle_are_counted(tmp_path: Path, whole: bytes) -> None:
    starts = [i for i in range(len(whole)) if whole.startswith(b"BTBK", i)]
    recording = read(tmp_path, whole[: starts[1]] + whole[starts[3] :])
    assert recording.missing_blocks == 2
    assert recording.events == [SPAN]
    assert not recording.complete


def test_a_frame_that_promises_much_allocates_nothing(whole: bytes) -> None:
    frame = struct.pack("<4sBBHIII", b"BTBK", 2, 1, 0, 9, 20, 0xFFFFFFFF)
    stored = zlib.compress(b"x")
    crc = zlib.crc32(stored, zlib.crc32(frame))
    found = list(read_blocks(whole + frame + struct.pack("<I", crc) + stored))
    assert isinstance(found[-1], Damage)


def test_a_zip_bomb_is_not_inflated(whole: bytes) -> None:
    stored = zlib.compress(bytes(64 << 20))
    frame = struct.pack("<4sBBHIII", b"BTBK", 2, 1, 0, 9, len(stored), 1000)
    crc = zlib.crc32(stored, zlib.crc32(frame))
    found = list(read_blocks(whole + frame + struct.pack("<I", crc) + stored))
    assert isinstance(found[-1], Damage)


def test_frames_that_promise_what_others_hold_are_not_summed_up_for_ever(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # Each of 170,000 frames in 4 MiB promises 2 MiB: 340 GB to sum up.
    frame = struct.pack("<4sBBHIIII", b"BTBK", 2, 0, 0, 9, 2 << 20, 2 << 20, 0)
    data = MAGIC + frame * ((4 << 20) // len(frame))
    summed = []

    def counted(part: bytes, _: int = 0) -> int:
        summed.append(len(part))
        return 1

    monkeypatch.setattr(zlib, "crc32", counted)
    assert list(read_blocks(data)) == [Damage(8, len(data) - 8)]
    assert sum(summed) < 340 << 20


def test_blocks_that_inflate_without_end_are_not_all_inflated() -> None:
    stored = zlib.compress(bytes(4 << 20))
    frame = struct.pack("<4sBBHIII", b"BTBK", 9, 1, 0, 9, len(stored), 4 << 20)
    block = frame + struct.pack("<I", zlib.crc32(stored, zlib.crc32(frame))) + stored
    found = list(read_blocks(MAGIC + block * 1000))
    assert sum(len(one.payload) for one in found if isinstance(one, Block)) < 400 << 20
    assert isinstance(found[-1], Damage)


def test_a_file_that_is_truncated_while_it_is_read_ends_early(tmp_path: Path) -> None:
    path = tmp_path / "shrinks.btrace"
    with path.open("wb") as file:
        writer = Writer(file.fileno())
        writer.header({"record": []})
        for _ in range(400):
            writer.events(os.urandom(1 << 14))
        writer.trailer({})
    sizes: list[int] = []

    def take(_: object, spans: list[Span]) -> None:
        if not sizes:
            os.truncate(path, 1 << 20)
        sizes.extend(len(rows_of(span)) for span in spans)

    recording = read_recording(str(path), take)
    assert 60 < len(sizes) < 400
    assert not recording.complete


def test_a_frame_across_two_readings_of_the_file_is_found(tmp_path: Path) -> None:
    path = tmp_path / "long.btrace"
    with path.open("wb") as file:
        writer = Writer(file.fileno())
        writer.header({"record": []})
        for size in (1 << 20, 100, (1 << 20) - 30, 1 << 21, 7):
            writer.events(os.urandom(size))
        file.write(b"x" * (3 << 20))  # damage that is longer than what is read at once
        writer.events(b"last")
    with path.open("rb") as file:
        found = list(read_blocks(Source(file)))
    assert found == list(read_blocks(path.read_bytes()))
    assert [type(one) for one in found] == [Block] * 6 + [Damage, Block]


def test_a_pipe_that_does_not_end_is_not_read_for_ever(
    whole: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)

    def fed(data: bytes) -> None:
        thread = threading.Thread(target=pipe.write_bytes, args=(data,))
        thread.start()
        try:
            assert read_recording(str(pipe)).complete
        finally:
            thread.join()

    fed(whole)
    monkeypatch.setattr(reader, "MAX_PIPED", len(whole) - 1)
    with pytest.raises(UserError, match="came through the pipe; put it in a file"):
        fed(whole)


def test_a_full_disk_is_said_in_one_line() -> None:
    fd = os.open("/dev/full", os.O_WRONLY)
    with pytest.raises(UserError, match=r"cannot go on writing x\.btrace: No space left"):
        Writer(fd, "x.btrace")
    os.close(fd)
