# SPDX-License-Identifier: Apache-2.0
"""What live says of a stretch, the report says too; of any moment, in bounded memory."""

from __future__ import annotations

import random
import tracemalloc
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from balloontrace import events
from balloontrace.analysis.questions.totals import churn_of
from balloontrace.analysis.report import report_of
from balloontrace.analysis.trace.trace import read_trace
from balloontrace.analysis.trace.window import Window
from balloontrace.errors import UserError
from balloontrace.live.model import ZOOMS_S, Model
from balloontrace.live.seconds import KEPT
from balloontrace.live.view import CLOSED, ENDED, SILENT, TRACING, View
from balloontrace.recording import layout
from balloontrace.recording.writer import Writer
from tests.unit.builders import Built, between_pages, ns, shrinker_like, stock_like, vmstat

DATA = Path(__file__).parents[2] / "data"
RECORDINGS = sorted(DATA.glob("**/*.btrace"))
FOUNDING = DATA / "6.1-shrinker-reclaim.btrace"

OF_A_KILL = {"killed-beside-balloon", "memcg-oom"}


def fed(data: bytes, piece: int = 4096) -> Model:
    """A model that has seen all of a stream."""
    model = Model("stream")
    for begin in range(0, len(data), piece):
        model.feed(data[begin : begin + piece], 0.0)
    model.close()
    return model


def built(recording: Built, tmp_path: Path) -> bytes:
    """Its bytes."""
    return Path(recording.write(tmp_path / "built.btrace")).read_bytes()


def assert_agrees(path: Path, view: View) -> None:
    """With what the report says of the same recording, to the page."""
    results = report_of(read_trace(str(path))).results
    totals, progress = results["totals"].scalars, view.progress
    assert progress.inflated_pages == totals["inflated_pages"]
    assert progress.deflated_pages == totals["deflated_pages"]
    by_cause: dict[str, int] = dict.fromkeys(progress.by_cause or (), 0)
    for row in results["causes"].tables["causes"]:
        by_cause[row["cause"]] += row["pages"]
    assert progress.by_cause == by_cause
    assert progress.churn_ratio == totals["churn_ratio"]
    episodes = results["episodes"].tables["episodes"]
    spans = [row["longest_no_progress_s"] for row in episodes if row["direction"]]
    assert progress.longest_no_progress_s == max(spans, default=None)
    assert view.agreement.agrees is results["reconciliation"].scalars["agrees"] is True
    found = {row["id"] for row in results["findings"].tables["findings"]}
    found |= {"oom-kill"} if found & OF_A_KILL else set()
    assert {one.id for one in view.findings} <= found
    if episodes:
        assert (view.size_pages, view.target_pages) == (
            episodes[-1]["end_pages"],
            episodes[-1]["target_pages"],
        )


@pytest.mark.parametrize("path", RECORDINGS, ids=lambda path: path.stem)
def test_it_says_what_the_report_says(path: Path) -> None:
    assert_agrees(path, fed(path.read_bytes()).view(0.0))


def leaving(how: str) -> Built:
    """A driver that leaves in the middle of an inflation, gives back what it had, and comes again
    to another target."""
    recording = Built().target(1, 1000, 0).fill(1, 1, 600).call(how, 3, 1, 0, 0)
    recording.leak(3.0, 0.2, 256, within=how).leak(3.4, 0.3, 344, within=how)
    return recording.target(5, 300, 0).fill(5, 0.5, 300)


@pytest.mark.parametrize(
    "recording",
    [
        stock_like(),
        shrinker_like(800),
        between_pages().ends(9, vmstat(63, 56)),
        leaving("remove").ends(6),
        leaving("freeze").ends(6),
    ],
    ids=["stock", "shrinker", "between-pages", "remove", "freeze"],
)
def test_and_of_what_is_known_by_hand(recording: Built, tmp_path: Path) -> None:
    data = built(recording, tmp_path)
    assert_agrees(tmp_path / "built.btrace", fed(data).view(0.0))


