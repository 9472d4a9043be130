# SPDX-License-Identifier: Apache-2.0
"""Calls of the driver between its freeze and its restore, and calls that are none of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from balloontrace.analysis.report import Report, build
from balloontrace.analysis.text.report import report_text
from tests.unit.builders import Built

PM = {"within": "", "tid": 70, "comm": b"systemd-sleep"}


def suspended(restored: bool = True) -> Built:
    """Frozen from 5 s (its freeze takes 0.5 s and gives 1,000 pages back) until 8 s."""
    built = Built().target(1, 1000, 0).fill(1, 0.1, 1000)
    built.call("freeze", 5, 0.5, 0, 0, **PM)
    built.leak(5.1, 0.2, 1000, **{**PM, "within": "freeze leak"})
    built.ack(5.1, 0.1, 256, "deflate", "freeze leak")
    if restored:
        built.call("restore", 8, 0.1, 0, 0, **PM).fill(8.2, 0.1, 1000)
    return built


def report_of(built: Built, tmp_path: Path) -> Report:
    return build(built.ends(10).write(tmp_path / "r.btrace"))


def found(report: Report) -> dict[str, Any] | None:
    rows = report.results["findings"].tables["findings"]
    return next((row for row in rows if row["id"] == "used-while-frozen"), None)


def test_a_report_while_frozen(tmp_path: Path) -> None:
    built = suspended().call("report", 6, 0.1, 512, 512, within="", tid=30, comm=b"kworker/0:3")
    report = report_of(built, tmp_path)
    finding = found(report)
    assert finding is not None
    evidence = finding["evidence"]
    assert (evidence["start_s"], evidence["end_s"], evidence["restored"]) == (5.5, 8, True)
    assert (evidence["calls"], evidence["kinds"], evidence["first_s"]) == (1, {"report": 1}, 6)
    assert evidence["first_by"] == "kworker/0:3"
    assert "0.500 s later, by task kworker/0:3" in finding["summary"]
    assert "while frozen, from 5.5 to 8.0 s, the driver was called" in report_text(report)


def test_a_call_that_the_freeze_did_not_wait_for(tmp_path: Path) -> None:
    built = suspended().call("report", 4.9, 2, 512, 512, within="", tid=30)
    finding = found(report_of(built, tmp_path))
    assert finding is not None
    assert "begun before, and still under way" in finding["summary"]


def test_a_driver_that_was_never_restored(tmp_path: Path) -> None:
    built = suspended(restored=False).call("migrate", 6, 0.1, 1, 1, within="migrate", tid=71)
    finding = found(report_of(built, tmp_path))
    assert finding is not None
    assert (finding["evidence"]["restored"], finding["evidence"]["kinds"]) == (
        False,
        {"migrate": 1},
    )


@pytest.mark.parametrize(
    "call",
    [
        None,
        ("report", 5.2, 0.1, 512, 512),  # the freeze waited for it
        ("scan", 6, 0.1, 128, 0),  # found nothing to free
        ("count", 6, 0.1, 0, 256),  # reads a number
        ("sleep", 6, 0.2, 0, 0),
        ("leak", 6, 0.1, 256, 0),  # found no page
    ],
)
def test_what_uses_no_virtqueue_then(
    tmp_path: Path, call: tuple[str, float, float, int, int] | None
) -> None:
    built = suspended()
    if call:
        built.call(*call, within="", tid=30)
    report = report_of(built, tmp_path)
    assert found(report) is None
    assert "used-while-frozen" in report.results["findings"].scalars["checked"]


def test_without_the_restores_nothing_is_claimed(tmp_path: Path) -> None:
    built = suspended(restored=False).fill(8.2, 0.1, 1000)
    assert built.trailer is not None
    built.trailer["counters"] = {"restore": {"lost": 1}}
    report = report_of(built, tmp_path)
    assert found(report) is None
    assert "used-while-frozen" in report.results["findings"].scalars["unchecked"]
