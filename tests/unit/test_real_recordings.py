"""Recordings of real guests (Linux 6.1.0-56-cloud-amd64): what the reports say must stay true.

The totals were checked against /proc/vmstat and QMP when they were recorded.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from balloontrace.analysis.render.json import report_json
from balloontrace.analysis.report import build

DATA = Path(__file__).parents[1] / "data"


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