@pytest.mark.parametrize("path", RECORDINGS, ids=lambda path: path.stem)
def test_the_last_minute_s_churn_is_what_the_report_says_of_it(path: Path) -> None:
    model, trace = fed(path.read_bytes()), read_trace(str(path))
    seconds = model.seconds or range(0)
    for second in seconds[:: max(1, len(seconds) // 8)]:
        begin_ns, end_ns = (trace.begin_ns + n * 10**9 for n in (second - 59, second + 1))
        told = churn_of(Window(trace, begin_ns, end_ns))
        assert model.view(0.0, at=second).progress.now_churn_ratio == told, second


def in_and_out() -> Built:
    """A host that inflates, deflates, and does it again: each is done at once."""
    recording = Built()
    for begin in range(0, 100, 10):
        recording.target(begin + 0.5, 1000, 0).fill(begin + 0.6, 0.01, 1000)
        recording.target(begin + 5.5, 0, 1000).leak(begin + 5.6, 0.01, 1000)
    return recording


def test_what_a_host_takes_and_gives_is_no_churn(tmp_path: Path) -> None:
    model = fed(built(in_and_out().ends(100.0), tmp_path))
    ratios = {model.view(0.0, at=at).progress.now_churn_ratio for at in range(6, 99)}
    assert ratios == {0.0}


def test_churn_of_the_last_minute_is_of_that_alone(tmp_path: Path) -> None:
    recording = in_and_out()
    recording.target(100.5, 1000, 0)
    for tenth in range(90):
        recording.fill(101.0 + tenth / 10, 0.01, 100).leak(101.05 + tenth / 10, 0.01, 100)
    path = recording.ends(200.0).write(tmp_path / "churn.btrace")
    model, trace = fed(Path(path).read_bytes()), read_trace(str(path))
    ratios = []
    for second in (99, 101, 105, 120, 155, 168, 175):
        begin_ns, end_ns = (trace.begin_ns + n * 10**9 for n in (second - 59, second + 1))
        ratios.append(model.view(0.0, at=second).progress.now_churn_ratio)
        assert ratios[-1] == churn_of(Window(trace, begin_ns, end_ns))
    assert ratios[0] == 0.0
    assert ratios[-2:] == [1.0, None]


def test_a_busy_no_op_fires_while_it_happens(tmp_path: Path) -> None:
    data = built(shrinker_like(4000), tmp_path)
    model = fed(data)
    last = model.view(0.0)
    (one,) = last.findings
    assert one.id == "busy-no-op"
    assert model.seconds is not None
    whiles = [model.view(0.0, at=second) for second in model.seconds]
    fires = [view.seconds for view in whiles if any(found.firing for found in view.findings)]
    assert fires
    assert fires[0] is not None
    assert last.seconds is not None
    assert fires[0] < last.seconds / 2
    assert any(view.progress.no_progress_s for view in whiles)


def test_what_it_said_is_kept_when_the_target_is_reached_after_all(tmp_path: Path) -> None:
    recording = Built().target(0.5, 299 * 6 + 256, 0)  # by the last one
    for tenth in range(300):
        recording.fill(1.0 + tenth / 10, 0.01, 256)
        recording.leak(1.05 + tenth / 10, 0.01, 250, within="scan", comm=b"kswapd0")
    recording.leak(31.5, 0.01, 256, within="scan", comm=b"kswapd0")
    view = fed(built(recording.ends(33.0), tmp_path)).view(0.0)
    (one,) = view.findings
    assert one.until_s > 31.0
    assert "back (98%), the balloon grew by 1,7" in one.sentence


def test_a_task_is_one_whatever_its_name_was_before(tmp_path: Path) -> None:
    recording = Built().fill(1.0, 0.01, 500)
    for at, comm in ((2.0, b"cat"), (3.0, b"cat\0pd0"), (4.0, b"cat\0ker/0:2")):
        recording.leak(at, 0.01, 100, within="scan", comm=comm)
    (task,) = fed(built(recording.ends(6.0), tmp_path)).view(0.0).tasks
    assert (task.comm, task.pages, task.calls) == ("cat", 300, 3)


def shuffled(calls: list[tuple[str, float]]) -> Built:
    """Fills and leaks in whatever order they stand in the file."""
    recording = Built().target(0.5, 1000, 0)
    for kind, at in calls:
        getattr(recording, kind)(at, 0.001, 100)
    return recording


def test_events_of_several_cpus_are_put_in_order(tmp_path: Path) -> None:
    calls = [("fill", 1.0 + i * 0.01) for i in range(10)] + [("leak", 1.045)]
    recording = shuffled(calls)
    in_order = fed(built(recording.ends(3.0), tmp_path)).view(0.0)
    recording._calls[2:6] = random.Random(7).sample(recording._calls[2:6], 4)
    descriptor_path = tmp_path / "disorder.btrace"
    with descriptor_path.open("wb") as file:
        writer = Writer(file.fileno())
        writer.header(recording.header)
        for _, record in recording._calls:
            writer.events(record)
        writer.trailer(recording.trailer or {})
    disorder = fed(descriptor_path.read_bytes()).view(0.0)
    assert disorder.progress == in_order.progress
    assert disorder.size_pages == in_order.size_pages == 900


def seconds_of(recording: Built, seconds: int, each: int = 1) -> Built:
    """A target and, in each second, fills of 10 pages, and a sample."""
    recording.target(0.5, 1 << 30, 0)
    for second in range(seconds):
        for number in range(each):
            recording.fill(second + 0.6 + number * 0.001, 0.0005, 10)
        recording.sample(second + 0.9, vmstat(10 * each * (second + 1)))
    return recording


def test_a_moment_that_is_walked_back_to_is_as_it_was(tmp_path: Path) -> None:
    first = seconds_of(Built(), 30)
    first.trailer = None
    early, late = fed(built(first, tmp_path)), seconds_of(Built(), 90)
    late.leak(80.2, 0.001, 10, within="scan", comm=b"hog")
    late.trailer = None
    model = fed(built(late, tmp_path))
    assert early.seconds is not None
    then, now = early.view(0.0, at=20), model.view(0.0, at=20)
    pieces = replace(now.stream, bytes=then.stream.bytes, bytes_per_s=then.stream.bytes_per_s)
    assert replace(now, stream=pieces) == then
    assert now.live is False
    assert now.tasks == ()
    assert model.view(0.0).tasks[0].comm == "hog"
    assert now.size_pages == 210
    assert model.seconds is not None
    assert model.view(0.0, at=10_000) == model.view(0.0, at=model.seconds[-1])


def test_rates_are_of_whole_seconds_and_columns_do_not_change(tmp_path: Path) -> None:
    model = fed(built(seconds_of(Built(), 130, each=3).ends(131.0), tmp_path))
    view = model.view(0.0, at=120, zoom_s=60, columns=30)
    assert view.last_second.inflated == 30
    assert view.last_minute.inflated == 30
    assert view.last_second.out == 0
    later = model.view(0.0, at=121, zoom_s=60, columns=30)
    assert view.graph.column_s == 2.0
    assert len(view.graph.columns) == 30
    assert set(view.graph.columns[1:-1]) <= set(later.graph.columns)


@pytest.mark.parametrize("zoom_s", ZOOMS_S)
@pytest.mark.parametrize("columns", [10, 64, 104, 184, 2000])
def test_a_graph_reaches_as_far_as_it_says_in_any_width(
    long_stream: Model, zoom_s: int, columns: int
) -> None:
    graph = long_stream.view(0.0, zoom_s=zoom_s, columns=columns).graph
    span_s = len(graph.columns) * graph.column_s
    assert zoom_s <= span_s
    assert span_s <= max(2 * zoom_s, KEPT)
    width = len(graph.columns) * graph.cells
    assert columns / 2 < width <= columns
    assert all(column.size_pages is not None for column in graph.columns[1:])


@pytest.fixture(scope="module")
def long_stream(tmp_path_factory: pytest.TempPathFactory) -> Model:
    recording = seconds_of(Built(), KEPT + 100).ends(KEPT + 100.0)
    return fed(built(recording, tmp_path_factory.mktemp("long")))


def test_its_memory_does_not_grow_with_the_stream(tmp_path: Path) -> None:
    recording = seconds_of(Built(), 1, each=1)
    model = Model("stream")
    path = tmp_path / "long.btrace"
    with path.open("wb") as file:
        writer = Writer(file.fileno())
        writer.header(recording.header)
        sizes = []
        tracemalloc.start()
        read = 0
        for second in range(3 * KEPT):
            task = f"task-{second}".encode()
            for number in range(4):
                one = Built().leak(second + number * 0.1, 0.01, 1, within="scan", comm=task)
                writer.events(one._calls[0][1])
            writer.sample({"t_ns": ns(second + 0.9), "vmstat": vmstat(5 * second)})
            model.feed(path.read_bytes()[read:] if second % 50 == 0 else b"", 0.0)
            read = writer.bytes_written if second % 50 == 0 else read
            if second in (2 * KEPT, 3 * KEPT - 50):
                sizes.append(tracemalloc.get_traced_memory()[0])
        tracemalloc.stop()
    assert model.seconds is not None
    assert len(model.seconds) == KEPT
    assert sizes[1] < sizes[0] * 1.1


def test_silence_and_ends_are_told_apart() -> None:
    data = FOUNDING.read_bytes()
    model = Model("stream")
    assert model.view(5.0).stream.said == "waiting for the first block"
    model.feed(data[:20_000], 10.0)
    assert model.view(14.0).stream.state == TRACING
    silent = model.view(15.5)
    assert (silent.stream.state, silent.stream.said) == (SILENT, "no block for 6 s")
    model.feed(data[20_000:30_000], 16.0)
    assert model.view(17.0).stream.state == TRACING
    model.close()
    assert model.view(30.0).stream.state == CLOSED
    assert "closed before its end" in model.view(30.0).stream.said
    ended = fed(data).view(100.0)
    assert (ended.stream.state, ended.stream.said) == (ENDED, "ended: interrupted")


def test_what_has_just_come_is_shown_when_nothing_follows_it() -> None:
    data = FOUNDING.read_bytes()
    model = Model("stream")
    model.feed(data[:20_000], 10.0)
    at_once, settled = model.view(10.0), model.view(10.2)
    assert at_once.t_ns is not None
    assert settled.t_ns is not None
    assert at_once.t_ns < settled.t_ns


def test_a_size_that_is_set_right_to_the_target_has_reached_it(tmp_path: Path) -> None:
    recording = Built().target(0.5, 5000, 0).fill(1.0, 0.01, 2000)  # the other 3000 are lost
    for second in range(3, 60):
        recording.sample(second + 0.5, vmstat(5000))
    recording.trailer = None
    progress = fed(built(recording, tmp_path)).view(0.0).progress
    assert progress.no_progress_s is None
    assert (progress.longest_no_progress_s or 0) < 10


def test_what_is_missing_is_said_and_the_size_set_right(tmp_path: Path) -> None:
    recording = Built().target(0.5, 5000, 0)
    for number in range(20):
        recording.fill(1.0 + number * 0.1, 0.01, 100)
    for second in range(3, 9):
        recording.sample(second + 0.5, vmstat(2000 + 500))  # five fills more than were told of
    recording.trailer = None
    view = fed(built(recording, tmp_path)).view(0.0)
    assert view.agreement.agrees is False
    assert "inflate by -500" in view.agreement.sentence
    assert view.size_pages == 2500
    assert view.progress.churn_ratio is None


def test_pages_that_the_host_has_not_answered_for_yet_are_not_missing(tmp_path: Path) -> None:
    recording = Built().target(0.5, 5000, 0).fill(1.0, 0.01, 256)
    for second in range(2, 20):  # the host answers after 18 s
        recording.sample(second + 0.5, vmstat(512))
    recording.trailer = None
    late = built(recording, tmp_path)
    recording.fill(2.0, 18.1, 256)
    for second in range(21, 30):
        recording.sample(second + 0.5, vmstat(512))
    waiting = fed(late).view(0.0)
    assert waiting.agreement.agrees is None
    assert "256 pages are under way, or not told of" in waiting.agreement.sentence
    assert waiting.size_pages == 256
    assert waiting.progress.no_progress_s is None  # it may be there, and the call's event lost
    view = fed(built(recording, tmp_path)).view(0.0)
    assert view.agreement.agrees
    assert view.size_pages == 512
    assert (view.progress.longest_no_progress_s or 0) >= 18


def test_one_call_that_is_not_told_of_is_missing_once_a_later_one_is(tmp_path: Path) -> None:
    recording = Built().target(0.5, 512, 0).fill(1.0, 0.01, 256)  # the other 256 are lost
    for second in range(2, 20):
        recording.sample(second + 0.5, vmstat(512))
    recording.target(20.0, 768, 512).fill(20.1, 0.01, 256)
    for second in range(21, 80):
        recording.sample(second + 0.5, vmstat(768))
    model = fed(built(recording.ends(80.0, vmstat(768)), tmp_path))
    assert model.view(0.0, at=15).progress.no_progress_s is None
    for at in (60, None):
        view = model.view(0.0, at=at)
        assert (view.size_pages, view.progress.no_progress_s) == (768, None)
        assert view.agreement.agrees is False
    assert (model.view(0.0).progress.longest_no_progress_s or 0) < 1


def test_one_call_that_is_not_told_of_until_the_end_is_missing(tmp_path: Path) -> None:
    recording = Built().target(0.5, 512, 0).fill(1.0, 0.01, 256)
    for second in range(2, 20):
        recording.sample(second + 0.5, vmstat(512))
    view = fed(built(recording.ends(20.0, vmstat(512)), tmp_path)).view(0.0)
    assert (view.agreement.agrees, view.size_pages) == (False, 512)


def test_a_call_that_was_under_way_at_the_begin_is_no_difference(tmp_path: Path) -> None:
    """As where a segment of `watch` begins while the host has not answered yet."""
    recording = Built(base=1024)
    recording.header |= {"watch": {"fired": []}, "underway": {"fill": 1, "ack": 1}}
    recording.fill(-3.0, 5.0, 256)
    for second in range(8):
        recording.sample(second + 0.2, vmstat(1024))
    model = fed(built(recording.ends(8.0, vmstat(1024)), tmp_path))
    assert all(model.view(0.0, at=at).agreement.agrees is not False for at in range(8))
    view = model.view(0.0)
    assert (view.agreement.agrees, view.size_pages) == (True, 1024)


@pytest.mark.parametrize("answers_s", [0.5, 5.0])
def test_a_recording_that_begins_while_the_balloon_moves(tmp_path: Path, answers_s: float) -> None:
    recording = Built(base=1000)
    recording.header["vmstat_attach"] = {"before": vmstat(1000), "after": vmstat(1100)}
    recording.fill(-0.1, answers_s + 0.1, 256)
    for at in (0.2, 1.2, 2.2):
        if at < answers_s:
            recording.sample(at, vmstat(1256))
    for number in range(4):
        recording.fill(answers_s + 0.1 + number / 10, 0.05, 256)
    for second in range(7, 15):
        recording.sample(second, vmstat(1256 + 1024))
    view = fed(built(recording.ends(15.0, vmstat(1256 + 1024)), tmp_path)).view(0.0)
    assert (view.agreement.agrees, view.size_pages) == (True, 1256 + 1024)


def test_a_migration_that_was_under_way_at_the_begin_is_no_difference(tmp_path: Path) -> None:
    counters = vmstat(1000, 0, 501)
    recording = Built(base=1000)
    recording.header["vmstat_attach"] = {"before": counters, "after": counters}
    recording.header |= {"watch": {"fired": []}, "underway": {"migrate": 1, "ack": 1}}
    recording.call("migrate", -0.01, 0.03, 1, 1).fill(0.5, 0.1, 256)
    for second in range(2, 9):
        recording.sample(second, vmstat(1256, 0, 501))
    model = fed(built(recording.ends(9.0, vmstat(1256, 0, 501)), tmp_path))
    assert all(model.view(0.0, at=at).agreement.agrees is not False for at in range(9))
    assert model.view(0.0).agreement.agrees is True


def test_the_size_under_a_driver_that_cannot_be_traced_is_not_known(tmp_path: Path) -> None:
    recording = Built()
    here = vmstat(1000)
    recording.header |= {"seams": {}, "vmstat_attach": {"before": here, "after": here}}
    recording.driver(0.1, "absent", vmstat={"before": here, "after": here})
    recording.driver(0.2, "untraceable", why="it has other functions")
    for second in range(1, 5):
        recording.sample(second, vmstat(1000 + 100 * second))
    recording.trailer = None
    view = fed(built(recording, tmp_path)).view(0.0)
    assert (view.driver, view.size_pages) == ("untraceable", None)


def test_a_call_that_was_late_is_not_missing_at_an_end_in_the_middle(tmp_path: Path) -> None:
    recording = Built().target(0.5, 5000, 0).fill(1.0, 0.01, 256)
    for second in range(2, 20):
        recording.sample(second + 0.5, vmstat(512))
    recording.fill(2.0, 18.1, 256)
    for number in range(4):
        recording.fill(20.2 + number / 10, 0.05, 256)
    recording.ends(21.0, vmstat(1536))
    assert recording.trailer is not None
    recording.trailer["vmstat_detach"]["before"] = vmstat(1500)
    view = fed(built(recording, tmp_path)).view(0.0)
    assert view.agreement.agrees is not False
    assert view.size_pages == 1536


@pytest.mark.parametrize("state", ["attached", "untraceable"])
def test_what_moves_while_no_driver_is_traced_is_no_difference(tmp_path: Path, state: str) -> None:
    recording = Built().target(0.5, 1000, 0).fill(1.0, 0.1, 1000)
    for at in (2.0, 3.0, 3.5):
        recording.sample(at, vmstat(1000))
    recording.leak(4.0, 0.1, 1000, within="remove leak").call("remove", 4.0, 0.2, 0, 0)
    recording.gone(4.5, vmstat(1000, 1000))
    for at in (5.0, 6.0, 6.5):
        recording.sample(at, vmstat(2000, 1000))
    if state == "attached":
        recording.attached(7.0, vmstat(2000, 1000))
    else:
        recording.driver(7.0, "untraceable", why="it has other functions")
    for at in range(8, 12):
        recording.sample(float(at), vmstat(2000, 1000))
    model = fed(built(recording, tmp_path))
    assert all(model.view(0.0, at=at).agreement.agrees is not False for at in range(12))
    if state == "attached":
        assert model.view(0.0).size_pages == 1000


def test_a_reading_that_failed_is_no_move(tmp_path: Path) -> None:
    recording = Built()
    counters = vmstat(50_000, 20_000)
    recording.header |= {"counters": {"interval_s": 0.1}, "seams": {}}
    recording.header["vmstat_attach"] = {"before": counters, "after": counters}
    recording.sample(0.5, counters).sample(1.5, counters)
    recording.samples.append({"t_ns": ns(2), "failed": {"vmstat": "no memory"}, "meminfo": {}})
    recording.sample(3.0, counters).sample(4.0, vmstat(50_100, 20_000)).ends(5.0)
    view = fed(built(recording, tmp_path)).view(0.0)
    assert (view.progress.inflated_pages, view.progress.deflated_pages) == (100, 0)
    assert view.size_pages == 30_100


def test_where_the_kernel_counts_nothing_nothing_is_said_of_what_moves(tmp_path: Path) -> None:
    recording = Built()
    recording.header |= {"counters": {"interval_s": 0.1}, "seams": {}}
    for at in range(5):
        recording.sample(float(at), {"nr_free_pages": 5})
    view = fed(built(recording.ends(5.0), tmp_path)).view(0.0)
    progress = view.progress
    moved = (progress.inflated_pages, progress.deflated_pages, progress.by_cause)
    assert moved == (None, None, None)
    assert (view.last_minute.inflated, view.last_minute.out) == (None, None)


def test_a_device_that_comes_or_is_plugged_in_anew_is_the_one_that_is_shown(
    tmp_path: Path,
) -> None:
    recording = Built().target(0.5, 5000, 0).fill(1.0, 0.01, 256)
    described = recording.header["balloon"]
    recording.header["balloon"] = {**described, "features": []}
    recording.driver(2.0, "negotiated", balloon=described)
    assert fed(built(recording, tmp_path)).view(0.0).guest.behaviour == "oom-notifier"


def test_counters_alone_are_shown_with_unknown_causes(tmp_path: Path) -> None:
    recording = Built()
    recording.header |= {"counters": {"interval_s": 0.1}, "seams": {}}
    for tenth in range(100):
        recording.sample(tenth / 10, vmstat(100 * tenth, 50 * tenth))
    recording.trailer = None
    view = fed(built(recording, tmp_path)).view(0.0)
    assert view.guest.by_counters
    assert (view.progress.inflated_pages, view.progress.deflated_pages) == (9900, 4950)
    assert view.progress.by_cause is not None
    assert view.progress.by_cause["unknown"] == 4950
    assert view.progress.churn_ratio is None
    assert view.size_pages == 4950


@pytest.mark.parametrize(
    "change",
    [
        {"record": "x"},
        {"record": [["start_ns", "<u8"]]},
        {"record": [["start_ns", ">u8"], 5]},
        {"ring_header_bytes": None},
        {"ring_header_bytes": 1 << 70},
    ],
)
def test_a_header_that_does_not_describe_events_is_one_line(
    change: dict[str, Any], tmp_path: Path
) -> None:
    recording = stock_like()
    recording.header |= change
    with pytest.raises(UserError, match="does not describe its events"):
        fed(built(recording, tmp_path))


def test_a_newer_format_is_refused(tmp_path: Path) -> None:
    data = built(stock_like(), tmp_path)
    path = tmp_path / "newer.btrace"
    with path.open("wb") as file:
        writer = Writer(file.fileno())
        writer._json(layout.HEADER, {"format": layout.FORMAT_VERSION + 1})
    assert data
    with pytest.raises(UserError, match="upgrade balloontrace"):
        fed(path.read_bytes())


def test_fields_that_are_not_known_are_passed_over(tmp_path: Path) -> None:
    recording = stock_like(20)
    plain = fed(built(recording, tmp_path)).view(0.0)
    recording.header["record"] = [
        [name if name != "cpu" else "elsewhere", code] for name, code in events.record_layout()
    ]
    recording.header["kinds"] = {**recording.header["kinds"], "sleepy": 99}
    assert fed(built(recording, tmp_path)).view(0.0).progress == plain.progress
