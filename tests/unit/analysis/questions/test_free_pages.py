# SPDX-License-Identifier: Apache-2.0
"""Free page reporting and hinting: what they did, what of it has not ended, what is a fault."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from balloontrace.analysis.json import report_json
from balloontrace.analysis.report import Report, build
from balloontrace.analysis.report import report_of as report_of_trace
from balloontrace.analysis.text.report import first_screen, report_text
from balloontrace.analysis.trace.trace import read_trace
from balloontrace.analysis.trace.window import Window
from tests.unit.builders import Built, ns

MEMORY_PAGES = (4 << 30) // 4096
REPORTER = {"within": "", "tid": 30, "comm": b"kworker/0:3"}


def offering(*features: str) -> Built:
    built = Built()
    built.header["balloon"]["features"] += features
    for kind, feature in (("report", "reporting"), ("hint", "free_page_hint")):
        built.header["seams"][kind] = built.header["seams"][kind] | {"feature": feature}
    return built


def reports(*spans: tuple[float, float | None, int]) -> Built:
    """Free page reports: at, took, pages."""
    built = offering("reporting")
    for at, took, pages in spans:
        built.call("report", at, took, pages, 0 if took is None else pages, **REPORTER)
    return built


def report_of(built: Built, tmp_path: Path) -> Report:
    return build(built.write(tmp_path / "r.btrace"))


def found(report: Report) -> dict[str, dict[str, Any]]:
    return {row["id"]: row for row in report.results["findings"].tables["findings"]}


def test_a_report_without_an_answer_is_open(tmp_path: Path) -> None:
    report = report_of(reports((1, 0.002, 512), (2, None, 8192)).ends(121), tmp_path)
    facts = report.results["free_pages"].scalars["reporting"]
    assert (facts["calls"], facts["open"], facts["open_at_s"], facts["open_s"]) == (2, 1, 2, 119)
    assert (facts["pages"], facts["open_pages"]) == (512, 8192)
    finding = found(report)["reporting-stuck"]
    assert (finding["severity"], finding["certainty"]) == ("high", "high")
    assert finding["evidence"]["open_s"] == 119
    said = " ".join(first_screen(report).split())
    assert "a report of 8,192 pages had not returned at the end: begun at 2.0 s, open for" in said
    (row,) = [
        row for row in json.loads(report_json(report))["latencies"] if row["call"] == "report"
    ]
    assert (row["calls"], row["open"], row["open_longest_s"]) == (1, 1, 119)
    assert "report: 1 had not returned" in report_text(report, only=["latencies"])


@pytest.mark.parametrize(
    ("span", "certainty"),
    [((2, 12.0, 512), "medium"), ((2, 9.0, 512), None), ((117, None, 512), None)],
)
def test_late_answers(
    tmp_path: Path, span: tuple[float, float | None, int], certainty: str | None
) -> None:
    finding = found(report_of(reports(span).ends(121), tmp_path)).get("reporting-stuck")
    assert (finding and finding["certainty"]) == certainty


def test_what_reports_took(tmp_path: Path) -> None:
    built = reports((1, 0.002, 512), (3, 0.004, 1024), (5, 0.012, 512))
    facts = report_of(built.ends(18), tmp_path).results["free_pages"].scalars["reporting"]
    assert (facts["median_s"], facts["longest_s"], facts["longest_at_s"]) == (0.004, 0.012, 5)
    assert (facts["pages_per_call"], facts["total_s"]) == (683, pytest.approx(0.018))
    assert facts["share"] == pytest.approx(0.001)


def test_a_report_whose_return_was_missed_is_no_refusal(tmp_path: Path) -> None:
    built = reports((1, 0.001, 512), (3, 0.001, 512))
    built.call("report", 2, 0.0, 512, 0, flags="missed", **REPORTER).ends(10)
    facts = report_of(built, tmp_path).results["free_pages"].scalars["reporting"]
    assert (facts["calls"], facts["refused"], facts["pages_per_call"]) == (3, 0, 512)
    assert facts["total_s"] == 0.002


def test_of_a_report_that_reaches_out_of_a_window_what_is_inside_counts(tmp_path: Path) -> None:
    trace = read_trace(reports((10, 20.0, 512)).ends(60).write(tmp_path / "r.btrace"))
    window = report_of_trace(Window(trace, ns(29), ns(31)))
    facts = window.results["free_pages"].scalars["reporting"]
    assert (facts["total_s"], facts["share"]) == (1.0, 0.5)


def churning(times_a_minute: float, minutes: int = 2) -> Built:
    each = round(times_a_minute * MEMORY_PAGES / 30)
    return reports(*((at * 2, 0.1, each) for at in range(30 * minutes)))


@pytest.mark.parametrize(
    ("times_a_minute", "minutes", "hit"), [(4.01, 2, True), (3.9, 2, False), (4.5, 1, False)]
)
def test_churn_begins_at_its_thresholds(
    tmp_path: Path, times_a_minute: float, minutes: int, hit: bool
) -> None:
    built = churning(times_a_minute, minutes).ends(60 * minutes)
    assert ("reporting-churn" in found(report_of(built, tmp_path))) == hit


def test_churn_with_its_evidence(tmp_path: Path) -> None:
    built = churning(6)
    for second, free in ((5, 1 << 30), (90, 2 << 30)):
        built.sample(second, {})
        built.samples[-1]["meminfo"] = {"MemFree": free, "MemAvailable": free}
    finding = found(report_of(built.ends(120), tmp_path))["reporting-churn"]
    evidence = finding["evidence"]
    assert evidence["times_the_memory"] == pytest.approx(12, rel=1e-3)
    assert evidence["again_pages"] == evidence["pages"] - MEMORY_PAGES
    assert evidence["share"] == pytest.approx(0.05)
    assert "Free memory was between 1,024 and 2,048 MiB." in finding["summary"]


def test_a_guest_without_reporting_has_no_such_fault(tmp_path: Path) -> None:
    built = Built()
    built.header["seams"]["report"] = {"rung": None, "loses": "", "not": [], "feature": "reporting"}
    findings = report_of(built.ends(9), tmp_path).results["findings"]
    assert {"reporting-stuck", "reporting-churn"} <= set(findings.scalars["checked"])


def test_reports_that_could_not_be_traced_are_not_passed_off_as_healthy(tmp_path: Path) -> None:
    built = offering("reporting")
    built.header["seams"]["report"] |= {"rung": None, "not": ["no such function"]}
    findings = report_of(built.ends(9), tmp_path).results["findings"]
    assert "reporting-stuck" in findings.scalars["unchecked"]


def lent(pages: int = 10_240) -> Built:
    return offering("free_page_hint").call("hint", 2, 1.5, 0, pages, **REPORTER)


def runs(built: Built, tmp_path: Path) -> list[dict[str, Any]]:
    return report_of(built, tmp_path).results["free_pages"].tables["hint_runs"]


def test_a_run_of_hinting_from_its_first_block_to_its_last(tmp_path: Path) -> None:
    built = lent()
    built.call("hint", 1, 0.001, 0, 0, **REPORTER)  # a configuration change with nothing to lend
    built.call("scan", 4, 0.001, 1024, 1024, within="", tid=70)
    built.call("hint", 5, 0.01, 0, 9216, flags="returned", **REPORTER)
    (run,) = runs(built.ends(9), tmp_path)
    assert (run["start_s"], run["lending_s"], run["end_s"]) == (2, 1.5, 5.01)
    assert (run["lent_pages"], run["returned_pages"], run["reclaimed_pages"]) == (10240, 9216, 1024)
    assert run["ended"] == "returned"
    said = report_text(report_of(built, tmp_path), only=["free_pages"])
    assert "returned" in said


@pytest.mark.parametrize("ended", ["reclaimed", "driver left", "lent again", "lent", "under way"])
def test_how_a_run_ended(tmp_path: Path, ended: str) -> None:
    built = lent()
    if ended == "reclaimed":
        built.call("scan", 4, 0.001, 10_240, 10_240, within="", tid=70)
    elif ended == "driver left":
        built.call("remove", 4, 0.1, 0, 0, within="", tid=70)
    elif ended == "lent again":
        built.call("hint", 4, 0.1, 0, 512, **REPORTER)
    elif ended == "under way":
        built = offering("free_page_hint").call("hint", 2, None, 0, 0, **REPORTER)
    assert runs(built.ends(9), tmp_path)[0]["ended"] == ended


def test_pages_of_the_balloon_are_none_of_hinting(tmp_path: Path) -> None:
    built = lent()
    built.leak(4, 0.001, 256, within="scan leak", tid=70)
    built.call("scan", 4, 0.002, 256, 256, within="", tid=70)
    (run,) = runs(built.ends(9), tmp_path)
    assert (run["reclaimed_pages"], run["ended"]) == (0, "lent")


def test_what_looking_for_free_blocks_costs(tmp_path: Path) -> None:
    built = Built().call("reporting", 1, 0.5, 0, 1024).call("reporting", 3, 0.25, 0, 0)
    built.call("report", 1.1, 0.2, 1024, 1024)
    built.header["balloon"] |= {"features": ["reporting"], "reporting_order": 9}
    report = build(built.ends(9).write(tmp_path / "r.btrace"))
    reporting = report.results["free_pages"].scalars["reporting"]
    assert (reporting["order"], reporting["worker_runs"]) == (9, 2)
    assert reporting["worker_s"] == pytest.approx(0.75)
    said = (
        "the kernel's worker looked for free blocks 2 times, for blocks of order 9 and up: 750.0 ms"
    )
    assert said in report_text(report, only=["free_pages"])
