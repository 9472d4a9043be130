# SPDX-License-Identifier: Apache-2.0
"""Recordings of many events: what a report of them costs, and that it says what SQL says."""

from __future__ import annotations

import json
import os
import threading
import tracemalloc
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from balloontrace import events
from balloontrace.analysis.json import report_json
from balloontrace.analysis.report import build, report_of
from balloontrace.analysis.trace.columns import COLUMNS
from balloontrace.analysis.trace.trace import read_trace
from balloontrace.recording.block import Damage
from balloontrace.recording.blocks import read_blocks
from balloontrace.recording.writer import Writer
from tests.recordings.ask_duckdb import answers
from tests.recordings.differing import differing
from tests.recordings.long import make
from tests.unit.builders import Built

DATA = Path(__file__).parents[2] / "data"

BYTES_PER_EVENT = 82
"""Of recordings as short as these, which take 75; of ten million events it is less for each."""


def peak_of_report(path: Path) -> int:
    """Bytes that building the report held at most."""
    tracemalloc.start()
    try:
        build(str(path))
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_memory_grows_with_the_events_and_by_no_more_than_this(tmp_path: Path) -> None:
    peaks = {}
    for count in (100_000, 200_000, 300_000):
        path = tmp_path / f"{count}.btrace"
        make(count, path, tmp_path / "parquet")
        peaks[count] = peak_of_report(path)
    first, second = peaks[200_000] - peaks[100_000], peaks[300_000] - peaks[200_000]
    assert max(first, second) < BYTES_PER_EVENT * 100_000
    assert second == pytest.approx(first, rel=0.1)


def test_a_repeated_recording_is_a_sensible_one_and_duckdb_says_the_same(tmp_path: Path) -> None:
    recording, parquet = tmp_path / "long.btrace", tmp_path / "parquet"
    make(30_000, recording, parquet)
    report: dict[str, Any] = json.loads(report_json(build(str(recording))))
    assert report["events"] == 30_000
    assert (report["complete"], report["lost_events"]) == (True, 0)
    assert (report["reconciliation"]["agrees"], report["reconciliation"]["exact"]) == (True, True)
    (episode,) = report["episodes"]
    assert episode["outcome"] == "unfinished"
    assert episode["reclaimed_pages"] > 0.9 * episode["inflated_pages"]
    asked = answers(parquet)
    assert differing(report, asked) == []
    asked["episodes"][0]["longest_no_progress_s"] += 1e-9
    assert len(differing(report, asked)) == 1


@pytest.mark.parametrize("path", sorted(DATA.glob("*.btrace")), ids=lambda path: path.stem)
def test_columns_hold_what_stands_in_the_file(path: Path) -> None:
    trace = read_trace(str(path))
    records, seen = trace.records, 0
    for kind, number in trace.header["kinds"].items():
        mine, frame = records[records["kind"] == number], trace.events(kind)
        seen += len(frame)
        assert list(frame.columns) == list(COLUMNS)
        assert (records["kind"][frame["record"]] == number).all()
        for field in ("start_ns", "asked", "done", "tid", "pid", "within", "queue", "flags"):
            assert frame[field].tolist() == mine[field].tolist()
        closed = ~frame["open"].to_numpy()
        assert frame["duration_ns"][closed].tolist() == mine["duration_ns"][closed].tolist()
        assert (frame["end_ns"] == frame["start_ns"] + frame["duration_ns"]).all()
        codes, names = trace.names(kind)
        assert [names[code].encode() for code in codes.tolist()] == [
            comm.split(b"\0")[0] for comm in mine["comm"].tolist()
        ]
    assert seen == len(trace.all_events) == len(records)


