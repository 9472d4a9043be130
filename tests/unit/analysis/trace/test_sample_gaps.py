# SPDX-License-Identifier: Apache-2.0
"""A guest that its host did not run: seen in the samples, and never taken for a suspend."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from balloontrace.analysis.report import Report, build
from balloontrace.analysis.text.report import report_text
from tests.unit.builders import Built

PM = {"within": "", "tid": 70, "comm": b"systemd-sleep"}


def sampled(*pauses: tuple[int, int]) -> Built:
    """A sample each second until 100 s, but for those within the pauses."""
    built = Built()
    for second in range(1, 100):
        if not any(start < second < end for start, end in pauses):
            built.sample(second, {})
    return built


def report_of(built: Built, tmp_path: Path) -> Report:
    return build(built.ends(100).write(tmp_path / "r.btrace"))


def gaps(built: Built, tmp_path: Path) -> dict[str, Any] | None:
    found: dict[str, Any] | None = report_of(built, tmp_path).recording.scalars["sample_gaps"]
    return found


def test_gaps_are_counted_and_the_longest_told(tmp_path: Path) -> None:
    report = report_of(sampled((20, 40), (60, 66)), tmp_path)
    assert report.recording.scalars["sample_gaps"] == {
        "number": 2,
        "total_s": 26,
        "longest_s": 20,
        "longest_at_s": 20,
        "longest_silent": True,
    }
    said = " ".join(report_text(report).split())
    assert "NOT RUN: no sample for 2 times, 26.0 s together, the longest 20.0 s from 20.0 s" in said
    assert "its host did not run the guest" in said


def test_events_meanwhile_show_that_the_guest_was_run(tmp_path: Path) -> None:
    built = sampled((20, 40)).target(30, 100, 0).fill(30, 0.1, 100)
    report = report_of(built, tmp_path)
    assert report.recording.scalars["sample_gaps"]["longest_silent"] is False
    assert "though there were events" in " ".join(report_text(report).split())


@pytest.mark.parametrize(
    ("stolen_s", "share", "said"),
    [(50, 0.25, True), (8, 0.04, False), (0, 0, False), (None, None, False), (999, None, False)],
)
def test_a_host_that_runs_something_else(
    tmp_path: Path, stolen_s: int | None, share: float | None, said: bool
) -> None:
    built = sampled().ends(100)
    assert built.trailer is not None
    built.trailer["stolen_ns"] = stolen_s and stolen_s * 10**9
    report = build(built.write(tmp_path / "r.btrace"))
    assert report.recording.scalars["stolen_share"] == share  # of 100 s of two CPUs
    assert ("STOLEN: the host ran something else for 25.0 %" in report_text(report)) is said


@pytest.mark.parametrize("pauses", [(), ((20, 24),)])
def test_what_a_busy_guest_does_is_none(
    tmp_path: Path, pauses: tuple[tuple[int, int], ...]
) -> None:
    report = report_of(sampled(*pauses), tmp_path)
    assert report.recording.scalars["sample_gaps"]["number"] == 0
    assert "NOT RUN" not in report_text(report)


def test_samples_far_apart_are_no_gaps(tmp_path: Path) -> None:
    built = Built()
    for second in (4, 15, 26, 60):
        built.sample(second, {})
    assert gaps(built, tmp_path) == {
        "number": 0,
        "total_s": 0,
        **dict.fromkeys(("longest_s", "longest_at_s", "longest_silent")),
    }


def test_a_suspend_is_none(tmp_path: Path) -> None:
    built = sampled((20, 40))
    built.call("freeze", 21, 0.5, 0, 0, **PM).call("restore", 39, 0.5, 0, 0, **PM)
    found = gaps(built, tmp_path)
    assert found is not None
    assert found["number"] == 0


def test_a_suspend_that_was_not_seen_leaves_it_open(tmp_path: Path) -> None:
    built = sampled((20, 40))
    assert built.trailer is not None
    built.trailer["suspended_ns"] = 10**9
    assert gaps(built, tmp_path) is None
