# SPDX-License-Identifier: Apache-2.0
"""Reports of `record --counters`: what counters prove, how surely, and what they leave open."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from balloontrace.analysis.json import report_json
from balloontrace.analysis.report import build, report_of
from balloontrace.analysis.text.report import first_screen, report_text
from balloontrace.analysis.timeline.data import timeline
from balloontrace.analysis.trace.counters import Moved, back_and_forth
from balloontrace.analysis.trace.trace import read_trace
from balloontrace.analysis.trace.window import Window
from balloontrace.tracers.load.description import UNTRACED
from tests.unit.builders import KINDS, Built, ns, vmstat

TENTH_NS = 100_000_000
CHUNK = 256

Readings = list[tuple[int, int]]
"""Pages in and out since the first, a tenth of a second apart."""

NO_OP: Readings = [(min(i, 20) * CHUNK + i * CHUNK, i * CHUNK) for i in range(60)]
"""Gains 20 chunks in 2 s, and loses as much as it takes for 4 s more."""

INFLATION: Readings = [(i * CHUNK, 0) for i in range(60)]
FLAPPING: Readings = [
    (sum(n // 10 % 2 == 0 for n in range(i)) * CHUNK, sum(n // 10 % 2 for n in range(i)) * CHUNK)
    for i in range(60)
]
"""In for a second, out for a second."""


def counted(readings: Readings, symbols: tuple[str, ...] = (), **header: Any) -> Built:
    built = Built(base=1000)
    seam = {"rung": None, "number": 0, "loses": "", "not": [UNTRACED], "feature": ""}
    built.header |= {"counters": {"interval_s": 0.1}, "seams": dict.fromkeys(KINDS, seam), **header}
    built.header["balloon"]["driver"]["symbols"] = list(symbols)
    for place, (inflated, deflated) in enumerate(readings):
        built.sample(place / 10, vmstat(1000 + inflated, deflated))
    last = vmstat(1000 + readings[-1][0], readings[-1][1])
    cpu = {"kswapd_ns": 1_500_000_000, "kworker_ns": 250_000_000}
    built.trailer = {
        "reason": "duration",
        "events": 0,
        "lost_events": 0,
        "samples": len(readings),
        "cpu": cpu,
    }
    return built.ends((len(readings) - 1) / 10, last)


def reported(built: Built, tmp_path: Path) -> tuple[dict[str, Any], str]:
    report = build(built.write(tmp_path / "c.btrace"))
    content: dict[str, Any] = json.loads(report_json(report))
    return content, first_screen(report) + report_text(report, verbose=True)


def moved(readings: Readings) -> Moved:
    pages = np.array(readings, np.int64)
    return Moved(np.arange(len(pages)) * TENTH_NS, pages[:, 0], pages[:, 1])


def test_totals_are_those_of_vmstat(tmp_path: Path) -> None:
    content, said = reported(counted(NO_OP), tmp_path)
    inflated, deflated = NO_OP[-1]
    assert content["totals"]["inflated_pages"] == inflated
    assert content["totals"]["deflated_pages"] == deflated
    assert content["totals"]["net_pages"] == 20 * CHUNK
    assert content["counter_interval_s"] == content["counters"]["interval_s"] == 0.1
    assert content["counters"]["readings"] == 60
    assert content["reconciliation"]["agrees"] is content["reconciliation"]["exact"] is True
    assert content["counters"]["kswapd_cpu_s"] == 1.5
    assert content["counters"]["kcompactd_cpu_s"] is None
    assert f"by /proc/vmstat itself {inflated:,} in, {deflated:,} out" in said


def test_totals_count_pages_of_the_balloon(tmp_path: Path) -> None:
    guest = {**Built().header["guest"], "page_size": 65536}
    content, _ = reported(counted(NO_OP, guest=guest), tmp_path)
    assert content["totals"]["net_pages"] == 16 * 20 * CHUNK
    (stretch,) = content["counters"]["back_and_forth"]
    assert stretch["net_pages"] == 16 * 20 * CHUNK


def test_a_no_op_is_a_stretch_with_its_time_without_progress() -> None:
    (stretch,) = back_and_forth(moved(NO_OP))
    assert (stretch.start_ns, stretch.end_ns) == (0, 59 * TENTH_NS)
    assert stretch.deflated_pages == 59 * CHUNK
    assert stretch.longest_no_progress_ns == 39 * TENTH_NS


@pytest.mark.parametrize("readings", [INFLATION, FLAPPING, [(0, 0)] * 9])
def test_one_way_at_a_time_is_no_stretch(readings: Readings) -> None:
    assert back_and_forth(moved(readings)) == []


def test_stretches_that_are_more_than_a_second_apart_are_two() -> None:
    at_rest = [NO_OP[-1]]
    again = [(NO_OP[-1][0] + i * CHUNK, NO_OP[-1][1] + i * CHUNK) for i in range(5)]
    assert len(back_and_forth(moved(NO_OP + at_rest * 9 + again))) == 1
    assert len(back_and_forth(moved(NO_OP + at_rest * 12 + again))) == 2


@pytest.mark.parametrize(
    ("symbols", "certainty"),
    [
        (("virtio_balloon_shrinker_scan",), "medium"),
        (("virtio_balloon_shrinker_scan", "virtio_balloon_oom_notify"), None),
        ((), "low"),
    ],
)
def test_a_no_op_is_found_as_surely_as_the_driver_is_known(
    symbols: tuple[str, ...], certainty: str | None, tmp_path: Path
) -> None:
    content, _ = reported(counted(NO_OP, symbols), tmp_path)
    found = {finding["id"]: finding["certainty"] for finding in content["findings"]}
    assert found == ({"busy-no-op": certainty} if certainty else {})


def test_without_deflate_on_oom_nobody_but_the_host_takes_pages(tmp_path: Path) -> None:
    built = counted(NO_OP, ("virtio_balloon_shrinker_scan",))
    built.header["balloon"]["features"] = ["stats_vq"]
    assert reported(built, tmp_path)[0]["findings"] == []


@pytest.mark.parametrize("readings", [INFLATION, FLAPPING])
def test_an_honest_balloon_is_no_finding(readings: Readings, tmp_path: Path) -> None:
    content, said = reported(counted(readings), tmp_path)
    assert content["findings"] == []
    assert "busy-no-op" in content["findings_checked"]
    assert "oscillation" in content["findings_unchecked"]
    assert content["verdict"]["is_balloon"] is not True
    assert "nothing was traced" in said
    assert "healthy" not in said


def test_what_was_not_traced_is_not_known(tmp_path: Path) -> None:
    content, said = reported(counted(NO_OP), tmp_path)
    unknown = ("episodes", "periods", "causes", "phases", "latencies", "host_acks", "seams", "oom")
    assert [name for name in unknown if content[name] is not None] == []
    assert all(content["not_recorded"][name] for name in unknown)
    assert "did not" not in said


def test_windows_that_follow_each_other_add_up(tmp_path: Path) -> None:
    path = counted(NO_OP).write(tmp_path / "w.btrace")
    trace = read_trace(path)
    windows = Window(trace, None, ns(2.05)), Window(trace, ns(2.05), None)
    parts = [report_of(window) for window in windows]
    totals = [part.results["totals"].scalars for part in parts]
    assert sum(total["inflated_pages"] for total in totals) == NO_OP[-1][0]
    assert sum(total["deflated_pages"] for total in totals) == NO_OP[-1][1]
    assert totals[1]["net_pages"] == 0


def test_the_picture_has_size_and_flow(tmp_path: Path) -> None:
    trace = read_trace(counted(NO_OP).write(tmp_path / "p.btrace"))
    picture = timeline(trace, report_of(trace).results)
    assert picture.tables["size"][0]["pages"] == 1000
    assert picture.tables["size"][-1]["pages"] == 1000 + 20 * CHUNK
    assert picture.scalars["causes"] == ["unknown"]
    assert sum(row["in"] for row in picture.tables["flow"]) == NO_OP[-1][0]
    assert sum(row["unknown"] for row in picture.tables["flow"]) == NO_OP[-1][1]
    assert picture.scalars["not_recorded"].keys().isdisjoint({"size", "flow"})


def test_a_kernel_without_the_counters_has_no_totals(tmp_path: Path) -> None:
    built = counted(NO_OP)
    for sample in built.samples:
        sample["vmstat"] = {"nr_free_pages": 1}
    built.ends(6, {"nr_free_pages": 1})
    content, said = reported(built, tmp_path)
    assert content["totals"]["inflated_pages"] is content["reconciliation"]["agrees"] is None
    assert content["counters"]["back_and_forth_s"] is None
    assert content["findings_unchecked"]["busy-no-op"] == ["counters.back_and_forth_s"]
    assert "/proc/vmstat has no counters of this balloon" in said


def test_a_recording_that_was_traced_has_no_such_section(tmp_path: Path) -> None:
    report = build(Built().fill(1.0, 0.5, 256).ends(60).write(tmp_path / "t.btrace"))
    assert json.loads(report_json(report))["counters"] is None
    assert "By the guest's counters" not in report_text(report)
