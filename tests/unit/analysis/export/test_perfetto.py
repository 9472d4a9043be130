# SPDX-License-Identifier: Apache-2.0
"""A Perfetto trace says what the report says: read back with the protobuf's own reader."""

from __future__ import annotations

import io
import os
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from perfetto.protos.perfetto.trace.perfetto_trace_pb2 import BuiltinClock, TrackEvent
from perfetto.protos.perfetto.trace.perfetto_trace_pb2 import Trace as Packets

from balloontrace import events
from balloontrace.analysis.export import perfetto
from balloontrace.analysis.report import report_of
from balloontrace.analysis.trace.balloon_size import size_curve
from balloontrace.analysis.trace.causes import CAUSE_NAMES, cause_codes
from balloontrace.analysis.trace.trace import Trace, read_trace
from balloontrace.escape import plain
from balloontrace.events import UNKNOWN_PAGES
from balloontrace.recording.writer import Writer
from tests.unit.builders import WORKER_TID, Built, ns, stock_like, vmstat

DATA = Path(__file__).parents[3] / "data"
RECORDINGS = sorted(path.stem for path in DATA.glob("*.btrace"))


@dataclass
class Slice:
    """One slice, as a track has it; end: None if it has none."""

    track: str
    name: str
    category: str
    start: int
    end: int | None
    depth: int
    arguments: dict[str, Any]


@dataclass
class Picture:
    """What is in a trace. counters: name -> (time, value)."""

    slices: list[Slice] = field(default_factory=list)
    instants: list[Slice] = field(default_factory=list)
    counters: dict[str, list[tuple[int, int]]] = field(default_factory=lambda: defaultdict(list))
    tracks: dict[int, Any] = field(default_factory=dict)

    def of(self, category: str) -> list[Slice]:
        return [found for found in self.slices if found.category == category]

    def pages(self, category: str, unit: str = "balloon_pages") -> int:
        return sum(found.arguments.get(f"done_{unit}", 0) for found in self.of(category))


def picture(trace: Trace) -> Picture:
    """Export and read back; fails if time goes backwards, or a track's slices do not nest."""
    file = io.BytesIO()
    written = perfetto.write(trace, file)
    packets = Packets.FromString(file.getvalue()).packet
    assert written == len(packets)
    found = Picture()
    words: dict[str, dict[int, str]] = defaultdict(dict)
    stacks: dict[int, list[Slice]] = defaultdict(list)
    latest = 0
    for packet in packets:
        if packet.HasField("interned_data"):
            defaults = packet.trace_packet_defaults
            assert defaults.timestamp_clock_id == BuiltinClock.BUILTIN_CLOCK_MONOTONIC
            for table, entries in packet.interned_data.ListFields():
                for entry in entries:
                    text = entry.str.decode() if "string" in table.name else entry.name
                    words[table.name][entry.iid] = text
        if packet.HasField("track_descriptor"):
            found.tracks[packet.track_descriptor.uuid] = packet.track_descriptor
        if not packet.HasField("track_event"):
            continue
        assert words, "the default clock must be known before the first time"
        assert packet.timestamp >= latest
        latest = packet.timestamp
        event, track = packet.track_event, found.tracks[packet.track_event.track_uuid]
        title = track.name or f"{track.thread.thread_name} {track.thread.tid}"
        if event.type == TrackEvent.TYPE_COUNTER:
            found.counters[title].append((packet.timestamp, event.counter_value))
        elif event.type == TrackEvent.TYPE_SLICE_END:
            stacks[event.track_uuid].pop().end = packet.timestamp
        else:
            stack = stacks[event.track_uuid]
            one = Slice(
                title,
                event.name or words["event_names"][event.name_iid],
                "".join(event.categories)
                or "".join(words["event_categories"][iid] for iid in event.category_iids),
                packet.timestamp,
                None,
                len(stack),
                {
                    a.name or words["debug_annotation_names"][a.name_iid]: _value(a, words)
                    for a in event.debug_annotations
                },
            )
            if event.type == TrackEvent.TYPE_INSTANT:
                found.instants.append(one)
            else:
                found.slices.append(one)
                stack.append(one)
    return found


def _value(annotation: Any, words: dict[str, dict[int, str]]) -> Any:
    which = annotation.WhichOneof("value")
    value = getattr(annotation, which)
    is_number = which == "string_value_iid"
    return words["debug_annotation_string_values"][value] if is_number else value


