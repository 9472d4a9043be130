# SPDX-License-Identifier: Apache-2.0
"""The statistics queue and refused memory, in recordings whose answers are known."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from balloontrace.analysis.report import build
from tests.unit.builders import Built, ns


def asked(built: Built, *at_s: float) -> Built:
    for at in at_s:
        built.call("stats_ask", at, 0.0, 0, 0, within="", tid=0, comm=b"")
    return built


def answered(built: Built, at: float, took: float | None, **values: int) -> Built:
    """The driver answers; values: of tags, as t5=..."""
    built.call("stats", at, took, 0, 10, within="")
    if values:
        sent = [[int(name[1:]), value] for name, value in values.items()]
        stats = {"answers": 1, "answered_ns": ns(at), "sent": sent}
        built.samples.append({"t_ns": ns(at + 0.5), "stats": stats})
    return built


def statistics(built: Built, path: Path) -> Any:
    built.ends(60).write(path / "a.btrace")
    return build(str(path / "a.btrace")).results["statistics"]


def test_an_answer_is_to_all_that_was_asked_before_it_began(tmp_path: Path) -> None:
    built = asked(Built(), 1, 2, 2.5, 9, 9.05)
    answered(built, 1.1, 0.4, t0=1, t5=1 << 30)
    answered(built, 3, 1, t0=7, t5=1 << 30)  # to those of 2 and 2.5
    answered(built, 9.02, 0.1)  # to that of 9
    answered(built, 9.2, 0.1)  # to that of 9.05
    found = statistics(built, tmp_path)
    scalars = found.scalars
    assert (scalars["asked"], scalars["answered"]) == (5, 4)
    assert scalars["longest_answer_s"] == pytest.approx(2)
    assert scalars["median_answer_s"] == pytest.approx((0.25 + 0.5) / 2)
    assert scalars["unanswered_s"] is None
    assert scalars["longest_pause_s"] == pytest.approx(60 - 9.05)
    rows = {row["name"]: (row["first"], row["last"], row["unit"]) for row in found.tables["values"]}
    assert rows == {
        "swap-in": (1, 7, "bytes"),
        "total-memory": (1 << 30, 1 << 30, "bytes"),
    }


def test_what_was_never_answered_is_told(tmp_path: Path) -> None:
    scalars = statistics(answered(asked(Built(), 1, 10, 11), 1.5, 0.5), tmp_path).scalars
    assert scalars["unanswered_s"] == pytest.approx(50)
    assert scalars["longest_answer_s"] == pytest.approx(1)


def test_an_answer_under_way_is_none(tmp_path: Path) -> None:
    scalars = statistics(answered(asked(Built(), 10), 12, None), tmp_path).scalars
    assert (scalars["answered"], scalars["unanswered_s"]) == (0, pytest.approx(50))
    assert scalars["median_answer_s"] is None


def test_without_the_interrupts_only_answers_are_known(tmp_path: Path) -> None:
    built = answered(Built(), 12, 1)
    built.header["seams"]["stats_ask"]["rung"] = None
    scalars = statistics(built, tmp_path).scalars
    assert scalars["answered"] == 1
    assert {value for key, value in scalars.items() if key not in ("answered", "offered")} == {None}


@pytest.mark.parametrize("lost", ["stats", "stats_ask"])
def test_where_one_was_lost_the_next_answer_is_not_called_late(tmp_path: Path, lost: str) -> None:
    # The answer to the question at 10 s, or the question to the answer at 20 s, was lost.
    built = answered(asked(Built(), 10, 20), 20.01, 0.01)
    built.ends(60)
    assert built.trailer is not None
    built.trailer["counters"] = {lost: {"lost": 1}}
    report = build(built.write(tmp_path / "a.btrace"))
    scalars = report.results["statistics"].scalars
    assert {key for key, value in scalars.items() if value is not None} == {"offered"}
    assert "its events were lost" in report.results["statistics"].notes[0]
    findings = report.results["findings"]
    assert findings.tables["findings"] == []
    assert "stats-stale" in findings.scalars["unchecked"]


def test_a_host_that_never_asks(tmp_path: Path) -> None:
    scalars = statistics(Built(), tmp_path).scalars
    assert (scalars["asked"], scalars["answered"], scalars["longest_pause_s"]) == (0, 0, None)


def test_a_tag_of_a_later_kernel_keeps_its_number(tmp_path: Path) -> None:
    rows = statistics(answered(Built(), 1, 0.1, t99=4), tmp_path).tables["values"]
    assert [(row["name"], row["tag"], row["last"]) for row in rows] == [("tag 99", 99, 4)]


def test_tasks_that_were_refused_memory(tmp_path: Path) -> None:
    built = Built()
    for at, pid, comm in ((1, 8, b"java"), (2, 9, b"java"), (3, 8, b"java"), (4, 7, b"go")):
        built.call("refuse", at, 0.0, 0, 0, within="", tid=pid, comm=comm)
    built.ends(60).write(tmp_path / "a.btrace")
    rows = build(str(tmp_path / "a.btrace")).results["refusals"].tables["refusals"]
    assert rows[0] == {"task": "java", "pid": 8, "refused": 2, "first_s": 1, "last_s": 3}
    assert [row["pid"] for row in rows] == [8, 9, 7]
