# SPDX-License-Identifier: Apache-2.0
"""Events against the sums that the BPF programs made beside them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from balloontrace.analysis.report import build
from balloontrace.analysis.text.report import report_text
from balloontrace.analysis.trace import kernel_sums
from balloontrace.analysis.trace.trace import read_trace
from tests.unit.builders import Built


def row(calls: int, done: int) -> dict[str, Any]:
    """A row of the trailer's `sums`."""
    return {"calls": calls, "asked": 0, "done": done, "ns": 1, "slots": [calls]}


def recording() -> Built:
    """A target, 3 fills with their acks, 2 leaks of the shrinker and 1 of the host, and their
    sums."""
    built = Built().target(0.5, 600, 0)
    for i in range(3):
        built.ack(1.0 + i, 0.1, 200, "inflate", "worker").fill(1.0 + i, 0.2, 200)
    built.leak(5.0, 0.1, 50, within="scan leak").leak(6.0, 0.1, 60, within="worker scan leak")
    built.leak(7.0, 0.1, 70)
    built.ends(9.0)
    assert built.trailer is not None
    built.trailer["sums"] = {
        "target": row(1, 0),
        "ack inflate": row(3, 600),
        "fill": row(3, 600),
        "leak shrinker": row(2, 110),
        "leak host": row(1, 70),
    }
    return built


def differing(built: Built, path: Path) -> list[str] | None:
    """Of the recording as it is written now."""
    return kernel_sums.differing(read_trace(built.write(path / "r.btrace")))


def test_sums_that_are_those_of_the_events_agree(tmp_path: Path) -> None:
    assert differing(recording(), tmp_path) == []


def test_a_recording_without_sums_is_not_judged(tmp_path: Path) -> None:
    built = recording()
    assert built.trailer is not None
    del built.trailer["sums"]
    assert differing(built, tmp_path) is None
    scalars = build(str(tmp_path / "r.btrace")).results["reconciliation"].scalars
    assert scalars["sums_agree"] is None


@pytest.mark.parametrize(
    ("name", "sums", "line"),
    [
        ("fill", row(4, 600), "fill: 4 calls summed up, 3 in events"),
        ("fill", row(3, 601), "fill: 601 pages summed up, 600 in events"),
        ("leak oom", row(1, 9), "leak oom: 1 calls summed up, 0 in events"),
        ("ack inflate", row(2, 600), "ack inflate: 2 calls summed up, 3 in events"),
        ("notice", row(1, 0), "notice: 1 calls summed up, 0 in events"),
    ],
)
def test_what_is_not_in_the_events_is_told(
    name: str, sums: dict[str, Any], line: str, tmp_path: Path
) -> None:
    built = recording()
    assert built.trailer is not None
    built.trailer["sums"][name] = sums
    assert differing(built, tmp_path) == [line]


def test_pages_of_another_cause_do_not_make_up_for_it(tmp_path: Path) -> None:
    built = recording()
    assert built.trailer is not None
    built.trailer["sums"] |= {"leak shrinker": row(1, 50), "leak host": row(2, 130)}
    assert len(differing(built, tmp_path) or []) == 2


@pytest.mark.parametrize(("lost", "lines"), [(1, 0), (2, 1), (0, 1)])
def test_what_the_ring_lost_is_in_the_sums(lost: int, lines: int, tmp_path: Path) -> None:
    built = recording()
    assert built.trailer is not None
    built.trailer["sums"]["leak shrinker"] = row(3, 210)
    built.trailer["counters"]["leak"] = {"lost": lost, "lost_pages": 100 * lost}
    assert len(differing(built, tmp_path) or []) == lines


def test_calls_that_are_open_are_not_yet_summed_up(tmp_path: Path) -> None:
    built = recording()
    built.fill(8.5, None, 0)
    assert differing(built, tmp_path) == []


@pytest.mark.parametrize("calls", [3, 4])
def test_a_missed_return_may_be_summed_up_or_not(calls: int, tmp_path: Path) -> None:
    built = recording()
    assert built.trailer is not None
    built.fill(8.0, 0.0, 10, flags="missed")
    built.trailer["sums"]["fill"] = row(calls, 600)
    assert differing(built, tmp_path) == []


def test_a_report_says_what_is_missing_and_calls_nothing_absent(tmp_path: Path) -> None:
    built = recording()
    assert built.trailer is not None
    built.trailer["sums"]["oom_notify"] = row(1, 256)
    report = build(built.write(tmp_path / "r.btrace"))
    scalars = report.results["reconciliation"].scalars
    assert (scalars["agrees"], scalars["sums_agree"]) == (True, False)
    assert report.results["oom"].missing
    text = " ".join(report_text(report).split())
    assert "EVENTS MISSING" in text
    assert "oom_notify: 1 calls summed up, 0 in events" in text
