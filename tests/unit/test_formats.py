# SPDX-License-Identifier: Apache-2.0
"""Format 1 is still read, and format 2 says the same: the same content, written in both."""

from __future__ import annotations

import json
import os
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from balloontrace import events
from balloontrace.analysis.json import report_json
from balloontrace.analysis.report import build
from balloontrace.analysis.trace.trace import read_trace, trace_of
from balloontrace.recording import layout
from balloontrace.recording.block import Block, Damage
from balloontrace.recording.blocks import Source, read_blocks, runs_of_blocks
from balloontrace.recording.reader import Recording, read_recording
from balloontrace.recording.writer import ITEM_BYTES, LEAST_PLANES, REFERENCE_INTERVAL, Writer

DATA = Path(__file__).parents[1] / "data"
FIXTURES = sorted(set(DATA.glob("*.btrace")) - set(DATA.glob("*-tour.btrace")))
"""Recorded before format 2; `make support` makes those of the tour anew."""


def in_format_1(blocks: list[tuple[int, bytes]]) -> bytes:
    """A recording as balloontrace wrote it before format 2."""
    data = layout.MAGIC
    for sequence, (kind, payload) in enumerate(blocks):
        stored = zlib.compress(payload, 1)
        frame = struct.pack(
            "<4sBBHIII", b"BTBK", kind, 1, 0, sequence, len(stored), len(payload)
        )  # fmt: skip
        data += frame + struct.pack("<I", zlib.crc32(stored, zlib.crc32(frame))) + stored
    return data


def in_format_2(blocks: list[tuple[int, bytes]], path: Path) -> bytes:
    """The same, as it is written now."""
    with path.open("wb") as file:
        writer = Writer(file.fileno())
        written = {
            layout.HEADER: writer.header,
            layout.SAMPLE: writer.sample,
            layout.TRAILER: writer.trailer,
        }
        for kind, payload in blocks:
            if kind == layout.EVENTS:
                writer.events(payload)
            else:
                written[kind](json.loads(payload))
    return path.read_bytes()


def blocks_of(data: bytes) -> list[Block]:
    found = list(read_blocks(data))
    assert not any(isinstance(one, Damage) for one in found)
    return [one for one in found if isinstance(one, Block)]


def same(one: Recording, other: Recording) -> None:
    """Assert that two recordings hold the same, but for the number of the format."""
    assert {**one.header, "format": 2} == other.header
    assert one.events == other.events
    assert one.samples == other.samples
    assert one.trailer == other.trailer
    assert (one.damage, one.missing_blocks) == (other.damage, other.missing_blocks)


@pytest.mark.parametrize("fixture", FIXTURES, ids=lambda path: path.stem)
def test_what_format_1_holds_is_held_by_format_2(fixture: Path, tmp_path: Path) -> None:
    old = fixture.read_bytes()
    contents = [(block.kind, block.payload) for block in blocks_of(old)]
    assert in_format_1(contents) == old
    new = in_format_2(contents, tmp_path / "new.btrace")
    assert len(new) < 0.8 * len(old)
    one, other = read_recording(str(fixture)), read_recording(str(tmp_path / "new.btrace"))
    assert one.header["format"] == 1
    same(one, other)
    kinds = {block.kind for block in blocks_of(new)}
    assert kinds == {1, 2, 3, 4, layout.DIFFERENCES}


@pytest.mark.parametrize("name", ["6.1-stock-oom", "6.1-driver-reloaded", "6.1-arm64"])
def test_reports_of_both_formats_are_the_same(name: str, tmp_path: Path) -> None:
    old, new = DATA / f"{name}.btrace", tmp_path / f"{name}.btrace"
    contents = [(block.kind, block.payload) for block in blocks_of(old.read_bytes())]
    in_format_2(contents, new)
    reports = []
    for path in (old, new):
        report = json.loads(report_json(build(str(path))))
        assert report.pop("path") == str(path)
        reports.append(report)
    assert reports[0] == reports[1]
    fast, careful = read_trace(str(new)), trace_of(read_recording(str(new)))
    assert (fast.samples.time_ns == careful.samples.time_ns).all()
    assert fast.every_sample == careful.every_sample
    assert (fast.records == careful.records).all()


