# SPDX-License-Identifier: Apache-2.0
"""The timeline: its sums are the totals, its curve is the balloon's size, and it stays small."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from balloontrace.analysis.base import Result
from balloontrace.analysis.report import report_of
from balloontrace.analysis.timeline.data import timeline
from balloontrace.analysis.trace.balloon_size import size_curve
from balloontrace.analysis.trace.trace import Trace, read_trace
from balloontrace.events import UNKNOWN_PAGES
from tests.unit.builders import Built, shrinker_like, stock_like

DATA = Path(__file__).parents[3] / "data"
RECORDINGS = sorted(path.name for path in DATA.glob("*.btrace"))


def course_of(trace: Trace, bins: int = 1200, span_s: float = 0.0) -> Result:
    return timeline(trace, report_of(trace).results, bins, span_s)


def course(built: Built, tmp_path: Path, bins: int = 1200) -> Result:
    return course_of(read_trace(built.write(tmp_path / "r.btrace")), bins)


@pytest.mark.parametrize("bins", [7, 1200])
@pytest.mark.parametrize("name", RECORDINGS)
def test_sums_over_the_intervals_are_the_totals_to_the_page(name: str, bins: int) -> None:
    trace = read_trace(str(DATA / name))
    results = report_of(trace).results
    found = timeline(trace, results, bins)
    flow = found.tables["flow"]
    assert sum(row["in"] for row in flow) == results["totals"].scalars["inflated_pages"]
    for cause in {row["cause"] for row in results["causes"].tables["causes"] if row["pages"]}:
        pages = [r["pages"] for r in results["causes"].tables["causes"] if r["cause"] == cause]
        assert sum(row[cause] for row in flow) == sum(pages)
    marks = dict.fromkeys(("sleep", "oom_notify", "oom_kill"), 0)
    for row in found.tables["marks"]:
        marks[row["kind"]] += row["count"]
    assert marks["oom_notify"] == (results["oom"].scalars.get("notifier_calls") or 0)
    assert marks["oom_kill"] == (results["oom"].scalars.get("killed") or 0)
    assert marks["sleep"] == (results["phases"].scalars["fill"]["sleeps"] or 0)


@pytest.mark.parametrize("bins", [7, 1200])
@pytest.mark.parametrize("name", RECORDINGS)
def test_the_size_is_that_of_the_curve(name: str, bins: int) -> None:
    trace = read_trace(str(DATA / name))
    curve = size_curve(trace)
    assert curve is not None
    rows = course_of(trace, bins).tables["size"]
    assert len(rows) <= 4 * bins + 1
    pages = [row["pages"] for row in rows]
    whole = [curve.base, *curve.size.tolist()]
    assert (pages[0], pages[-1]) == (whole[0], whole[-1])
    assert (min(pages), max(pages)) == (min(whole), max(whole))
    times = [row["at_s"] for row in rows]
    assert times == sorted(times)
    assert times[-1] == trace.seconds(trace.end_ns)


def test_a_bin_keeps_the_peaks_within_it(tmp_path: Path) -> None:
    built = Built(base=1000)
    for i in range(100):  # up and down within each second, back where it was at its end
        built.fill(i + 0.1, 0.1, 200 + i).leak(i + 0.4, 0.1, 500 + i).fill(i + 0.7, 0.1, 300)
    rows = course(built.ends(100), tmp_path, bins=20).tables["size"]
    assert len(rows) <= 81
    pages = [row["pages"] for row in rows]
    assert max(pages) == 1000 + 200 + 99
    assert min(pages) == 1000 - 300
    assert pages[-1] == 1000


def test_intervals_are_round_and_their_pages_stand_where_calls_ended(tmp_path: Path) -> None:
    built = Built(base=900).fill(1.9, 0.2, 100).leak(2.5, 0.1, 40).leak(2.7, 0.1, 3, within="oom")
    found = course(built.ends(30), tmp_path, bins=20)
    assert (found.scalars["bin_s"], found.scalars["bins"]) == (2.0, 15)
    assert found.scalars["causes"] == ["oom", "host"]
    assert found.tables["flow"] == [{"start_s": 2.0, "in": 100, "oom": 3, "host": 40}]


def test_two_recordings_can_be_cut_alike(tmp_path: Path) -> None:
    trace = read_trace(Built().fill(1, 1, 256).ends(10).write(tmp_path / "r.btrace"))
    assert course_of(trace, 100).scalars["bin_s"] == 0.1
    longer = course_of(trace, 100, span_s=101.0)
    assert (longer.scalars["bin_s"], longer.scalars["bins"]) == (2.0, 5)


def test_pressure_is_the_share_of_the_time_between_samples(tmp_path: Path) -> None:
    built = Built()
    totals = [(0, 0, 0), (1, 250_000, 100_000), (3, 1_250_000, 100_000), (4, 2_300_000, 90_000)]
    for at, some, full in totals:
        built.sample(at, {})
        built.samples[-1]["psi"] = {"memory": {"some_us": some, "full_us": full}}
        built.samples[-1]["meminfo"] = {"MemFree": 5 << 20, "MemAvailable": 7 << 20}
    found = course(built.ends(5), tmp_path)
    assert found.tables["psi"] == [
        {"start_s": 0.0, "end_s": 1.0, "some": 25.0, "full": 10.0},
        {"start_s": 1.0, "end_s": 3.0, "some": 50.0, "full": 0.0},
        # More than the time there was is a late reading; a total that fell is none at all.
        {"start_s": 3.0, "end_s": 4.0, "some": 100.0, "full": None},
    ]
    assert found.tables["memory"][-1] == {
        "at_s": 4.0,
        "free_bytes": 5 << 20,
        "available_bytes": 7 << 20,
    }


def test_sleeps_of_reclaim_are_not_the_drivers(tmp_path: Path) -> None:
    built = Built().target(0, 512, 0).call("reclaim", 1, 1.0, 0, 0).fill(0, 5, 256)
    for at in (1.2, 2.5, 2.7, 3.4):
        built.call("sleep", at, 0.2, 0, 0)
    rows = course(built.ends(10), tmp_path, bins=10).tables["marks"]
    assert [(row["at_s"], row["count"]) for row in rows] == [(2.5, 2), (3.4, 1)]


def test_marks_name_a_single_victim(tmp_path: Path) -> None:
    built = Built(base=256)
    built.call("oom_notify", 1.0, 0.1, 0, 256, comm=b"hog", tid=9)
    built.call("oom_kill", 1.5, 0.0, 0, 31, comm=b"</script>", tid=9)
    built.call("oom_kill", 7.5, 0.0, 0, 32, comm=b"a", tid=9)
    built.call("oom_kill", 7.6, 0.0, 0, 33, comm=b"b", tid=9)
    rows = course(built.ends(10), tmp_path, bins=10).tables["marks"]
    found = [(row["kind"], row["at_s"], row["count"], row["pages"], row["who"]) for row in rows]
    assert found == [
        ("oom_notify", 1.0, 1, 256, None),
        ("oom_kill", 1.5, 1, None, "</script>"),
        ("oom_kill", 7.5, 2, None, None),
    ]


def test_what_was_not_recorded_is_said(tmp_path: Path) -> None:
    built = stock_like(chunks=3)
    for kind in ("leak", "sleep"):
        built.header["seams"][kind] = {"rung": None, "loses": "", "not": ["no BTF"]}
    found = course(built, tmp_path)
    assert found.scalars["size_exact"] is None
    assert found.tables["size"] == []
    assert {k: v for k, v in found.scalars["not_recorded"].items() if "BTF" in v} == {
        "size": "leak (no BTF)",
        "flow": "leak (no BTF)",
        "sleep": "sleep (no BTF)",
    }
    assert "psi" in found.scalars["not_recorded"]


def test_a_target_that_could_not_be_seen_is_a_gap(tmp_path: Path) -> None:
    built = Built().target(1, 256, 0).target(2, UNKNOWN_PAGES, 0).target(4, 512, 0).ends(5)
    rows = course(built, tmp_path).tables["target"]
    assert [(row["at_s"], row["pages"]) for row in rows] == [
        (1.0, 256),
        (2.0, None),
        (4.0, 512),
        (5.0, 512),
    ]


def test_losses_are_said(tmp_path: Path) -> None:
    built = shrinker_like(rounds=3)
    assert built.trailer is not None
    built.trailer["lost_events"] = 3
    assert course(built, tmp_path).notes[0].startswith("3 events were lost")
    built.trailer = None
    assert course(built, tmp_path).notes[0].startswith("no end was recorded")


def test_few_of_many_spans_are_kept_and_the_rest_counted(tmp_path: Path) -> None:
    built = Built()
    for i in range(700):
        built.target(2 * i, 256 * (i + 2), 256 * i).fill(2 * i + 1.4, 0.1, 256)
    found = course(built.ends(1400), tmp_path)
    assert len(found.intervals["no_progress"]) == 500
    assert "the 200 shortest spans of no-progress are not in the picture" in found.notes
    assert len(found.tables["target"]) == 701


def test_an_empty_recording_has_a_timeline(tmp_path: Path) -> None:
    found = course(Built().ends(0), tmp_path)
    assert found.scalars["bins"] == 1
    assert found.tables["flow"] == []
    assert [row["pages"] for row in found.tables["size"]] == [0, 0]


def test_the_size_of_a_timeline_does_not_grow_with_the_recording(tmp_path: Path) -> None:
    built = Built()
    rng = np.random.default_rng(1)
    at = 0.0
    for pages in rng.integers(1, 257, 30_000).tolist():
        built.fill(at, 0.001, pages).leak(at + 0.002, 0.001, pages)
        at += 0.005
    found = course(built.ends(at), tmp_path)
    assert len(found.tables["size"]) <= 4801
    assert len(found.tables["flow"]) <= 1200
    assert sum(row["in"] for row in found.tables["flow"]) == built.moved["fill"]
