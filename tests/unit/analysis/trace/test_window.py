# SPDX-License-Identifier: Apache-2.0
"""Windows of recordings: what each has adds up, and it begins where the one before ended."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from balloontrace.analysis.json import report_json
from balloontrace.analysis.questions.reconciliation import Reconciliation
from balloontrace.analysis.report import report_of
from balloontrace.analysis.timeline.picture import picture_of
from balloontrace.analysis.trace.balloon_size import size_curve
from balloontrace.analysis.trace.goals import goals_of
from balloontrace.analysis.trace.trace import Trace, read_trace
from balloontrace.analysis.trace.window import Window, targets_of
from tests.unit.builders import Built, ns, shrinker_like, vmstat
from tests.unit.golden import RECORDINGS

ADDED = ("inflated_pages", "deflated_pages", "net_pages", "migrated_pages")


@dataclass(frozen=True)
class Cut:
    """A recording, windows that follow each other and have all of it, and what is said of each."""

    whole: Trace
    report: dict[str, Any]
    windows: list[Window]
    reports: list[dict[str, Any]]


@pytest.fixture(scope="module", params=RECORDINGS, ids=lambda path: path.stem)
def cut(request: pytest.FixtureRequest) -> Cut:
    whole = read_trace(str(request.param))
    report = said(whole)
    edges = [None, *cut_at(whole), None]
    windows = [Window(whole, since, until) for since, until in pairwise(edges)]
    return Cut(whole, report, windows, [said(window) for window in windows])


def said(trace: Trace) -> dict[str, Any]:
    """The report of a window as JSON."""
    content: dict[str, Any] = json.loads(report_json(report_of(trace)))
    del content["path"]
    return content


def cut_at(whole: Trace) -> list[int]:
    """Moments to cut at: some are in a call, one is the very end of one, one follows at once."""
    ends = whole.calls("fill")["end_ns"]
    span = whole.end_ns - whole.begin_ns
    within = [whole.begin_ns + span * share // 3 for share in range(1, 3)]
    starts = whole.calls("leak")["start_ns"]
    calls = [int(ends[len(ends) // 3]), int(ends[len(ends) // 2]) + 1, int(starts[-1]) + 1]
    return sorted({*within, *calls})


def by_cause(report: dict[str, Any]) -> Counter[tuple[str, str, str]]:
    """Pages and calls of each cause and actor."""
    counted: Counter[tuple[str, str, str]] = Counter()
    for row in report["causes"] or []:
        for number in ("pages", "calls"):
            counted[row["cause"], row["actor"], number] += row[number]
    return counted


def test_windows_add_up_to_the_whole(cut: Cut) -> None:
    reports, report = cut.reports, cut.report
    for key in ADDED:
        parts = [part["totals"][key] for part in reports]
        assert None in parts or sum(parts) == report["totals"][key], key
    assert sum((by_cause(part) for part in reports), Counter()) == by_cause(report)
    for call in ("fill", "leak"):
        for key in ("calls", "pages", "total_s", "host_ack_s", "rest_s"):
            values = [part["phases"][call][key] for part in reports]
            assert sum(values) == pytest.approx(report["phases"][call][key]), (call, key)
    busy = [part["cost"]["driver_busy_s"] for part in reports]
    if None not in busy:
        assert sum(busy) == pytest.approx(report["cost"]["driver_busy_s"])
    kills = [part["oom"]["killed"] for part in reports if part["oom"]]
    assert sum(filter(None, kills)) == ((report["oom"] or {}).get("killed") or 0)


def test_a_window_begins_where_the_one_before_ended(cut: Cut) -> None:
    curve = size_curve(cut.whole)
    targets_ns, targets = targets_of(cut.whole)
    assert curve
    for window, following in pairwise(cut.windows):
        edge = window.end_ns
        assert edge == following.begin_ns
        ended, begins = size_curve(window), size_curve(following)
        assert ended
        assert begins
        assert begins.base == ended.size_after(len(ended.time_ns))
        assert begins.base == curve.size_after(curve.steps_until(edge))
        set_before = targets[targets_ns <= edge][-1:].tolist()
        assert targets_of(following)[1][: len(set_before)].tolist() == set_before
        last = goals_of(window, ended)[-1:]
        if last and last[0].target is not None:
            assert goals_of(following, begins)[0].target == last[0].target


def test_a_window_with_all_in_it_is_the_whole(cut: Cut) -> None:
    report = said(Window(cut.whole, cut.whole.begin_ns, None))
    keys = ("since_s", "until_s", "since_at", "until_at")
    shown = {key: report.pop(key) for key in keys}
    assert (shown["since_s"], shown["until_s"]) == (0.0, report["duration_s"])
    assert {key: cut.report[key] for key in keys} == dict.fromkeys(keys)
    assert report == {key: value for key, value in cut.report.items() if key not in keys}


def test_the_timeline_of_a_window_has_what_moved_in_it(cut: Cut) -> None:
    for window, report in zip(cut.windows, cut.reports, strict=True):
        course = picture_of(window).timeline
        assert sum(row["in"] for row in course.tables["flow"]) == report["totals"]["inflated_pages"]
        begin_s, end_s = course.scalars["begin_s"], course.scalars["end_s"]
        at = [row["start_s"] for row in course.tables["flow"]]
        assert all(begin_s - 1e-6 <= moment <= end_s for moment in at)


def test_exported_rows_are_those_of_the_window(cut: Cut) -> None:
    assert sum(len(window.records) for window in cut.windows) == len(cut.whole.records)
    samples = [sample for sample in cut.whole.every_sample if "t_ns" in sample]
    assert sum(len(window.every_sample) for window in cut.windows) == len(samples)
    window = cut.windows[1]
    fills, leaks = window.calls("fill"), window.calls("leak")
    assert (window.records["start_ns"][fills["record"]] == fills["start_ns"]).all()
    assert (window.records["kind"][fills["record"]] == window.number("kinds", "fill")).all()
    codes, names = window.names("leak")
    comms = window.records["comm"][leaks["record"]]
    assert [names[code].encode() for code in codes] == [comm.split(b"\0")[0] for comm in comms]


def built(tmp_path: Path, recording: Built) -> Trace:
    return read_trace(recording.write(tmp_path / "built.btrace"))


def test_an_episode_that_was_under_way(tmp_path: Path) -> None:
    # 100 chunks by 2.5 s; from then on reclaim takes a chunk and the driver takes it again.
    whole = built(tmp_path, shrinker_like(100))
    report = said(Window(whole, ns(5.05), ns(10.05)))
    (episode,) = report["episodes"]
    assert (episode["begun_by"], episode["ended_by"]) == ("window", "window")
    assert episode["outcome"] == "unfinished"
    assert (episode["start_pages"], episode["end_pages"]) == (25_344, 25_344)
    assert episode["inflated_pages"] == episode["deflated_pages"] == 50 * 256
    # Nothing new was gained: what was regained had been there before the window.
    assert episode["longest_no_progress_s"] == pytest.approx(5.0)
    assert report["reconciliation"]["summary"].startswith("over the whole recording")
    assert [f["id"] for f in report["findings"]] == ["busy-no-op"]


def test_a_call_belongs_where_it_ends_and_its_waits_go_with_it(tmp_path: Path) -> None:
    recording = Built().target(0.5, 512, 0)
    recording.ack(1.1, 0.2, 256, "inflate", "worker").fill(1.0, 1.0, 256)
    recording.ack(2.6, 0.2, 256, "inflate", "worker").fill(2.5, 1.0, 256)
    whole = built(tmp_path, recording.ends(5.0))
    before, after = said(Window(whole, None, ns(1.5))), said(Window(whole, ns(1.5), ns(3.0)))
    assert before["totals"]["inflated_pages"] == 0
    assert before["phases"]["fill"]["host_ack_s"] == 0
    assert after["totals"]["inflated_pages"] == 256
    assert after["phases"]["fill"]["host_ack_s"] == pytest.approx(0.2)
    assert after["phases"]["fill"]["rest_s"] == pytest.approx(0.8)
    # Time is that of the window: half of the first fill and half of the second, less the acks.
    if after["cost"] and after["cost"]["driver_busy_s"] is not None:
        assert after["cost"]["driver_busy_s"] == pytest.approx(0.5 + 0.5 - 0.2)


def test_the_worker_does_not_rest_in_a_call_that_goes_on_after_the_window(tmp_path: Path) -> None:
    recording = Built().target(0.5, 512, 0).fill(1.0, 60.0, 256).fill(61.5, 0.5, 256)
    whole = built(tmp_path, recording.ends(70.0))
    report = said(Window(whole, None, ns(40.0)))
    (span,) = report["episodes"][0]["no_progress"]
    assert span["rest_s"] < 1
    assert report["findings"] == []


def test_what_was_lost_may_have_been_lost_in_any_window(tmp_path: Path) -> None:
    recording = Built().target(0.5, 256, 0).fill(1.0, 0.5, 256).ends(5.0)
    assert recording.trailer
    recording.trailer["counters"] = {"leak": {"written": 0, "lost": 1}}
    recording.trailer["lost_events"] = 1
    report = said(Window(built(tmp_path, recording), ns(3.0), None))
    assert report["totals"]["deflated_pages"] is None
    assert report["causes"] is None
    assert report["lost_events"] == 1


def test_a_gap_that_reaches_out_of_a_window(tmp_path: Path) -> None:
    recording = Built(base=256).target(0.5, 512, 256).fill(1.0, 0.5, 256)
    recording.leak(2.5, 0.2, 512, within="remove leak")
    recording.gone(3.0, vmstat(512, 512)).attached(7.0, vmstat(612, 512))
    recording.target(7.5, 200, 100).fill(8.0, 0.5, 100)
    whole = built(tmp_path, recording.ends(10.0, vmstat(712, 512)))
    report = said(Window(whole, ns(4.0), ns(6.0)))
    assert report["periods"]["size_pages"] == report["periods"]["begin_size_pages"]
    assert report["totals"]["inflated_pages"] == 0
    # How many of the hundred moved in these two seconds nobody knows.
    assert any("0 to 100 in" in note for note in report["notes"]["totals"])
    (gap,) = report["driver"]["gaps"]
    assert (gap["start_s"], gap["end_s"]) == (3.0, 7.0)
    assert said(Window(whole, ns(7.2), None))["driver"]["gaps"] == []


def test_delays_count_from_the_last_reading_before(tmp_path: Path) -> None:
    recording = Built().fill(1.0, 0.5, 256)
    for second, waited in ((1.0, 5), (3.0, 7), (5.0, 12), (7.0, 20)):
        task = {"comm": "cat", "start_ns": 1, "cpu": [waited, waited * 1_000_000_000]}
        recording.samples.append({"t_ns": ns(second), "delays": {"900": task}})
    whole = built(tmp_path, recording.ends(10.0))
    windows = [(None, 4.0), (4.0, 6.0), (6.0, None)]
    gained = []
    for since, until in windows:
        edges = (None if edge is None else ns(edge) for edge in (since, until))
        window = Window(whole, *edges)
        (task,) = said(window)["delays"]["tasks"]
        gained.append(task["cpu_s"])
    assert gained == [2.0, 5.0, 8.0]
    assert said(Window(whole, ns(7.5), None))["delays"] is None


def test_the_reconciliation_is_that_of_the_recording(tmp_path: Path) -> None:
    recording = Built().target(0.5, 256, 0).fill(1.0, 0.5, 256)
    whole = built(tmp_path, recording.ends(5.0, vmstat(300)))
    window = Window(whole, ns(3.0), None)
    result = Reconciliation().run(window).scalars
    assert result["agrees"] is False
    assert said(window)["totals"]["inflated_pages"] is None, "it may be in here that 44 are missing"
