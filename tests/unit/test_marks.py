# SPDX-License-Identifier: Apache-2.0
"""Marks: sent to recorders that take them, and shown where they belong, however hostile."""

from __future__ import annotations

import csv
import json
import os
import stat
import time
from collections.abc import Iterator
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from perfetto.protos.perfetto.trace.perfetto_trace_pb2 import Trace as Exported

from balloontrace.analysis.json import report_json
from balloontrace.analysis.report import build, report_of
from balloontrace.analysis.text.report import report_text
from balloontrace.analysis.timeline.bokeh import chart
from balloontrace.analysis.timeline.matplotlib import figure
from balloontrace.analysis.timeline.picture import picture
from balloontrace.analysis.timeline.series import alone
from balloontrace.analysis.trace.trace import read_trace
from balloontrace.analysis.trace.window import Window
from balloontrace.errors import EXIT_FAILURE, EXIT_USAGE, UserError
from balloontrace.recording.layout import MARK_CHARACTERS
from balloontrace.tracers.record import marks
from balloontrace.tracers.record.marks import LINE_BYTES, MOST_AT_ONCE, Marks, send
from tests.unit.builders import ATTACHED_NS, Built, ns
from tests.unit.command_line import balloontrace


@pytest.fixture
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    place = tmp_path / "run"
    monkeypatch.setattr(marks, "DIRECTORY", str(place))
    return place


@pytest.fixture
def taken(directory: Path) -> Iterator[Marks]:
    """A recorder's place for marks."""
    place = Marks()
    yield place
    place.close()


def written(directory: Path, content: bytes) -> None:
    """What somebody else put into the FIFO."""
    (fifo,) = directory.iterdir()
    descriptor = os.open(fifo, os.O_WRONLY | os.O_NONBLOCK)
    os.write(descriptor, content)
    os.close(descriptor)


def test_a_mark_has_the_senders_time(taken: Marks) -> None:
    before_ns = time.monotonic_ns()
    assert send("the load begins") == [os.getpid()]
    after_ns = time.monotonic_ns()
    (sample,) = taken.read(before_ns)
    assert sample["mark"] == "the load begins"
    assert before_ns <= sample["t_ns"] <= after_ns
    assert taken.read(before_ns) == []


def test_a_time_outside_of_the_recording_is_the_receivers(taken: Marks, directory: Path) -> None:
    begun_ns = time.monotonic_ns()
    written(directory, b"5 too early\n%d too late\n" % (begun_ns + 10**15))
    found = taken.read(begun_ns)
    assert [mark["mark"] for mark in found] == ["too early", "too late"]
    assert all(begun_ns <= mark["t_ns"] <= time.monotonic_ns() for mark in found)


@pytest.mark.parametrize("read_between", [True, False])
@pytest.mark.parametrize("size", [3, 5000])
def test_what_has_no_end_takes_no_mark_with_it(
    taken: Marks, directory: Path, size: int, read_between: bool
) -> None:
    written(directory, b"x" * size)
    found = taken.read(0) if read_between else []
    send("a mark")
    found += taken.read(0)
    assert [mark["mark"] for mark in found] == ["a mark"]
    assert (taken.written, taken.ignored) == (1, 1)


def test_only_its_user_can_write_to_it(taken: Marks, directory: Path) -> None:
    (fifo,) = directory.iterdir()
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700
    assert stat.S_IMODE(fifo.stat().st_mode) == 0o600
    assert stat.S_ISFIFO(fifo.stat().st_mode)


def test_a_place_to_which_others_can_write_is_not_used(directory: Path) -> None:
    directory.mkdir()
    directory.chmod(0o777)
    with pytest.raises(UserError, match="others can write to"):
        Marks()
    assert list(directory.iterdir()) == []


@pytest.mark.parametrize(
    ("garbage", "ignored"),
    [
        (b"\n\n\n", 0),
        (b"no number\n", 1),
        (b"-1 x\n", 1),
        (b"\xb2 x\n", 1),
        (b"123\n", 1),
        (b"9" * 21 + b" x\n", 1),
        (b"1 " + b"x" * LINE_BYTES + b"\n", 1),
        (b"z" * 60_000, 1),
    ],
)
def test_garbage_is_counted(garbage: bytes, ignored: int, taken: Marks, directory: Path) -> None:
    written(directory, garbage)
    assert taken.read(0) == []
    assert (taken.written, taken.ignored) == (0, ignored)
    written(directory, b"1 a mark\n")
    assert [mark["mark"] for mark in taken.read(0)] == ["a mark"]


