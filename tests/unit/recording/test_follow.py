# SPDX-License-Identifier: Apache-2.0
"""A recording that comes piece by piece is read as one that is whole."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from balloontrace.errors import UserError
from balloontrace.recording import layout
from balloontrace.recording.follow import Following, Part
from balloontrace.recording.reader import read_recording

DATA = Path(__file__).parents[2] / "data"
RECORDINGS = sorted(DATA.glob("**/*.btrace"))
SMALL = DATA / "6.1-stock-oom.btrace"


def followed(data: bytes, piece: int) -> tuple[Following, list[Part]]:
    """All that comes of a stream that is read so many bytes at a time."""
    following, parts = Following("stream"), []
    for begin in range(0, len(data), piece):
        parts += following.take(data[begin : begin + piece])
    return following, parts + following.end()


def assert_same(path: Path, following: Following, parts: list[Part]) -> None:
    """The same as the reader of whole files finds."""
    whole = read_recording(str(path))
    of = {kind: [part.content for part in parts if part.kind == kind] for kind in range(1, 5)}
    assert b"".join(of[layout.EVENTS]) == b"".join(whole.events)
    assert of[layout.SAMPLE] == whole.samples
    assert of[layout.HEADER][:1] == [whole.header]
    assert following.missing_blocks == whole.missing_blocks
    assert following.damage_bytes == sum(one.length for one in whole.damage)


@pytest.mark.parametrize("path", RECORDINGS, ids=lambda path: path.stem)
def test_pieces_of_any_size_are_one_recording(path: Path) -> None:
    data = path.read_bytes()
    for piece in (1 << 20, 4099, 61):
        assert_same(path, *followed(data, piece))


@settings(max_examples=150, deadline=None)
@given(draw=st.data())
def test_damage_is_passed_over_as_in_a_whole_file(
    tmp_path_factory: pytest.TempPathFactory, draw: st.DataObject
) -> None:
    data = bytearray(SMALL.read_bytes()[:12_000])
    first_block = data.index(layout.SYNC, len(layout.MAGIC) + 1)
    for _ in range(draw.draw(st.integers(1, 4))):
        place = draw.draw(st.integers(first_block, len(data) - 1))
        length = draw.draw(st.integers(0, 40))
        data[place : place + length] = draw.draw(st.binary(max_size=40))
    path = tmp_path_factory.getbasetemp() / "damaged.btrace"
    path.write_bytes(data)
    assert_same(path, *followed(bytes(data), draw.draw(st.sampled_from((7, 100, 5000)))))


def test_what_a_damaged_length_promises_is_not_awaited() -> None:
    data = bytearray(SMALL.read_bytes())
    places = [at for at in range(len(data)) if data.startswith(layout.SYNC, at)]
    torn, length = places[3], (20 << 20).to_bytes(4, "little")
    data[torn + 12 : torn + 16] = length
    following = Following("stream")
    came = [following.take(bytes(data[at : at + 100])) for at in range(0, len(data), 100)]
    whole = followed(SMALL.read_bytes(), 1 << 20)[1]
    assert following.waiting < 1000
    assert following.missing_blocks == 1
    assert len(whole) - 3 <= sum(map(len, came)) < len(whole)


def test_a_torn_block_waits_for_more_and_is_damage_at_the_end() -> None:
    data = SMALL.read_bytes()
    following = Following("stream")
    parts = following.take(data[:-10])
    assert following.damage_bytes == 0
    assert following.waiting
    assert layout.TRAILER not in {part.kind for part in parts}
    following.end()
    assert following.damage_bytes > 0
    following = Following("stream")
    following.take(data[:-10])
    assert [part.kind for part in following.take(data[-10:])] == [layout.TRAILER]


@pytest.mark.parametrize(
    ("data", "said"),
    [(b"", "is empty"), (b"\x7fELF, not ours", "is not a"), (layout.MAGIC, "lost its header")],
)
def test_what_is_no_recording_is_said_to_be_none(data: bytes, said: str) -> None:
    with pytest.raises(UserError, match=said):
        followed(data, 3)


def test_what_is_no_recording_is_not_awaited() -> None:
    with pytest.raises(UserError, match="is not a balloontrace recording"):
        Following("stream").take(b"B")