@pytest.mark.parametrize("name", RECORDINGS)
def test_a_real_recording(name: str) -> None:
    trace = read_trace(str(DATA / f"{name}.btrace"))
    shown = picture(trace)
    results = report_of(trace).results
    totals = plain(results["totals"].scalars)
    assert shown.pages("fill") == totals["inflated_pages"] > 0
    assert shown.pages("leak") == totals["deflated_pages"]
    for kind in trace.header["kinds"]:
        events = trace.events(kind)
        if kind in ("notice", "oom_kill", "kswapd_wake"):
            names = {"oom_kill": "OOM kill: ", "notice": "notice", "kswapd_wake": "kswapd_wake"}
            instants = [i for i in shown.instants if i.name.startswith(names[kind])]
            assert sorted(i.start for i in instants) == sorted(events["start_ns"])
            continue
        slices = shown.of(kind)
        assert sorted((s.start, s.end or trace.end_ns) for s in slices) == sorted(
            zip(events["start_ns"], events["end_ns"], strict=True)
        )
        assert sum(s.end is None for s in slices) == events["open"].sum()
    leaks = trace.events("leak")
    causes = cause_codes(trace, leaks)
    for code in set(causes.tolist()):
        pages = leaks["done"][causes == code].sum()
        of_cause = [s for s in shown.of("leak") if s.name == f"leak ({CAUSE_NAMES[code]})"]
        assert sum(s.arguments["done_balloon_pages"] for s in of_cause) == pages
    curve = size_curve(trace)
    assert curve is not None
    sizes = shown.counters["balloon size"]
    assert sizes[0] == (trace.begin_ns, curve.base * 4096)
    assert sizes[-1][1] == curve.size_after(len(curve.size)) * 4096
    memory = trace.samples.column("meminfo", "MemFree").tolist()
    assert [value for _, value in shown.counters["MemFree"]] == memory
    assert not [t for t in shown.tracks.values() if "overlapping" in t.name]
    # The acks of the worker are within its fills and leaks.
    assert {s.depth for s in shown.of("ack")} <= {1, 2, 3}
    (whole,) = [s for s in shown.slices if s.track == "recording"]
    assert (whole.name, whole.arguments["lost_events"]) == ("recording: complete, no event lost", 0)
    assert whole.arguments["kernel"] == trace.header["guest"]["kernel"]


def test_calls_nest_and_name_their_task(tmp_path: Path) -> None:
    built = stock_like(2)
    built.ack(5.001, 0.001, 256, "deflate", "leak scan")
    built.call("leak", 5.0, 0.01, 256, 200, tid=900, pid=800, within="scan", comm=b"cat")
    built.call("scan", 4.9, 0.2, 512, 200, tid=900, pid=800, comm=b"cat")
    shown = picture(read_trace(built.write(tmp_path / "a.btrace")))
    (scan,), leak = shown.of("scan"), shown.of("leak")[-1]
    assert (scan.track, scan.depth, leak.track, leak.depth) == ("cat 900", 0, "cat 900", 1)
    assert (scan.start, scan.end) == (ns(4.9), ns(5.1))
    assert leak.name == "leak (shrinker)"
    assert leak.arguments == {
        "asked_balloon_pages": 256,
        "done_balloon_pages": 200,
        "cpu": 0,
        "within": "scan",
    }
    assert scan.arguments["done_kernel_pages"] == 200
    threads = {t.thread.tid: t for t in shown.tracks.values() if t.HasField("thread")}
    process = shown.tracks[threads[900].parent_uuid].process
    assert (threads[900].thread.pid, process.pid, process.process_name) == (800, 800, "cat")
    assert threads[WORKER_TID].thread.thread_name == "kworker/0:1"


def test_a_task_that_changed_its_name(tmp_path: Path) -> None:
    built = Built().target(1.0, 512, 0).fill(1.0, 0.1, 256, comm=b"kworker/0:1")
    built.fill(1.2, 0.1, 256, comm=b"kworker/0:1-eve").ends(2.0)
    shown = picture(read_trace(built.write(tmp_path / "a.btrace")))
    first, second = shown.of("fill")
    assert first.track == second.track == f"kworker/0:1-eve {WORKER_TID}"
    assert first.arguments["comm"] == "kworker/0:1"
    assert "comm" not in second.arguments


def test_open_and_overlapping_calls_keep_their_times(tmp_path: Path) -> None:
    built = Built()
    built.fill(1.0, 0.5, 256).fill(1.2, 0.5, 256).fill(3.0, None, 0)
    built.ack(3.5, 0.1, 256, "inflate", "worker").ends(5.0)
    shown = picture(read_trace(built.write(tmp_path / "a.btrace")))
    first, second, still_open = shown.of("fill")
    assert (first.start, first.end, first.depth) == (ns(1.0), ns(1.5), 0)
    assert (second.start, second.end, second.depth) == (ns(1.2), ns(1.7), 0)
    assert second.track == "kworker/0:1 (overlapping)"
    assert (still_open.start, still_open.end) == (ns(3.0), None)
    (ack,) = shown.of("ack")
    assert (ack.depth, ack.end) == (1, ns(3.6))


