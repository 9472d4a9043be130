# SPDX-License-Identifier: Apache-2.0
"""What was undone: within episodes and between them, and over the whole (metrics.md)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from balloontrace.analysis.report import build
from balloontrace.analysis.text.report import report_text
from tests.unit.analysis.questions.test_counters import FLAPPING, counted
from tests.unit.builders import KSWAPD_TID, Built, shrinker_like, stock_like


def totals(built: Built, tmp_path: Path) -> dict[str, Any]:
    return build(built.write(tmp_path / "r.btrace")).results["totals"].scalars


def test_a_healthy_inflate_and_deflate_has_no_churn_and_comes_back(tmp_path: Path) -> None:
    facts = totals(stock_like(), tmp_path)
    assert (facts["churn_ratio"], facts["round_trip_ratio"]) == (0, 1)


def test_a_busy_no_op_is_churn(tmp_path: Path) -> None:
    # 500 chunks in, 400 of them out again under the same target.
    facts = totals(shrinker_like(), tmp_path)
    assert facts["churn_ratio"] == facts["round_trip_ratio"] == pytest.approx(800 / 900)


def test_what_is_undone_after_the_target_was_reached_is_churn(tmp_path: Path) -> None:
    built = Built().target(1, 1000, 0).fill(1, 1, 1000)
    built.leak(5, 0.1, 500, within="scan", tid=KSWAPD_TID, comm=b"kswapd0").fill(6, 0.1, 500)
    built.target(8, 0, 1000).leak(8, 0.1, 1000)
    facts = totals(built.ends(9), tmp_path)
    # 1,000 each way as asked, 500 each way under a target that had been reached.
    assert facts["churn_ratio"] == pytest.approx(1000 / 3000)
    assert facts["round_trip_ratio"] == 1


def test_what_the_driver_gives_back_as_it_leaves_is_none(tmp_path: Path) -> None:
    built = Built().target(1, 1000, 0).fill(1, 1, 1000)
    built.call("freeze", 4, 1, 0, 0, tid=70, within="")
    built.leak(4.1, 0.5, 1000, within="freeze leak", tid=70)
    built.call("restore", 6, 0.1, 0, 0, tid=70, within="").fill(6.5, 1, 1000)
    assert totals(built.ends(9), tmp_path)["churn_ratio"] == 0


def test_not_known_if_a_change_of_the_target_may_be_missing(tmp_path: Path) -> None:
    built = stock_like()
    assert built.trailer is not None
    built.trailer["counters"] = {"target": {"lost": 1}}
    facts = totals(built, tmp_path)
    assert (facts["churn_ratio"], facts["round_trip_ratio"]) == (None, 1)


def test_text_says_both(tmp_path: Path) -> None:
    report = build(stock_like().write(tmp_path / "r.btrace"))
    row = next(line for line in report_text(report, verbose=True).splitlines() if "pages  " in line)
    assert row.split()[-2:] == ["0.000", "1.000"]


def test_by_counters_only_the_round_trip_is_known(tmp_path: Path) -> None:
    facts = totals(counted(FLAPPING), tmp_path)
    assert facts["churn_ratio"] is None
    assert facts["round_trip_ratio"] == pytest.approx(1 - 256 / (7680 + 7424))