def test_names_of_calls_of_several_kinds(tmp_path: Path) -> None:
    built = Built().target(1.0, 512, 0)
    built.fill(1.0, 0.1, 256, comm=b"kworker/0:1").fill(1.2, 0.1, 256, comm=b"kworker/1:0")
    built.call("scan", 1.3, 0.2, 256, 256, comm=b"cat", tid=9)
    built.leak(1.31, 0.1, 256, comm=b"cat", within="scan leak", tid=9)
    built.fill(1.6, 0.1, 256, comm=b"cat\0ker/1:0")
    trace = read_trace(built.ends(3.0).write(tmp_path / "a.btrace"))
    codes, names = trace.names_of(trace.events("fill").iloc[:0])
    assert (codes.tolist(), names) == ([], [])
    leaks, fills = trace.events("leak"), trace.events("fill").iloc[::-1]
    codes, names = trace.names_of(pd.concat([leaks, fills, trace.events("scan")]))
    named = [names[code] for code in codes.tolist()]
    assert named == ["cat", "cat", "kworker/1:0", "kworker/0:1", "cat"]


def test_pages_do_not_wrap_around(tmp_path: Path) -> None:
    trace = read_trace(Built().target(1.0, 0, 512).ends(3.0).write(tmp_path / "a.btrace"))
    for target in (trace.events("target"), trace.calls("target")):
        assert (target["asked"] - target["done"]).tolist() == [-512]


def test_a_recording_through_a_pipe(tmp_path: Path) -> None:
    source, pipe = DATA / "6.1-stock-oom.btrace", tmp_path / "pipe"
    os.mkfifo(pipe)
    writer = threading.Thread(target=pipe.write_bytes, args=[source.read_bytes()])
    writer.start()
    trace = read_trace(str(pipe))
    writer.join()
    assert len(trace.records) == len(trace.all_events) == 1409
    assert report_of(trace).results["totals"] == build(str(source)).results["totals"]


def test_events_from_before_a_header_that_comes_late(tmp_path: Path) -> None:
    built = Built().target(1.0, 512, 0).fill(1.0, 0.1, 256).fill(1.2, 0.1, 256).ends(3.0)
    path = Path(built.write(tmp_path / "a.btrace"))
    blocks = path.read_bytes().split(b"BTBK")
    blocks[1], blocks[2] = blocks[2], blocks[1]
    path.write_bytes(b"BTBK".join(blocks))
    trace = read_trace(str(path))
    assert trace.events("fill")["done"].tolist() == [256, 256]


@pytest.mark.parametrize("mebibytes", [60, 200])
def test_what_expands_beyond_its_word_costs_little_memory(tmp_path: Path, mebibytes: int) -> None:
    path = tmp_path / "bomb.btrace"
    descriptor = os.open(path, os.O_CREAT | os.O_WRONLY)
    writer = Writer(descriptor)
    writer.events(bytes(1000))
    os.close(descriptor)
    honest = path.read_bytes()
    frame_at = honest.index(b"BTBK")
    packer = zlib.compressobj(9)
    stored = b"".join(packer.compress(bytes(1 << 20)) for _ in range(mebibytes)) + packer.flush()
    frame = bytearray(honest[frame_at : frame_at + 24])
    frame[12:16] = len(stored).to_bytes(4, "little")
    frame[20:24] = zlib.crc32(stored, zlib.crc32(frame[:20])).to_bytes(4, "little")
    data = honest[:frame_at] + bytes(frame) + stored
    tracemalloc.start()
    found = list(read_blocks(data))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert [type(block) for block in found] == [Damage]
    assert peak < 140 << 20


def test_a_field_of_another_width_is_kept_whole(tmp_path: Path) -> None:
    # A later version may count in more than 32 bits.
    layout = [[name, "<u8" if name == "done" else kind] for name, kind in events.record_layout()]
    item = np.zeros(1, dtype=[("ring_header", "V8"), *map(tuple, layout)])
    item["kind"], item["done"] = 1, 1 << 40
    path = tmp_path / "wide.btrace"
    descriptor = os.open(path, os.O_CREAT | os.O_WRONLY)
    writer = Writer(descriptor)
    writer.header(
        {"record": layout, "ring_header_bytes": 8, "kinds": {"fill": 1}, "attached_ns": 0}
    )
    writer.events(item.tobytes())
    os.close(descriptor)
    assert read_trace(str(path)).events("fill")["done"].tolist() == [1 << 40]