def test_pages_that_were_not_visible_are_no_number(tmp_path: Path) -> None:
    built = Built().target(1.0, 256).fill(1.0, 0.1, UNKNOWN_PAGES)
    built.target(1.5, UNKNOWN_PAGES, 0).ends(2.0, vmstat())
    shown = picture(read_trace(built.write(tmp_path / "a.btrace")))
    (fill,) = shown.of("fill")
    assert set(fill.arguments) == {"cpu", "within"}
    assert shown.counters["target"] == [(ns(1.0), 256 * 4096)]
    assert set(shown.counters) == {"target", "balloon size (NOT EXACT)"}
    changes = [i.arguments for i in shown.instants if i.track == "target changes"]
    assert changes == [{"target_balloon_pages": 256}, {"size_balloon_pages": 0}]


def test_what_is_missing_is_written_over_the_picture(tmp_path: Path) -> None:
    built = stock_like(2)
    assert built.trailer is not None
    built.trailer["lost_events"] = 3
    built.trailer["counters"] = {"fill": {"lost": 2, "untracked": 1, "lost_pages": 512}}
    shown = picture(read_trace(built.write(tmp_path / "a.btrace")))
    (whole,) = [s for s in shown.slices if s.track == "recording"]
    assert whole.name == "INCOMPLETE: 3 events were lost"
    assert whole.arguments["lost_events_by_kind"] == '{"fill": 3}'
    assert "balloon size (NOT EXACT)" in shown.counters


def test_kills_and_the_driver(tmp_path: Path) -> None:
    built = Built().target(1.0, 256, 0).fill(1.0, 0.1, 256)
    built.call("oom_kill", 1.5, 0.0, 0, 4242, tid=9, pid=8, flags="memcg", comm=b"\x1b[2Jevil\xff")
    built.call("remove", 2.0, 0.1, 0, 0, comm=b"rmmod")
    built.gone(2.5, vmstat(256)).attached(4.0, vmstat(256)).ends(5.0)
    shown = picture(read_trace(built.write(tmp_path / "a.btrace")))
    (kill,) = [i for i in shown.instants if i.track == "OOM kills"]
    assert kill.name == r"OOM kill: \x1b[2Jevil\xff"
    expected = {"needed_by_tid": 9, "needed_by_pid": 8, "victim_pid": 4242, "memcg": True}
    assert kill.arguments == expected
    (gap,) = [s for s in shown.slices if s.track == "driver"]
    assert (gap.name, gap.start, gap.end) == ("no driver was traced", ns(2.1), ns(4.0))
    marks = [(i.name, i.start) for i in shown.instants if i.track == "driver"]
    assert marks == [("driver gone", ns(2.5)), ("driver attached", ns(4.0))]


def test_hostile_names_are_escaped_everywhere(tmp_path: Path) -> None:
    built = Built().fill(1.0, 0.1, 256, comm=b"\x1b]0;x\x07\xe2\x80\xaea").ends(2.0)
    built.header["guest"]["hostname"] = "\x1b[31m"
    built.header["within"] = {"\x1b[w": 1}
    file = io.BytesIO()
    perfetto.write(read_trace(built.write(tmp_path / "a.btrace")), file)
    text = str(Packets.FromString(file.getvalue()))
    for hidden in ("\x1b", "\\033", "\u202e"):
        assert hidden not in text
    assert r"\\x1b]0;x\\x07\\u202ea" in text  # as text shows a backslash


def test_an_empty_recording_is_a_trace_too(tmp_path: Path) -> None:
    shown = picture(read_trace(Built().ends(1.0).write(tmp_path / "a.btrace")))
    assert [s.track for s in shown.slices] == ["recording"]


def test_a_clock_read_before_time_began_is_written_as_any_time_is(tmp_path: Path) -> None:
    # An event that was damaged began at a time that no 63 bits hold.
    built = stock_like(2)
    built.call("notice", 9.3e9, 0.0, 0, 0)
    shown = picture(read_trace(built.ends(9.0).write(tmp_path / "a.btrace")))
    assert "fill" in {s.category for s in shown.slices}


@pytest.mark.parametrize(
    ("name", "form", "shown", "said"),
    [("cpu", "<f2", "cpu", None), ("asked", "<u8", "asked_balloon_pages", 2**64 - 1)],
)
def test_a_field_of_another_type_is_an_argument_if_it_is_whole(
    tmp_path: Path, name: str, form: str, shown: str, said: int | None
) -> None:
    path = tmp_path / "a.btrace"
    layout = [[field, form if field == name else kind] for field, kind in events.record_layout()]
    item = np.zeros(1, dtype=[("ring_header", "V8"), *map(tuple, layout)])
    item["kind"], item[name] = 1, said or 0.5
    descriptor = os.open(path, os.O_CREAT | os.O_WRONLY)
    writer = Writer(descriptor)
    writer.header(Built().header | {"record": layout, "kinds": {"fill": 1}})
    writer.events(item.tobytes())
    os.close(descriptor)
    (fill,) = picture(read_trace(str(path))).of("fill")
    assert fill.arguments.get(shown) == said