def recorded(path: Path, samples: list[dict[str, Any]], *spans: bytes) -> list[Block]:
    """Write a recording of these; returns its blocks, the header first."""
    with path.open("wb") as file:
        writer = Writer(file.fileno())
        writer.header({"record": events.record_layout(), "ring_header_bytes": 8, "kinds": {}})
        for sample in samples:
            writer.sample(sample)
        for span in spans:
            writer.events(span)
        writer.trailer({})
    return blocks_of(path.read_bytes())


def sample(number: int, **more: Any) -> dict[str, Any]:
    """A regular sample, whose numbers go up and down."""
    return {"t_ns": 10**9 * number, "vmstat": {"a": number % 7, "b": 2**63 - 1 - number}, **more}


@pytest.mark.parametrize("number", [1, LEAST_PLANES - 1, LEAST_PLANES, 100, 5000])
@pytest.mark.parametrize("torn", [0, 1, 63])
def test_spans_of_any_length_come_back(number: int, torn: int, tmp_path: Path) -> None:
    span = b"".join(events.pack(start_ns=n * 997, done=n, kind=1) for n in range(number))
    span += bytes(range(torn))
    path = tmp_path / "a.btrace"
    _, block, _ = recorded(path, [], span)
    assert bool(block.flags & layout.PLANES) == (len(span) >= LEAST_PLANES * ITEM_BYTES)
    assert block.rows == span
    assert read_recording(str(path)).events == [span]
    assert len(read_trace(str(path)).all_events) == number


def test_samples_come_back_whatever_stands_between_them(tmp_path: Path) -> None:
    samples: list[dict[str, Any]] = [sample(n) for n in range(3)]
    samples += [
        {"t_ns": 4, "driver": {"state": "gone"}},  # text
        sample(5, psi={"memory": {"some_us": 1, "full_us": 2}}),  # other names
        sample(6, psi={"memory": {"some_us": 0, "full_us": 2**63 - 1}}),
        sample(7, psi={"memory": {"some_us": 0}}),
        {"t_ns": 8, "since_boot": True},
        {"t_ns": 9, "since_boot": False},
        *(sample(n) for n in range(10, 10 + 2 * REFERENCE_INTERVAL)),
    ]
    path = tmp_path / "a.btrace"
    blocks = recorded(path, samples)
    assert read_recording(str(path)).samples == samples
    full = [block for block in blocks if block.flags & layout.REFERENCE]
    assert len(full) == 5
    fast, careful = read_trace(str(path)).samples, trace_of(read_recording(str(path))).samples
    regular = [s["t_ns"] for s in samples if "vmstat" in s]
    assert fast.time_ns.tolist() == careful.time_ns.tolist() == regular
    assert fast.column("memory", "full_us").tolist() == careful.column("memory", "full_us").tolist()


@pytest.mark.parametrize("change", ["lost", "damaged"])
def test_a_lost_reference_costs_what_differs_from_it_only(change: str, tmp_path: Path) -> None:
    samples = [sample(n) for n in range(3 * REFERENCE_INTERVAL)]
    path = tmp_path / "a.btrace"
    blocks = recorded(path, samples)
    full = [block for block in blocks if block.flags & layout.REFERENCE]
    assert len(full) == 3
    data = bytearray(path.read_bytes())
    if change == "lost":
        del data[full[1].offset : full[1].end]
    else:
        data[full[1].end - 3] ^= 1
    path.write_bytes(data)
    recording = read_recording(str(path))
    left = samples[:REFERENCE_INTERVAL] + samples[2 * REFERENCE_INTERVAL :]
    assert recording.samples == left
    assert recording.missing_blocks == 1
    assert len(recording.damage) == REFERENCE_INTERVAL - (change == "lost")
    assert not recording.complete
    assert read_trace(str(path)).samples.time_ns.tolist() == [s["t_ns"] for s in left]


def test_any_other_sample_that_is_lost_costs_itself(tmp_path: Path) -> None:
    samples = [sample(n) for n in range(10)]
    path = tmp_path / "a.btrace"
    gone = recorded(path, samples)[5]
    data = path.read_bytes()
    path.write_bytes(data[: gone.offset] + data[gone.end :])
    recording = read_recording(str(path))
    assert recording.samples == samples[:4] + samples[5:]
    assert (recording.missing_blocks, recording.damage) == (1, [])


