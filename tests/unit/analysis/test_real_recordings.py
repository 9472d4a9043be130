# SPDX-License-Identifier: Apache-2.0
"""Recordings of real guests (Linux 6.1.0-56-cloud-amd64): what the reports say must stay true.

The totals were checked against /proc/vmstat and QMP when they were recorded.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from balloontrace.analysis.json import report_json
from balloontrace.analysis.report import build

DATA = Path(__file__).parents[2] / "data"


def report(name: str) -> dict[str, Any]:
    """The JSON report of one fixture."""
    found: dict[str, Any] = json.loads(report_json(build(str(DATA / f"{name}.btrace"))))
    return found


@pytest.mark.parametrize(
    ("name", "inflated", "deflated", "causes", "behaviour"),
    [
        (
            "6.1-stock-idle",
            131_072,
            131_072,
            {("host", "size worker"): 131_072},
            "oom-notifier",
        ),
        (
            "6.1-stock-oom",
            153_600,
            17_664,
            {("oom", "python3"): 16_128, ("oom", "the recorder itself"): 1_536},
            "oom-notifier",
        ),
        (
            "6.1-shrinker-reclaim",
            128_000,
            68_864,
            {("shrinker", "kswapd"): 68_864},
            "shrinker",
        ),
    ],
)
def test_report_of(
    name: str,
    inflated: int,
    deflated: int,
    causes: dict[tuple[str, str], int],
    behaviour: str,
) -> None:
    found = report(name)
    assert found["complete"] is True
    assert found["lost_events"] == 0
    assert found["totals"]["inflated_pages"] == inflated
    assert found["totals"]["deflated_pages"] == deflated
    assert found["reconciliation"]["agrees"] is True
    assert found["reconciliation"]["exact"] is True
    assert {(c["cause"], c["actor"]): c["pages"] for c in found["causes"]} == causes
    assert found["guest"]["driver_behaviour"] == behaviour
    assert found["episodes"][0]["outcome"] == "reached"
    assert found["episodes"][0]["amplification"] == 1.0


def test_an_arm64_guest_is_as_exact_as_any_other() -> None:
    # The balloon went to 25,863, 10,240, 150,000 and 0 pages; QMP and /proc/vmstat said the same.
    found = report("6.1-arm64")
    assert found["guest"]["machine"] == "aarch64"
    moved = found["totals"]["inflated_pages"], found["totals"]["deflated_pages"]
    assert moved == (25_863 + 150_000 - 10_240, 165_623)
    assert (found["reconciliation"]["agrees"], found["reconciliation"]["exact"]) == (True, True)
    assert [row["target_pages"] for row in found["episodes"]] == [25_863, 10_240, 150_000, 0]
    assert {row["outcome"] for row in found["episodes"]} == {"reached"}
    lesser = {row["seam"]: row["loses"] for row in found["seams"] if row["loses"]}
    assert lesser == {}


def test_what_moved_while_the_driver_was_away() -> None:
    # Unbound and bound again, then unloaded and loaded: 5,000 pages went in before it was traced.
    found = report("6.1-driver-reloaded")
    reconciliation = found["reconciliation"]
    assert (reconciliation["agrees"], reconciliation["exact"]) == (True, True)
    assert (reconciliation["untraced_inflate"], reconciliation["untraced_deflate"]) == (
        [5000, 5000],
        [0, 0],
    )
    assert (found["totals"]["inflated_pages"], found["totals"]["deflated_pages"]) == (
        238_520,
        240_520,
    )
    calls = [(call["call"], call["by"], call["pages"]) for call in found["driver"]["calls"]]
    assert calls == [("remove", "bash", 117_504), ("bind", "bash", None), ("remove", "rmmod", 5000)]
    (gap,) = found["driver"]["gaps"]
    assert (gap["state"], gap["open"], gap["changed"]) == ("gone", False, [])
    assert [
        (row["start_pages"], row["end_pages"], row["outcome"], row["begun_by"])
        for row in found["episodes"]
        if row["kind"] == "target"
    ][4:] == [
        (0, 30_720, "superseded", "driver"),
        (30_720, 5000, "reached", "target"),
        (5000, 0, "reached", "target"),
        (0, 3000, "reached", "target"),
    ]


@pytest.mark.parametrize("name", ["6.1-stock-idle", "6.1-stock-oom", "6.1-shrinker-reclaim"])
def test_what_an_older_recorder_did_not_trace_is_not_zero(name: str) -> None:
    found = report(name)
    assert found["free_pages"] is None
    assert found["driver"] is None
    assert found["not_recorded"]["driver"] == ["bind", "remove", "freeze", "restore"]
    # The driver with the shrinker has no OOM notifier either.
    assert found["oom"] is None or found["oom"]["killed"] is None
    assert any("oom_kill" in said for said in (found["not_recorded"] | found["notes"])["oom"])
    fill = found["phases"]["fill"]
    for key in ("sleeps", "sleep_s", "reclaims", "reclaim_s", "compact_s", "kswapd_wakes"):
        assert fill[key] is None
    assert fill["rest_s"] == pytest.approx(fill["total_s"] - fill["host_ack_s"])