def test_a_line_in_two_parts_is_one_mark(taken: Marks, directory: Path) -> None:
    written(directory, b"1 one ")
    assert taken.read(0) == []
    written(directory, b"mark\n")
    assert [mark["mark"] for mark in taken.read(0)] == ["one mark"]


def test_who_writes_all_the_time_fills_no_recording(taken: Marks, directory: Path) -> None:
    written(directory, b"1 x\n" * 10_000)
    assert len(taken.read(0)) == MOST_AT_ONCE
    assert (taken.written, taken.ignored) == (MOST_AT_ONCE, 10_000 - MOST_AT_ONCE)


def test_words_that_are_no_utf_8_can_be_written_and_read(taken: Marks, directory: Path) -> None:
    written(directory, b"1 caf\xe9\n")
    (sample,) = taken.read(0)
    assert json.loads(json.dumps(sample))["mark"] == "caf\udce9"


def test_what_is_sent_fits_into_a_line(taken: Marks) -> None:
    send("\U0001f388" * 1000)
    send("two\nlines\rmore")
    found = [mark["mark"] for mark in taken.read(0)]
    assert found == ["\U0001f388" * MARK_CHARACTERS, "two lines more"]
    assert taken.ignored == 0


def test_what_a_dead_recorder_left_is_removed(taken: Marks, directory: Path) -> None:
    stale, other = directory / "mark.4000000", directory / "mark.x"
    for path in (stale, other):
        os.mkfifo(path)
    assert send("now") == [os.getpid()]
    assert not stale.exists()
    assert other.exists(), "it is not ours"


def test_a_link_or_a_file_in_its_place_is_left_alone(taken: Marks, directory: Path) -> None:
    victim = directory.parent / "victim"
    victim.write_text("")
    (directory / "mark.11").symlink_to(victim)
    (directory / "mark.12").write_text("")
    assert send("now") == [os.getpid()]
    assert victim.read_text() == (directory / "mark.12").read_text() == ""


def test_a_recorder_that_does_not_read_holds_nobody_up(taken: Marks, directory: Path) -> None:
    written(directory, b"x" * 65_536)
    with pytest.raises(UserError, match="no recording takes marks"):
        send("now")


def test_a_mark_can_ask_for_the_last_minutes(taken: Marks) -> None:
    send("slow", dump=True)
    assert [mark["mark"] for mark in taken.read(0)] == ["slow"]
    assert taken.dump
    send("fast")
    assert [mark["mark"] for mark in taken.read(0)] == ["fast"]
    assert not taken.dump
    assert (taken.written, taken.ignored) == (2, 0)


def test_nobody_takes_marks(directory: Path, taken: Marks) -> None:
    for only in (1, 4_000_000):
        with pytest.raises(UserError, match=f"no recording of pid {only} takes marks"):
            send("now", only)
    taken.refuse()
    with pytest.raises(UserError, match="begin one with: balloontrace record --mark") as caught:
        send("now")
    assert caught.value.exit_code == EXIT_FAILURE


def test_the_verb(taken: Marks, capsys: pytest.CaptureFixture[str]) -> None:
    balloontrace("mark", "the", "load\x1b[31m", "--pid", str(os.getpid()))
    said = f"marked in the recording of pid {os.getpid()}: the load\\x1b[31m\n"
    assert capsys.readouterr().out == said
    assert [mark["mark"] for mark in taken.read(0)] == ["the load\x1b[31m"]
    with pytest.raises(UserError, match="a mark without words") as caught:
        balloontrace("mark", " \n")
    assert caught.value.exit_code == EXIT_USAGE


HOSTILE = "<script>alert(1)</script> \x1b[31m $x$ \udce9 =1"
SHOWN = "<script>alert(1)</script> \\x1b[31m $x$ \\xe9 =1"


@pytest.fixture
def marked(tmp_path: Path) -> str:
    """A recording with two marks, at 3 s and (taken before it) at 9 s."""
    built = Built().target(1.0, 512, 0).fill(2.0, 0.5, 256).fill(6.0, 0.5, 256)
    built.header |= {"marks": True, "clock": {"monotonic_ns": ATTACHED_NS, "realtime_ns": 10**18}}
    built.samples.append({"t_ns": ns(9.0), "mark": "the load ends"})
    built.samples.append({"t_ns": ns(3.0), "mark": HOSTILE})
    return built.ends(10.0).write(tmp_path / "marked.btrace")