def in_blocks_of(several: int, path: Path, samples: list[dict[str, Any]]) -> list[Block]:
    """Write samples, so many in each block; returns the blocks."""
    with path.open("wb") as file:
        writer = Writer(file.fileno())
        writer.header({"record": events.record_layout(), "ring_header_bytes": 8, "kinds": {}})
        for number, one in enumerate(samples, 1):
            writer.sample(one, more_follow=number % several > 0)
        writer.trailer({})
    return blocks_of(path.read_bytes())


@pytest.mark.parametrize("several", [2, 10, layout.MOST_SAMPLES])
def test_samples_that_follow_each_other_soon_are_one_block(several: int, tmp_path: Path) -> None:
    samples = [sample(n) for n in range(2 * REFERENCE_INTERVAL + 5)]
    samples.insert(7, {"t_ns": 6, "driver": {"state": "gone"}})
    path = tmp_path / "a.btrace"
    blocks = in_blocks_of(several, path, samples)
    assert len(blocks) < len(samples) / several + 2 * 3 + 4
    recording, trace = read_recording(str(path)), read_trace(str(path))
    assert recording.complete
    assert recording.samples == samples
    regular = [one["t_ns"] for one in samples if "vmstat" in one]
    assert trace.samples.time_ns.tolist() == regular


def test_a_block_of_several_samples_is_lost_alone(tmp_path: Path) -> None:
    samples = [sample(n) for n in range(1 + 3 * 4)]
    path = tmp_path / "a.btrace"
    blocks = in_blocks_of(4, path, samples[1:])
    gone = blocks[3]
    data = path.read_bytes()
    path.write_bytes(data[: gone.offset] + data[gone.end :])
    recording = read_recording(str(path))
    assert recording.samples == samples[1:5] + samples[9:]
    assert (recording.missing_blocks, recording.damage) == (1, [])


def differences(reference: int, *numbers: int) -> bytes:
    """The payload of a sample of these differences."""
    packed = struct.pack(f"<{len(numbers)}q", *numbers)
    return struct.pack("<I", reference) + b"".join(packed[place::8] for place in range(8))


REFERENCES = [
    b'{"t_ns":5,"vmstat":{"a":1}}',
    b'{"t_ns":5,"vmstat":{"a":-1}}',
    b'{"t_ns":5,"vmstat":{"a":9223372036854775808}}',
    b'{"t_ns":5,"vmstat":{"a":1.5}}',
    b'{"t_ns":{"b":5},"vmstat":{"a":1}}',
    b'{"t_ns":5,"driver":{"state":7}}',
    b'{"t_ns":5,"psi":7}',
    b'{"t_ns":5,' + b'"a":{' * 900 + b'"b":1' + b"}" * 901,
    b"{}",
    b'{"vmstat":{}}',
    b"[5,1]",
    b"{",
    b"\xff",
    b"",
]


@pytest.mark.parametrize("reference", REFERENCES)
def test_hostile_references_and_differences_cost_themselves(
    reference: bytes, tmp_path: Path
) -> None:
    path = tmp_path / "a.btrace"
    with path.open("wb") as file:
        writer = Writer(file.fileno())
        writer.header({"record": events.record_layout(), "ring_header_bytes": 8, "kinds": {}})
        writer._block(layout.DIFFERENCES, differences(1, 1, 1))
        writer._block(layout.SAMPLE, reference, layout.REFERENCE)
        said_from = writer._sequence - 1
        for payload in (
            differences(said_from, 1, 1),
            differences(said_from),
            differences(said_from, 1),
            differences(said_from, 1, 1, 1),
            differences(said_from, *[1, 1] * (layout.MOST_SAMPLES + 1)),
            differences(said_from - 1, 1, 1),
            differences(said_from, 1, 1)[:-1],
            differences(said_from, -6, 0),
            differences(said_from, 2**63 - 1, 2**63 - 1),
            b"",
        ):
            writer._block(layout.DIFFERENCES, payload)
        writer.trailer({})
    recording, trace = read_recording(str(path)), read_trace(str(path))
    times = trace.samples.time_ns.tolist()
    if reference == REFERENCES[0]:
        assert recording.samples[1:] == [
            {"t_ns": 6, "vmstat": {"a": 2}},
            {"vmstat": {"a": 1}},
            {"vmstat": {}},
        ]
        assert times == [5, 6]
        assert len(recording.damage) == 8 + 3
    else:
        assert max(len(recording.samples), len(times)) <= 1
        assert len(recording.damage) >= 11


