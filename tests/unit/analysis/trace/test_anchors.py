# SPDX-License-Identifier: Apache-2.0
"""The balloon's size is set right wherever the recording knows it, whatever was lost before."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from balloontrace.analysis.questions.episodes import watched
from balloontrace.analysis.report import Report, build
from balloontrace.analysis.report import report_of as report_of_trace
from balloontrace.analysis.trace.balloon_size import Unseen, size_curve
from balloontrace.analysis.trace.trace import read_trace
from balloontrace.events import UNKNOWN_PAGES
from balloontrace.recording.block import Block
from balloontrace.recording.blocks import read_blocks
from balloontrace.recording.layout import EVENTS
from tests.unit.builders import ATTACHED_NS, Built, ns, vmstat

CHUNKS = 40
TARGET = CHUNKS * 256


def inflation(*lost: int) -> Built:
    """A fill a second toward TARGET, each asked for what was missing, without those `lost`; it is
    reached at CHUNKS s. The trailer counts what was lost as the recorder does."""
    built = Built().target(0, TARGET)
    for chunk in range(CHUNKS):
        if chunk not in lost:
            built.call("fill", chunk, 0.5, TARGET - chunk * 256, 256, within="worker")
    assert built.trailer is not None
    built.trailer["lost_events"] = len(lost)
    built.trailer["counters"] = {
        "fill": {"written": CHUNKS - len(lost), "lost": len(lost), "lost_pages": 256 * len(lost)},
        "target": {"written": 1, "lost": 0},
    }
    return built.ends(CHUNKS + 20, vmstat(TARGET))


def report_of(built: Built, tmp_path: Path) -> Report:
    return build(built.write(tmp_path / "a.btrace"))


def episode_of(report: Report) -> dict[str, Any]:
    (row,) = report.results["episodes"].tables["episodes"]
    return row


def test_the_size_is_set_right_at_the_next_fill(tmp_path: Path) -> None:
    curve = size_curve(read_trace(inflation(10, 11, 12).write(tmp_path / "a.btrace")))
    assert curve is not None
    assert curve.unseen == (Unseen(ns(9), ns(13), 3 * 256),)
    assert curve.size_after(curve.steps_until(ns(12.9))) == 10 * 256
    assert curve.size_after(curve.steps_until(ns(13.1))) == 13 * 256
    assert curve.size_after(len(curve.time_ns)) == TARGET


def test_an_episode_with_lost_fills_is_reached_and_says_what_it_does_not_know(
    tmp_path: Path,
) -> None:
    report = report_of(inflation(*range(10, 30)), tmp_path)
    row = episode_of(report)
    assert (row["outcome"], row["end_s"], row["end_pages"]) == ("reached", 39.5, TARGET)
    assert (row["inflated_pages"], row["unseen_pages"]) == (20 * 256, 20 * 256)
    assert (row["amplification"], row["churn_ratio"], row["events_missing"]) == (1.0, None, True)
    # Nothing was seen from 9.5 s, when the last fill before the loss ended, to 30 s.
    assert row["longest_no_progress_s"] == 1.0
    assert all(span["end_s"] <= 10 or span["start_s"] >= 30 for span in row["no_progress"])
    said = "between 9.0 and 30.0 s: the balloon had 5,120 pages more than they tell of"
    assert f"events are missing {said}" in report.results["episodes"].notes
    assert report.results["findings"].tables["findings"] == []


def test_a_size_that_one_call_alone_tells_of_is_not_believed(tmp_path: Path) -> None:
    # A leak by another task, between the worker's look at the size and its fill.
    built = inflation(39)
    built.call("fill", 39.7, 0.1, 999, 0, within="worker")
    curve = size_curve(read_trace(built.write(tmp_path / "a.btrace")))
    assert curve is not None
    assert curve.unseen == (Unseen(ns(38), ns(CHUNKS + 20), 256),)


def test_fills_tell_no_size_where_a_target_may_be_missing(tmp_path: Path) -> None:
    built = inflation(10, 11)
    assert built.trailer is not None
    built.trailer["counters"]["target"] = {"written": 2, "lost": 0}
    curve = size_curve(read_trace(built.write(tmp_path / "a.btrace")))
    assert curve is not None
    # /proc/vmstat at the end is what is left.
    assert curve.unseen == (Unseen(ATTACHED_NS, ns(CHUNKS + 20), 2 * 256),)


@pytest.mark.parametrize("rounded", [True, False], ids=["by the driver", "by nobody"])
def test_a_target_between_two_pages_of_the_guest_is_reckoned_with_in_whole_ones(
    tmp_path: Path, rounded: bool
) -> None:
    # 64 KiB pages; the driver's own arguments are whole pages, what the recorder reckons is not.
    built, end = Built().target(0, 1001), 1008
    built.header["guest"]["page_size"] = 65_536
    for number, size in enumerate((0, 256, 512, 768)):
        if size != 256:  # which is lost
            asked = (end if rounded else 1001) - size
            built.call("fill", number, 0.5, asked, min(256, end - size), within="worker")
    assert built.trailer is not None
    built.trailer["counters"] = {
        "fill": {"written": 3, "lost": 1, "lost_pages": 256},
        "target": {"written": 1, "lost": 0},
    }
    report = report_of(built.ends(9, vmstat(63)), tmp_path)
    row = episode_of(report)
    assert (row["outcome"], row["end_s"], row["end_pages"]) == ("reached", 3.5, end)
    assert row["unseen_pages"] == 256
    (told,) = [note for note in report.results["episodes"].notes if "events are missing" in note]
    assert "the balloon had 256 pages more than they tell of" in told


def test_a_target_that_was_read_with_the_size_tells_it(tmp_path: Path) -> None:
    built = inflation(10, 11).target(50, 0, TARGET)
    assert built.trailer is not None
    built.trailer["counters"]["target"] = {"lost": 1}
    report = report_of(built, tmp_path)
    first, second = report.results["episodes"].tables["episodes"]
    assert (first["outcome"], first["end_s"], first["unseen_pages"]) == ("reached", 50.0, 512)
    assert first["longest_no_progress_s"] is None
    assert (second["start_pages"], second["events_missing"]) == (TARGET, False)


def test_a_balloon_is_never_less_than_empty(tmp_path: Path) -> None:
    built = Built().leak(1, 0.1, 256).leak(2, 0.1, 256).fill(3, 0.1, 256).target(4, 0)
    assert built.trailer is not None
    built.trailer["counters"] = {"fill": {"lost": 3}}
    built.ends(9, vmstat(1024, 512))
    del built.trailer["vmstat_detach"]
    curve = size_curve(read_trace(built.write(tmp_path / "a.btrace")))
    assert curve is not None
    assert curve.size.tolist() == [0, 0, 0]
    assert [one.pages for one in curve.unseen] == [None]


def test_a_whole_recording_is_believed_whatever_was_asked(tmp_path: Path) -> None:
    built = inflation()
    for at in (41, 42, 43):
        built.call("fill", at, 0.1, 9999, 0, within="worker")
    curve = size_curve(read_trace(built.write(tmp_path / "a.btrace")))
    assert curve is not None
    assert (curve.unseen, int(curve.size[-1])) == ((), TARGET)


def test_a_rung_that_does_not_see_what_was_asked(tmp_path: Path) -> None:
    built = Built().target(0, 2560)
    for chunk in range(9):
        built.call("fill", chunk, 0.5, UNKNOWN_PAGES, 256, within="worker")
    assert built.trailer is not None
    built.trailer["counters"] = {"fill": {"lost": 1}, "target": {"written": 1}}
    row = episode_of(report_of(built.ends(20, vmstat(2560)), tmp_path))
    assert (row["outcome"], row["end_s"], row["unseen_pages"]) == ("reached", 20.0, 256)


@pytest.mark.parametrize("doubtful", [(2, 4), (0, 4), (2, 9), (4, 6)])
def test_no_lack_of_progress_is_claimed_where_events_are_missing(
    doubtful: tuple[int, int], tmp_path: Path
) -> None:
    edges = np.array([1, 3, 5, 8])
    found = watched(edges, [Unseen(*doubtful, 1)])
    moments = {at + 0.5 for low, high in found.tolist() for at in range(low, high)}
    assert moments == {at + 0.5 for at in range(1, 8) if not doubtful[0] <= at < doubtful[1]}
    assert all(
        any(a <= low and high <= b for a, b in ((1, 3), (3, 5), (5, 8)))
        for low, high in found.tolist()
    )


def test_what_is_torn_off_the_end_makes_nothing_doubtful_before_it(tmp_path: Path) -> None:
    built = inflation()
    built.trailer = None
    path = Path(built.write(tmp_path / "a.btrace"))
    path.write_bytes(path.read_bytes()[:-5] + b"BTBK torn")
    trace = read_trace(str(path))
    assert trace.recording.damage
    curve = size_curve(trace)
    assert curve is not None
    assert curve.unseen == ()


DATA = Path(__file__).parents[3] / "data"
HOLES = [
    (name, eighth)
    for name in ("6.1-arm64", "6.1-driver-reloaded", "6.1-shrinker-reclaim", "6.12-tour")
    for eighth in range(0, 8, 2)
]


@pytest.mark.parametrize(("name", "eighth"), HOLES)
def test_a_real_recording_with_a_hole_is_right_wherever_it_is_sure(
    name: str, eighth: int, tmp_path: Path
) -> None:
    whole = DATA / f"{name}.btrace"
    data = whole.read_bytes()
    events = [b for b in read_blocks(data) if isinstance(b, Block) and b.kind == EVENTS]
    gone = events[eighth * len(events) // 8]
    holed = tmp_path / "holed.btrace"
    holed.write_bytes(data[: gone.offset] + data[gone.end :])
    true, trace = size_curve(read_trace(str(whole))), read_trace(str(holed))
    report_of_trace(trace)
    curve = size_curve(trace)
    assert true is not None
    assert curve is not None
    moments = np.linspace(trace.begin_ns, trace.end_ns, 3000).astype(np.int64)
    sure = np.ones(len(moments), dtype=bool)
    for one in curve.unseen:
        sure &= (moments < one.start_ns) | (moments > one.end_ns)
    sizes, was = (
        np.array([c.size_after(c.steps_until(moment)) for moment in moments[sure].tolist()])
        for c in (curve, true)
    )
    assert (sizes == was).all()
    assert curve.size_after(len(curve.time_ns)) == true.size_after(len(true.time_ns))