def test_marks_in_the_report(marked: str) -> None:
    report = json.loads(report_json(build(marked)))
    assert report["marks"] == [
        {"at_s": 3.0, "at": "2001-09-09 01:46:43.000Z", "text": SHOWN},
        {"at_s": 9.0, "at": "2001-09-09 01:46:49.000Z", "text": "the load ends"},
    ]
    said = " ".join(report_text(build(marked)).split())
    assert f"3.0 2001-09-09 01:46:43.000Z {SHOWN}" in said


def test_marks_of_a_window(marked: str) -> None:
    window = Window(read_trace(marked), ns(3.5), None)
    report = json.loads(report_json(report_of(window)))
    assert [mark["text"] for mark in report["marks"]] == ["the load ends"]


def test_without_the_option_it_is_not_known_what_happened(tmp_path: Path) -> None:
    built = Built().fill(1.0, 0.5, 256).ends(5.0)
    report = json.loads(report_json(build(built.write(tmp_path / "r.btrace"))))
    assert report["marks"] is None
    assert report["not_recorded"]["marks"] == ["marks (record --mark takes them)"]
    built.header["marks"] = True
    report = json.loads(report_json(build(built.write(tmp_path / "r.btrace"))))
    assert report["marks"] == []


def test_marks_in_the_terminals_timeline(marked: str, capsys: pytest.CaptureFixture[str]) -> None:
    balloontrace("report", marked)
    lines = capsys.readouterr().out.splitlines()
    (place,) = (place for place, line in enumerate(lines) if line.split()[:1] == ["marks"])
    row, axis = lines[place], lines[place - 1]
    begin = axis.index("0")
    columns = 78
    assert row.index("1") - begin == int(columns * 0.3)
    assert row.index("2") - begin == int(columns * 0.9)
    assert lines[place + 1].split(maxsplit=1) == ["1", f"3.0 s: {SHOWN}"]
    assert lines[place + 2].split(maxsplit=1) == ["2", "9.0 s: the load ends"]


def test_marks_in_the_pictures(marked: str) -> None:
    scenes = alone(picture(marked))
    document = json.dumps(chart(scenes).document)
    assert document.count("9.000 s: the load ends") >= 3, "in each panel"
    assert "\\u001b" not in document
    drawn = figure(scenes, "svg").decode()
    assert "the load ends" in drawn
    assert "&lt;script&gt;alert(1)" in drawn
    assert "<script>alert" not in drawn


def test_marks_on_the_page(marked: str, tmp_path: Path) -> None:
    out = tmp_path / "report.html"
    balloontrace("report", marked, "--html", out)
    page = out.read_text()
    assert "<script>alert" not in page
    assert "the load ends" in page


def test_marks_in_exports(marked: str, tmp_path: Path) -> None:
    for form in ("csv", "parquet", "perfetto"):
        balloontrace("export", marked, "--format", form, "-o", tmp_path / form)
    with open(tmp_path / "csv" / "marks.csv", newline="") as file:
        rows = [(int(row["t_ns"]), row["text"]) for row in csv.DictReader(file)]
    assert rows == [(ns(3.0), SHOWN), (ns(9.0), "the load ends")]
    table = pq.read_table(tmp_path / "parquet" / "marks.parquet").to_pylist()
    assert [(row["t_ns"], row["text"]) for row in table] == rows
    trace = Exported.FromString((tmp_path / "perfetto").read_bytes())
    described = [packet.track_descriptor for packet in trace.packet]
    (track,) = (one.uuid for one in described if one.name == "marks")
    events = [packet for packet in trace.packet if packet.track_event.track_uuid == track]
    found = [(packet.timestamp, packet.track_event.name) for packet in events if packet.timestamp]
    assert found == rows


def test_more_marks_than_there_is_room_for(tmp_path: Path) -> None:
    built = Built().fill(1.0, 0.5, 256)
    for number in range(300):
        built.samples.append({"t_ns": ns(2.0 + number / 100), "mark": f"mark {number}"})
    path = built.ends(10.0).write(tmp_path / "many.btrace")
    pictured = picture(path)
    assert len(pictured.timeline.tables["words"]) == 200
    assert "the last 100 marks are not in the picture" in pictured.timeline.notes
    assert "and 290 more marks (-v shows all)" in report_text(pictured.report)
    assert len(json.loads(report_json(pictured.report))["marks"]) == 300