def test_planes_of_items_of_no_width_are_damage(tmp_path: Path) -> None:
    path = tmp_path / "a.btrace"
    with path.open("wb") as file:
        writer = Writer(file.fileno())
        writer.header({})
        writer._append(layout.EVENTS, layout.PLANES, 0, 4, b"abcd")
        writer._append(layout.EVENTS, layout.PLANES, 3, 7, b"adbecfg")
        writer._append(layout.EVENTS, layout.PLANES, 9, 4, b"abcd")
    recording = read_recording(str(path))
    assert recording.events == [b"abcdefg", b"abcd"]
    assert len(recording.damage) == 1


def test_each_block_is_one_write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    writes: list[int] = []
    write = os.write

    def counted(fd: int, data: memoryview) -> int:
        writes.append(len(data))
        return write(fd, data)

    monkeypatch.setattr(os, "write", counted)
    span = events.pack(kind=1) * 100
    blocks = recorded(tmp_path / "a.btrace", [sample(n) for n in range(5)], span)
    assert writes == [len(layout.MAGIC), *(block.end - block.offset for block in blocks)]


def waking_up(path: Path, seconds: int) -> list[Block]:
    """Write what a recorder finds each time it wakes up in a quiet guest; returns the blocks."""
    with path.open("wb") as file:
        writer = Writer(file.fileno())
        writer.header({"record": events.record_layout(), "ring_header_bytes": 8, "kinds": {}})
        for second in range(seconds):
            writer.events(events.pack(start_ns=second, kind=1) * (second % 3), sample_follows=True)
            writer.sample(sample(second))
        writer.trailer({})
    return blocks_of(path.read_bytes())


def test_a_wake_up_of_a_quiet_guest_is_one_block(tmp_path: Path) -> None:
    path = tmp_path / "a.btrace"
    blocks = waking_up(path, 2 * REFERENCE_INTERVAL)
    kinds = [block.kind for block in blocks[1:-1]]
    full = kinds.count(layout.SAMPLE)
    assert full == 2
    assert set(kinds) == {layout.SAMPLE, layout.EVENTS, layout.DIFFERENCES, layout.BOTH}
    # Only what is written in full stands beside its events, of which the second has some.
    assert kinds.count(layout.EVENTS) == sum(n % 3 > 0 for n in (0, REFERENCE_INTERVAL))
    seconds = range(2 * REFERENCE_INTERVAL)
    recording, trace = read_recording(str(path)), read_trace(str(path))
    assert recording.complete
    assert recording.samples == [sample(second) for second in seconds]
    spans = [events.pack(start_ns=second, kind=1) * (second % 3) for second in seconds]
    assert recording.events == [span for span in spans if span]
    assert trace.samples.time_ns.tolist() == [10**9 * second for second in seconds]
    assert trace.records.tobytes() == b"".join(spans)


def test_blocks_of_a_quiet_guest_are_read_many_at_once(tmp_path: Path) -> None:
    path = tmp_path / "a.btrace"
    blocks = waking_up(path, 20 * REFERENCE_INTERVAL)
    with path.open("rb") as file:
        runs = list(runs_of_blocks(Source(file)))
    assert len(runs) < len(blocks) / 200


