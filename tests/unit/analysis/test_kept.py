# SPDX-License-Identifier: Apache-2.0
"""Reports on what `balloontrace watch` kept."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from balloontrace.analysis.report import build
from balloontrace.analysis.text.report import report_text
from tests.unit.builders import Built, ns, shrinker_like, stock_like


def kept(built: Built, *fired: str) -> Built:
    """The same, as a watcher keeps it that saw these fire at 20 s."""
    seen = [{"finding": name, "t_ns": ns(20.0)} for name in fired]
    built.header["watch"] = {"fired": seen, "idle_interval_s": 10.0}
    return built


def text_of(built: Built, tmp_path: Path) -> str:
    """The report, on one line."""
    return " ".join(report_text(build(built.write(tmp_path / "r.btrace"))).split())


def test_what_fired_is_found(tmp_path: Path) -> None:
    text = text_of(kept(shrinker_like(), "busy-no-op"), tmp_path)
    assert "busy-no-op fired at 20.0 s; the findings say more" in text


@pytest.mark.parametrize("name", ["busy-no-op", "oom-kill"])
def test_what_fired_and_is_not_found_is_said(name: str, tmp_path: Path) -> None:
    built = kept(stock_like(), name)
    assert f"{name} fired at 20.0 s; not found again in all of it" in text_of(built, tmp_path)
    facts = build(str(tmp_path / "r.btrace")).recording.scalars
    assert facts["kept_for"] == [{"finding": name, "at_s": 20.0}]


def test_what_was_asked_for_is_no_finding(tmp_path: Path) -> None:
    assert "somebody asked for it at 20.0 s" in text_of(kept(stock_like(), "asked"), tmp_path)


def test_looks_that_were_meant_to_be_rare_are_no_gaps(tmp_path: Path) -> None:
    def with_samples(built: Built) -> Built:
        at = [0.0, 1.0, 2.0, 3.0, 13.0, 23.0, 24.0, 25.0, 26.0]
        for moment in at:
            built.sample(moment, {"balloon_inflate": 0})
        return built.ends(27.0)

    assert "NOT RUN" in text_of(with_samples(Built()), tmp_path)
    assert "NOT RUN" not in text_of(with_samples(kept(Built())), tmp_path)


def episodes(built: Built, tmp_path: Path) -> list[dict[str, Any]]:
    """Of its report."""
    report = build(built.write(tmp_path / "r.btrace"))
    return report.results["episodes"].tables["episodes"]


def test_a_target_that_is_told_again_in_each_segment_is_one(tmp_path: Path) -> None:
    def told(built: Built, *at: float) -> Built:
        for moment in at:
            built.target(moment, 30 * 256, 0)
        for number in range(30):
            built.fill(1.0 + number, 0.5, 256)
        return built.ends(40.0)

    assert len(episodes(told(kept(Built()), 0.9, 10.9, 20.9), tmp_path)) == 1
    (one,) = episodes(told(kept(Built()), 0.9), tmp_path)
    assert one["outcome"] == "reached"


@pytest.mark.parametrize("where", ["begin", "end"])
def test_calls_at_a_boundary_leave_no_exactness_to_claim(where: str, tmp_path: Path) -> None:
    built = kept(stock_like())
    assert build(built.write(tmp_path / "a.btrace")).results["reconciliation"].scalars["exact"]
    assert built.trailer is not None
    if where == "begin":
        built.header["underway"] = {"fill": 1}
    else:
        built.trailer["counters"] = {"fill": {"open": 1}}
    scalars = build(built.write(tmp_path / "b.btrace")).results["reconciliation"].scalars
    assert (scalars["agrees"], scalars["exact"]) == (True, False)
