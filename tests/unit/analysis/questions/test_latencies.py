# SPDX-License-Identifier: Apache-2.0
"""Percentiles and histograms of calls and phases, against answers known by hand."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from balloontrace.analysis.json import report_json
from balloontrace.analysis.report import Report, build
from balloontrace.analysis.text.report import report_text
from balloontrace.tracers.attach.seams import SEAMS
from tests.unit.builders import Built

Rows = dict[tuple[str, str | None], dict[str, Any]]


def report_of(built: Built, tmp_path: Path) -> Report:
    return build(built.write(tmp_path / "r.btrace"))


def rows_of(built: Built, tmp_path: Path) -> Rows:
    rows = report_of(built, tmp_path).results["latencies"].tables["latencies"]
    return {(row["call"], row["phase"]): row for row in rows}


def test_percentiles_are_nearest_ranks(tmp_path: Path) -> None:
    built = Built()
    for ms in reversed(range(1, 201)):  # 1 to 200 ms
        built.fill(ms, ms / 1000, 1)
    row = rows_of(built.ends(300), tmp_path)["fill", None]
    assert (row["calls"], row["min_s"], row["max_s"]) == (200, 0.001, 0.2)
    assert (row["p50_s"], row["p90_s"], row["p99_s"]) == (0.1, 0.18, 0.198)


@pytest.mark.parametrize(
    ("calls", "p50", "p90", "p99"), [(1, 1, 1, 1), (2, 1, 2, 2), (3, 2, 3, 3), (10, 5, 9, 10)]
)
def test_percentiles_of_few_calls(tmp_path: Path, calls: int, p50: int, p90: int, p99: int) -> None:
    built = Built()
    for second in range(1, calls + 1):
        built.fill(20 * second, second, 1)
    row = rows_of(built.ends(300), tmp_path)["fill", None]
    assert (row["p50_s"], row["p90_s"], row["p99_s"]) == (p50, p90, p99)


def test_a_bucket_for_each_power_of_two_of_a_microsecond(tmp_path: Path) -> None:
    built = Built()
    for at, us in enumerate([0.999, 1.0, 1.999, 2.0, 3.999, 16.0, 16.0]):
        built.fill(at + 1, us / 1e6, 1)
    histogram = rows_of(built.ends(9), tmp_path)["fill", None]["histogram"]
    assert [(b["from_us"], b["below_us"], b["calls"]) for b in histogram] == [
        (0, 1, 1),
        (1, 2, 2),
        (2, 4, 2),
        (4, 8, 0),
        (8, 16, 0),
        (16, 32, 2),
    ]


def test_a_histogram_begins_with_its_first_call(tmp_path: Path) -> None:
    built = Built().fill(1, 1.0, 1).fill(3, 86_400.0, 1)  # a second and a day
    histogram = rows_of(built.ends(100_000), tmp_path)["fill", None]["histogram"]
    assert histogram[0]["from_us"] == 2**19
    assert histogram[-1]["from_us"] == 2**36
    assert len(histogram) == 18


def test_a_call_that_did_not_return_is_in_no_percentile(tmp_path: Path) -> None:
    built = Built().fill(1, 0.5, 256).fill(2, None, 0).ack(1.1, 0.25, 256, "inflate", "worker")
    built.call("ack", 3, None, 256, 0, queue="inflate", within="worker")
    report = report_of(built.ends(1211), tmp_path)
    rows = {(r["call"], r["phase"]): r for r in report.results["latencies"].tables["latencies"]}
    fill, ack = rows["fill", None], rows["fill", "host_ack"]
    assert (fill["calls"], fill["max_s"]) == (1, 0.5)
    assert (fill["open"], fill["open_longest_s"]) == (1, 1209.0)
    assert (ack["calls"], ack["max_s"], ack["open_longest_s"]) == (1, 0.25, 1208.0)
    # The open ack is part of the open fill, though its record stands behind it.
    rest = rows["fill", "rest"]
    assert (rest["calls"], rest["max_s"], rest["open_longest_s"]) == (1, 0.25, 1.0)
    assert "fill: host ack: 1 had not returned at the end, the longest after 20.1 min" in (
        " ".join(report_text(report).split())
    )


def test_a_call_whose_entry_was_not_seen_is_counted_apart(tmp_path: Path) -> None:
    built = Built().fill(1, 0.001, 256, flags="partial").fill(2, 0.5, 256).ends(4)
    row = rows_of(built, tmp_path)["fill", None]
    assert (row["calls"], row["unseen"], row["min_s"]) == (1, 1, 0.5)
    text = " ".join(report_text(report_of(built, tmp_path)).split())
    assert "fill: 1 more, whose begin or return was not seen" in text


def test_a_rung_that_sees_only_the_host_s_part_of_a_leak_is_named(tmp_path: Path) -> None:
    rungs = next(seam.rungs for seam in SEAMS if seam.name == "leak")
    notes = []
    for rung in rungs:
        built = Built(base=999).leak(1, 1, 256).ends(3)
        built.header["seams"]["leak"]["loses"] = rung.loses
        notes.append(report_of(built, tmp_path).results["latencies"].notes)
    assert notes[:-1] == [[], []]
    assert notes[-1] == [f"leaks were traced by a seam that loses {rungs[-1].loses}"]


def test_the_rest_is_of_each_call(tmp_path: Path) -> None:
    # Two fills: 4 s with 1 ack, 0.5 reclaim (and a sleep in it), 0.25 sleep; 2 s with nothing.
    built = Built(base=999).fill(1, 4, 256).fill(6, 2, 256)
    built.ack(3, 1, 256, "inflate", "worker")
    built.call("reclaim", 1, 0.5, 0, 40, within="worker")
    built.call("sleep", 1.25, 0.125, 0, 0, within="worker")
    built.call("sleep", 2, 0.25, 0, 0, within="worker")
    # A leak in that reclaim: its ack is its own, and it is part of the reclaim.
    built.leak(1.125, 0.25, 256, within="worker scan leak")
    built.ack(1.25, 0.0625, 256, "deflate", "worker scan leak")
    # Meanwhile another task leaks, with the same numbers, in a thread of its own.
    built.leak(3.25, 0.5, 256, within="oom leak", tid=900)
    built.call("ack", 3.5, 0.125, 256, 256, queue="deflate", within="oom leak", tid=900)
    rows = rows_of(built.ends(9), tmp_path)
    rest = rows["fill", "rest"]
    assert (rest["calls"], rest["min_s"], rest["max_s"]) == (2, 2.0, 2.25)
    assert rows["fill", "sleep"]["max_s"] == 0.25
    assert rows["fill", "sleep"]["calls"] == 1
    leak = rows["leak", "rest"]
    assert (leak["min_s"], leak["max_s"]) == (0.1875, 0.375)


def test_an_ack_does_not_go_to_the_call_after_one_that_was_lost(tmp_path: Path) -> None:
    # The fill from 1 s on was lost; the next one begins after its ack.
    built = Built().ack(1.5, 0.25, 256, "inflate", "worker").fill(3, 0.5, 256).ends(9)
    assert rows_of(built, tmp_path)["fill", "rest"]["min_s"] == 0.5


def test_what_was_not_recorded_is_none_and_what_did_not_happen_is_zero(tmp_path: Path) -> None:
    built = Built().fill(1, 1, 256).ends(4)
    built.header["seams"]["ack"] = {"rung": None, "not": ["tell_host is inlined"]}
    report = report_of(built, tmp_path)
    rows = {
        (row["call"], row["phase"]): row for row in json.loads(report_json(report))["latencies"]
    }
    for name in (("fill", "host_ack"), ("fill", "rest"), ("leak", "host_ack")):
        assert rows[name]["calls"] is None
        assert rows[name]["histogram"] is None
    scan = rows["scan", None]
    assert (scan["calls"], scan["open"], scan["p50_s"], scan["histogram"]) == (0, 0, None, [])
    section = report_text(report, verbose=True).split("\nLatencies\n")[1].split("\nOut of")[0]
    assert "scan" in section
    assert "host ack" not in section


def test_histograms_are_for_those_who_ask(tmp_path: Path) -> None:
    built = Built().fill(1, 0.003, 1)
    for at in range(4):
        built.fill(at + 2, 0.001, 1)
    report = report_of(built.ends(9), tmp_path)
    assert "****" not in report_text(report)
    lines = report_text(report, verbose=True).splitlines()
    first = next(number for number, line in enumerate(lines) if "fill, us" in line)
    found = [line.split() for line in lines[first + 1 : first + 4]]
    assert found[0] == ["512", "->", "1023", "4", "|" + 40 * "*" + "|"]
    assert found[1] == ["1024", "->", "2047", "0", "|", "|"]
    assert found[2][:5] == ["2048", "->", "4095", "1", "|" + 10 * "*"]


def test_the_phases_of_real_fills_add_up() -> None:
    data = Path(__file__).parents[3] / "data"
    for name in ("5.10-tour", "6.1-tour", "6.12-tour", "7.2-tour"):
        results = build(str(data / f"{name}.btrace")).results
        rows = {(r["call"], r["phase"]): r for r in results["latencies"].tables["latencies"]}
        for kind in ("fill", "leak"):
            whole = results["phases"].scalars[kind]
            assert rows[kind, None]["calls"] + rows[kind, None]["unseen"] == whole["calls"]
            assert rows[kind, "rest"]["max_s"] <= rows[kind, None]["max_s"]
            for row in (rows[kind, None], rows[kind, "rest"]):
                assert sum(b["calls"] for b in row["histogram"]) == row["calls"]


@pytest.mark.filterwarnings("error::RuntimeWarning")  # as numpy warns of overflow
def test_waits_that_cannot_be_so_long_are_counted_without_a_warning(tmp_path: Path) -> None:
    built = Built().target(0.5, 0, 256)
    for at in (1.1, 1.2):  # each of 200 years
        built.ack(at, 7e9, 128, "deflate", "worker leak")
    rows = rows_of(built.leak(1.0, 8e9, 256, within="worker leak").ends(3.0), tmp_path)
    assert rows["leak", "host_ack"]["calls"] == 2