def test_events_that_wait_for_a_sample_are_before_whatever_comes(tmp_path: Path) -> None:
    path = tmp_path / "a.btrace"
    few, many = events.pack(start_ns=1, kind=1), events.pack(start_ns=2, kind=1) * 100
    with path.open("wb") as file:
        writer = Writer(file.fileno())
        writer.header({})
        writes: tuple[Callable[[], None], ...] = (
            lambda: writer.sample({"t_ns": 1, "driver": {"state": "gone"}}),
            lambda: writer.sample(sample(1)),
            lambda: writer.events(few),
            lambda: writer.events(many, sample_follows=True),
            writer.write_held,
            lambda: writer.trailer({}),
        )
        for write in writes:
            writer.events(few, sample_follows=True)
            write()
            if write == writer.write_held:
                writer.sample(sample(2))
    blocks = blocks_of(path.read_bytes())
    kinds = [block.kind for block in blocks]
    assert kinds == [1, 2, 3, 2, 3, 2, 2, 2, 2, 2, layout.DIFFERENCES, 2, 4]
    assert [block.sequence for block in blocks] == list(range(len(blocks)))
    recording = read_recording(str(path))
    assert recording.complete
    assert recording.events == [few, few, few, few, few, many, few, few]
    assert recording.samples[1:] == [sample(1), sample(2)]


def test_events_are_read_without_the_sample_that_stands_with_them(tmp_path: Path) -> None:
    path = tmp_path / "a.btrace"
    span = events.pack(start_ns=1, kind=1)
    with path.open("wb") as file:
        writer = Writer(file.fileno())
        writer.header({"record": events.record_layout(), "ring_header_bytes": 8, "kinds": {}})
        for length in (len(span), 2 * len(span), 0, 0xFFFF):
            raw = span + differences(7, 1, 1)
            writer._append(layout.BOTH, layout.ZLIB, length, len(raw), zlib.compress(raw))
        writer.trailer({})
    recording = read_recording(str(path))
    assert (recording.events[0], len(recording.damage)) == (span, 4)
    assert recording.samples == []
    assert len(read_trace(str(path)).all_events) == 1 + 1 + 0 + 1


@pytest.mark.parametrize(
    "second",
    [
        b'{"t_ns":17,"vmstat":{"a1":9223372036854775807}}',
        b'{"t_ns":17,"vmstat":{"a1":9223372036854775808}}',
        b'{"t_ns":17,"vmstat":{"a1":012}}',
        b'{"t_ns":17,"vmstat":{"a1":-12}}',
        b'{"t_ns":17,"vmstat":{"a1":1.5}}',
        b'{"t_ns":17,"vmstat":{"a1":1e3}}',
        b'{"t_ns":17,"vmstat":{"a12":3}}',
        b'{"t_ns":17,"vmstat":{"a":13}}',
        b'{"t_ns":17,"vmstat":{"a1": 3}}',
        b'{"t_ns":17,"vmstat":{"a1":}}',
        b'{"t_ns":17,"vmstat":{"a1":3}',
        b'{"t_ns":17,"vmstat":{"a1":3,"a1":4}}',
        b'{"t_ns":17,"driver":{"a1":3}}',
        b'{"t_ns":17,"vmstat":{"a1":%d}}',
        b'{"t_ns":17,"vmstat":{"a1":!}}',
        b'{"t_ns":17,"vmstat":{"a1":' + b"7" * 5000 + b"}}",
        b"",
    ],
)
def test_a_reference_is_read_as_json_is(second: bytes, tmp_path: Path) -> None:
    path = tmp_path / "a.btrace"
    with path.open("wb") as file:
        writer = Writer(file.fileno())
        writer.header({"record": events.record_layout(), "ring_header_bytes": 8, "kinds": {}})
        for payload in (b'{"t_ns":5,"vmstat":{"a1":1}}', second):
            writer._block(layout.SAMPLE, payload, layout.REFERENCE)
            writer._block(layout.DIFFERENCES, differences(writer._sequence - 1, 1, 1))
        writer.trailer({})
    with_differences = read_recording(str(path))
    alone = tmp_path / "b.btrace"
    with alone.open("wb") as file:
        writer = Writer(file.fileno())
        writer.header({})
        writer._block(layout.SAMPLE, second)
        writer.trailer({})
    expected = read_recording(str(alone))
    begun = [{"t_ns": 5, "vmstat": {"a1": 1}}, {"t_ns": 6, "vmstat": {"a1": 2}}]
    assert with_differences.samples[:2] == begun
    assert with_differences.samples[2:][: len(expected.samples)] == expected.samples
    assert len(with_differences.samples) + len(with_differences.damage) >= 4
