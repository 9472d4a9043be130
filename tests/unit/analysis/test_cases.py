# SPDX-License-Identifier: Apache-2.0
"""Guests of public reports, rebuilt from the figures given there: what text, page and JSON say."""

from __future__ import annotations

import json
import re
from html import unescape
from pathlib import Path
from typing import Any

import pytest

from balloontrace.analysis.html.report import report_html
from balloontrace.analysis.json import report_json
from balloontrace.analysis.text.report import first_screen
from balloontrace.analysis.timeline.picture import picture
from tests.unit.analysis.findings.test_findings import flapping, oscillating
from tests.unit.analysis.questions.test_free_pages import reports
from tests.unit.builders import Built

CASES: dict[str, tuple[Built, str, list[str]]] = {
    # LKML, 31 August 2023, fixed by 07622bd41563
    "endless-64k": (
        oscillating(6000),
        "oscillation",
        ["reached, left", "5,999 times, 16 pages each", "no multiple of the guest's page",
         "07622bd41563"],
    ),
    # arcbox #390, #469, #504
    "target-flapping": (
        flapping(30),
        "target-flapping",
        ["30 times, 29.3 GiB in all", "kept it for 3.0 s"],
    ),
    # kubevirt #14516
    "report-unanswered": (
        reports((2, None, 8192)).ends(121),
        "reporting-stuck",
        ["a report of 8,192 pages had not returned at the end", "open for 119.0 s", "2ccd42b959aa"],
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_every_output_says_it(case: str, tmp_path: Path) -> None:
    built, found, said = CASES[case]
    drawn = picture(built.write(tmp_path / "r.btrace"))
    text = " ".join(first_screen(drawn.report).split())
    page = " ".join(unescape(re.sub(r"<[^>]*>", " ", report_html(drawn))).split())
    content = json.loads(report_json(drawn.report))
    assert [row["id"] for row in content["findings"]] == [found]
    title = content["findings"][0]["title"]
    for words in (title, *said):
        assert words in text, words
        assert words in page, words


def content_of(case: str, tmp_path: Path) -> dict[str, Any]:
    drawn = picture(CASES[case][0].write(tmp_path / "r.btrace"))
    content: dict[str, Any] = json.loads(report_json(drawn.report))
    return content


def test_endless_64k_in_numbers(tmp_path: Path) -> None:
    content = content_of("endless-64k", tmp_path)
    row, after = content["episodes"]
    assert (row["outcome"], row["left"], after["kind"], after["outcome"]) == (
        *("reached", 6000, "after"),
        "reached",  # it ends as a fill has
    )
    assert after["inflated_pages"] == after["deflated_pages"] == 96_000
    assert content["totals"]["churn_ratio"] > 0.99
    assert content["findings"][0]["evidence"]["pages_each"] == pytest.approx(16, rel=1e-3)


def test_target_flapping_in_numbers(tmp_path: Path) -> None:
    totals = content_of("target-flapping", tmp_path)["totals"]
    assert (totals["churn_ratio"], totals["round_trip_ratio"]) == (0, 1)


def test_report_unanswered_in_numbers(tmp_path: Path) -> None:
    content = content_of("report-unanswered", tmp_path)
    assert content["free_pages"]["reporting"]["open_s"] == 119
    (row,) = [row for row in content["latencies"] if row["call"] == "report"]
    assert (row["open"], row["open_longest_s"]) == (1, 119)
