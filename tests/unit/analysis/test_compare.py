# SPDX-License-Identifier: Apache-2.0
"""Comparisons of several runs, against answers known by hand."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from balloontrace.analysis.compare import compare
from balloontrace.analysis.json import compare_json
from balloontrace.analysis.report import Report, build
from balloontrace.analysis.text.compare import compare_text
from balloontrace.cli.app import app
from balloontrace.errors import EXIT_USAGE, UserError
from tests.unit.builders import KSWAPD_TID, Built, shrinker_like, stock_like, vmstat


def a_run(seconds: float, reached: bool = True) -> Built:
    """One inflation by 256 pages in so many seconds, or one that is at half of it by then."""
    pages = 256 if reached else 128
    built = Built().target(1, 256, 0).fill(1, seconds, pages)
    return built.ends(1 + seconds)


def runs(tmp_path: Path, name: str, *built: Built) -> list[Report]:
    return [build(one.write(tmp_path / f"{name}{n}.btrace")) for n, one in enumerate(built)]


def content_of(before: list[Report], after: list[Report]) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(compare_json(compare(before, after)))
    content["rows"] = {row["name"]: row for row in content["rows"]}
    return content


def test_medians_intervals_and_ratio_of_several_runs(tmp_path: Path) -> None:
    before = runs(tmp_path, "b", *(a_run(s) for s in (60, 90, 70, 80, 65, 75, 85)))
    after = runs(tmp_path, "a", *(a_run(s) for s in (10, 16, 12, 15, 13, 14, 11, 12.5)))
    comparison = compare(before, after)
    content = content_of(before, after)
    row = content["rows"]["inflation_duration_s"]
    assert (row["before"], row["after"]) == (75, 12.75)
    assert row["ratio"] == 75 / 12.75
    assert [value["value"] for value in row["before_values"]] == [60, 90, 70, 80, 65, 75, 85]
    assert row["before_interval"] == {"low": 60, "high": 90, "confidence": 1 - 1 / 64}
    assert row["after_interval"] == {"low": 10, "high": 16, "confidence": 1 - 1 / 128}
    assert row["ratio_interval"]["low"] == 60 / 16
    assert row["ratio_interval"]["high"] == 9
    assert row["ratio_interval"]["confidence"] >= 0.95
    assert content["rows"]["outcome"]["before"] == "reached"
    assert (len(content["before"]["runs"]), len(content["after"]["runs"])) == (7, 8)
    assert content["before"]["path"] is None
    assert content["before"]["runs"][1]["path"].endswith("b1.btrace")
    text = compare_text(comparison)
    lines = [" ".join(line.split()) for line in text.splitlines()]
    assert "median of 7 median of 8 ratio verdict" in lines
    assert "inflation duration 75.0 s 12.8 s 5.9x differs" in lines
    assert "churn ratio 0.000 0.000 -" in lines
    again = {row["name"]: row for row in compare(before, before).tables["rows"]}
    assert again["inflation_duration_s"]["verdict"] == "within noise"
    assert "60.0 s to 90.0 s 10.0 s to 16.0 s 3.8x to 9.0x" in lines
    assert "too few" not in text
    assert max(map(len, text.splitlines())) < 100


def test_too_few_runs_have_medians_and_say_what_it_takes(tmp_path: Path) -> None:
    before = runs(tmp_path, "b", *(a_run(s) for s in (60, 90, 70, 80, 65, 75)))
    after = runs(tmp_path, "a", a_run(10))
    row = content_of(before, after)["rows"]["inflation_duration_s"]
    assert (row["before"], row["after"], row["ratio"]) == (72.5, 10, 7.25)
    assert row["before_interval"]["high"] == 90
    assert (row["after_interval"], row["ratio_interval"]) == (None, None)
    text = " ".join(compare_text(compare(before, after)).split())
    assert "that of a median takes 6 runs, that of a ratio 7 on each side" in text
    assert "median of 6 one run" in text
    alone = compare_text(compare(before[:2], after))
    assert "order statistics" not in alone


def test_runs_that_did_not_reach_their_target(tmp_path: Path) -> None:
    before = runs(
        tmp_path,
        "b",
        *(a_run(s) for s in (60, 61, 62, 63)),
        *(a_run(s, reached=False) for s in (90, 91, 92)),
    )
    after = runs(tmp_path, "a", *(a_run(s) for s in (10, 11, 12, 13, 14, 15, 16)))
    comparison = compare(before, after)
    row = content_of(before, after)["rows"]["inflation_duration_s"]
    # Whatever the last three would have taken, the fourth is the median.
    assert (row["before"], row["before_at_least"]) == (63, False)
    assert row["before_values"][6] == {"value": 92, "at_least": True, "unbounded": False}
    assert (row["before_interval"]["low"], row["before_interval"]["high"]) == (60, None)
    assert (row["ratio_interval"]["low"], row["ratio_interval"]["high"]) == (60 / 16, None)
    assert content_of(before, after)["rows"]["outcome"]["before"] is None
    lines = [" ".join(line.split()) for line in compare_text(comparison).splitlines()]
    assert "outcome reached 4, unfinished 3 reached" in lines
    assert "> 60.0 s 10.0 s to 16.0 s > 3.8x" in lines
    assert any(line.startswith("7 > 92.0 s") for line in lines)
    more = runs(tmp_path, "c", *(a_run(s, reached=False) for s in (62.5,)))
    row = content_of(before + more, after)["rows"]["inflation_duration_s"]
    assert (row["before"], row["before_at_least"]) == (62.75, True)
    assert row["ratio"] == 62.75 / 13
    assert "> 62.8 s" in compare_text(compare(before + more, after))
    assert "> 4.8x" in compare_text(compare(before + more, after))


def test_a_run_without_the_measure_is_not_zero(tmp_path: Path) -> None:
    before = runs(tmp_path, "b", a_run(60), Built().ends(3), a_run(70))
    row = content_of(before, before)["rows"]["inflation_duration_s"]
    assert row["before"] == 65
    assert row["before_values"][1] is None
    assert "65.0 s (2 of 3 runs)" in compare_text(compare(before, before))


def test_runs_not_to_be_trusted_are_named(tmp_path: Path) -> None:
    lossy, wrong, cut = a_run(60), a_run(61).ends(70, vmstat(999)), a_run(62)
    lossy.trailer = {**(lossy.trailer or {}), "lost_events": 5}
    cut.trailer = None
    wrong.header["guest"]["kernel"] = "5.10.0"
    before = runs(tmp_path, "b", a_run(59), lossy, wrong, cut)
    content = content_of(before, before)
    side = content["before"]
    assert (side["complete"], side["agrees"], side["lost_events"]) == (False, False, None)
    assert (side["kernel"], side["cpus"], side["differs"]) == (
        *(None, 2),
        ["kernel"],  # of a run whose totals are wrong it is not known
    )
    text = compare_text(compare(before, before))
    facts = text.split("\nBefore\n")[1].split("\nAfter\n")[0]
    places = {line.split()[0]: n for n, line in enumerate(facts.splitlines()) if line[:1] == "#"}
    lines = facts.splitlines()
    assert places["#2"] == places["#1"] + 1  # nothing to say of the first
    assert "5 events lost" in lines[places["#2"] + 1]
    assert "DISAGREE" in lines[places["#3"] + 1]
    assert "NOT COMPLETE" in lines[places["#4"] + 1]
    assert "NOT ALIKE in kernel: 6.1.0-44-amd64 (3), 5.10.0 (1)" in facts
    assert "agree with its" not in facts


def test_findings_of_runs_are_counted(tmp_path: Path) -> None:
    before = runs(tmp_path, "b", shrinker_like(100), shrinker_like(100), stock_like(10))
    comparison = compare(before, before)
    assert comparison.tables["sides"][0]["findings"] == ["busy-no-op"]
    assert "busy-no-op in 2 of 3 runs" in compare_text(comparison)


def test_one_run_on_each_side_is_the_founding_table(tmp_path: Path) -> None:
    before = runs(tmp_path, "b", shrinker_like())
    after = runs(tmp_path, "a", stock_like())
    assert compare_text(compare(before, after)) == compare_text(compare(before[0], after[0]))
    text = compare_text(compare(before, after))
    assert "median" not in text
    assert "too few" not in text
    assert "recording  " in text


def invoke(*arguments: str) -> Any:
    return CliRunner().invoke(app, ["compare", *arguments])


def test_the_command_takes_several_runs(tmp_path: Path) -> None:
    paths = [a_run(s).write(tmp_path / f"{s}.btrace") for s in (10, 20, 30, 40)]
    options = ["--before", paths[0], "--before", paths[1], "--after", paths[2], "--json"]
    found = invoke(*options)
    assert found.exit_code == 0
    content = json.loads(found.stdout)
    assert [len(content[side]["runs"]) for side in ("before", "after")] == [2, 1]
    row = next(row for row in content["rows"] if row["name"] == "inflation_duration_s")
    assert (row["before"], row["after"]) == (15, 30)
    one = json.loads(invoke(paths[0], paths[2], "--json").stdout)
    assert one["before"]["path"] == paths[0]


@pytest.mark.parametrize(
    "arguments",
    [
        (),
        ("a",),
        ("--before", "a"),
        ("--before", "a", "--after", "b", "c"),
        ("a", "b", "--before", "c", "--after", "d"),
        ("--before", "a", "--before", "a", "--after", "b"),
    ],
)
def test_the_command_says_how_to_give_several_runs(arguments: tuple[str, ...]) -> None:
    found = invoke(*arguments)
    assert isinstance(found.exception, UserError)
    assert found.exception.exit_code == EXIT_USAGE


def test_real_recordings_of_different_kernels_are_compared() -> None:
    data = Path(__file__).parents[2] / "data"
    tours = [build(str(data / f"{kernel}-tour.btrace")) for kernel in ("6.1", "6.12", "7.2")]
    rows = {row["name"]: row for row in compare(tours, tours[:1]).tables["rows"]}
    counted = [tour.results["reconciliation"].scalars["vmstat_inflate"] for tour in tours]
    assert rows["balloon_inflate"]["before"] == sorted(counted)[1]
    assert rows["balloon_inflate"]["after"] == counted[0] > 400_000
    assert rows["inflation_duration_s"]["before_at_least"] is True


def test_what_gained_nothing_is_beyond_all_bounds(tmp_path: Path) -> None:
    no_op = Built().target(1, 100_000)
    for i in range(40):
        no_op.fill(1 + i, 0.1, 256).leak(1.5 + i, 0.1, 256, within="scan leak", tid=KSWAPD_TID)
    before, after = runs(tmp_path, "b", no_op.ends(45)), runs(tmp_path, "a", a_run(10))
    row = content_of(before, after)["rows"]["amplification"]
    assert (row["before"], row["before_unbounded"], row["ratio"]) == (None, True, None)
    assert row["before_values"] == [{"value": None, "at_least": False, "unbounded": True}]
    assert (row["after"], row["after_unbounded"]) == (1.0, False)
    text = compare_text(compare(before, after))
    assert "amplification gained nothing 1.000 -" in " ".join(text.split())
    several = compare_text(compare(before * 7, after * 7))
    assert "amplification gained nothing 1.000 -" in " ".join(several.split())


def test_sides_that_are_not_alike_are_said_so(tmp_path: Path) -> None:
    small, large = a_run(60), Built().target(1, 4096, 0).fill(1, 10, 4096).ends(11)
    large.header["guest"] |= {"cpus": 4, "memory_bytes": 8 << 30}
    comparison = compare(runs(tmp_path, "b", small), runs(tmp_path, "a", large))
    assert {row["fact"] for row in comparison.tables["unlike"]} == {
        "cpus",
        "memory_bytes",
        "inflation_target_pages",
    }
    said = " ".join(compare_text(comparison).split())
    assert "NOT ALIKE: CPUs 2 and 4, memory 4.0 GiB and 8.0 GiB, target 256 pages and 4,096" in said


def test_sides_that_differ_in_what_is_compared_are_alike(tmp_path: Path) -> None:
    # Another kernel keeps another part of the same memory.
    other = a_run(10)
    other.header["guest"] |= {"kernel": "6.12", "memory_bytes": (4 << 30) - (20 << 20)}
    comparison = compare(runs(tmp_path, "b", a_run(60)), runs(tmp_path, "a", other))
    assert comparison.tables["unlike"] == []
    assert "NOT ALIKE" not in compare_text(comparison)
