# SPDX-License-Identifier: Apache-2.0
"""What happens under a target that was reached is not lost, and found if it is a fault."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from balloontrace.analysis.report import Report, build
from balloontrace.analysis.text.report import report_text
from tests.unit.builders import KSWAPD_TID, Built, vmstat

TARGET = 25_600


def report_of(built: Built, tmp_path: Path) -> Report:
    return build(built.write(tmp_path / "r.btrace"))


def after(report: Report) -> list[dict[str, Any]]:
    return report.results["periods"].tables["after"]


def finding(report: Report, name: str) -> dict[str, Any]:
    rows = report.results["findings"].tables["findings"]
    return next(row for row in rows if row["id"] == name)


def reached() -> Built:
    """A balloon of 100 MiB that reached its target at 2 s."""
    return Built().target(1, TARGET, 0).fill(1, 1, TARGET)


def test_pages_that_go_and_come_under_a_target_that_was_reached(tmp_path: Path) -> None:
    built = reached()
    for second in range(10, 60):
        built.leak(second, 0.1, 5120, within="scan", tid=KSWAPD_TID, comm=b"kswapd0")
        built.fill(second + 0.5, 0.1, 5120)
    report = report_of(built.ends(63), tmp_path)
    (row,) = after(report)
    assert (row["target_pages"], row["reached_s"], row["end_s"]) == (TARGET, 2.0, 63.0)
    assert (row["inflated_pages"], row["deflated_pages"]) == (256_000, 256_000)
    assert (row["reclaimed_pages"], row["left"]) == (256_000, 50)
    assert (row["least_pages"], row["most_pages"], row["end_pages"]) == (20_480, TARGET, TARGET)
    found = finding(report, "busy-no-op")
    assert found["evidence"]["times_the_target"] == 10.0
    assert "10.0 times the target" in found["summary"]
    said = report_text(report)
    assert "at the end: 25,600 pages (100 MiB) in the balloon, target 25,600 pages" in said
    assert max(map(len, said.splitlines())) < 100


def test_a_target_that_could_not_be_held(tmp_path: Path) -> None:
    built = reached().leak(3, 0.1, 10_240, within="oom", tid=70)
    for number in range(300):
        built.call("sleep", 3.2 + number * 0.2, 0.2, 0, 0, within="worker")
    report = report_of(built.ends(64), tmp_path)
    (row,) = after(report)
    assert (row["sleeps"], row["sleep_s"], row["end_pages"]) == (300, 60.0, 15_360)
    found = finding(report, "out-of-puff")
    assert found["evidence"]["short_pages"] == 10_240
    assert report.results["periods"].scalars == {
        "size_pages": 15_360,
        "target_pages": TARGET,
        "targets_whole": True,
    }


def test_a_size_that_the_balloon_never_had_is_none(tmp_path: Path) -> None:
    # A target between two pages of 64 KiB; then the OOM notifier gives some back.
    built = Built().target(1, 1001, 0).fill(1, 1, 1008).leak(3, 0.1, 256, within="oom", tid=70)
    built.header["guest"]["page_size"] = 65_536
    (row,) = after(report_of(built.ends(6, vmstat(63, 16)), tmp_path))
    assert (row["target_pages"], row["least_pages"], row["most_pages"]) == (1001, 752, 1008)


def test_what_comes_after_a_target_that_asks_for_nothing(tmp_path: Path) -> None:
    built = reached().target(5, TARGET, TARGET).leak(6, 0.1, 100, within="oom", tid=70)
    built.target(8, 0, TARGET - 100).leak(8, 0.5, TARGET - 100)
    report = report_of(built.ends(9), tmp_path)
    (row,) = after(report)
    assert (row["reached_s"], row["end_s"], row["deflated_pages"]) == (5.0, 8.0, 100)
    assert report.results["periods"].scalars == {
        "size_pages": 0,
        "target_pages": 0,
        "targets_whole": True,
    }


def test_a_balloon_at_rest_has_nothing_to_tell(tmp_path: Path) -> None:
    report = report_of(reached().ends(9), tmp_path)
    assert after(report) == []
    assert report.results["findings"].tables["findings"] == []


def test_without_any_target_there_is_a_size(tmp_path: Path) -> None:
    report = report_of(Built(base=500).ends(9), tmp_path)
    assert report.results["periods"].scalars == {
        "size_pages": 500,
        "target_pages": None,
        "targets_whole": True,
    }
    assert "500 pages (2 MiB) in the balloon, target not seen" in report_text(report)
