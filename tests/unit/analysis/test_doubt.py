# SPDX-License-Identifier: Apache-2.0
"""Nothing is called absent that may only be missing."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from balloontrace.analysis.json import report_json
from balloontrace.analysis.report import Report, build
from balloontrace.analysis.text.report import report_text
from tests.unit.builders import Built, vmstat

ABSENT = ("did not", "nothing was", "none of those looked for", "no event")
"""What reports say of things that did not happen."""


def _report(built: Built, tmp_path: Path) -> Report:
    return build(built.write(tmp_path / "r.btrace"))


def _vmstat_moved(built: Built) -> None:
    built.ends(60, vmstat(12800, 12800))


def _probes_ceased_to_fire(built: Built) -> None:
    built.ends(60)
    built.trailer = {**(built.trailer or {}), "proof": {"begin": True, "end": False}}


def _every_kind_lost_events(built: Built) -> None:
    built.ends(60)
    lost = {kind: {"lost": 1} for kind in built.header["kinds"]}
    built.trailer = {**(built.trailer or {}), "counters": lost, "lost_events": len(lost)}


def test_a_quiet_guest_is_said_to_be_quiet(tmp_path: Path) -> None:
    said = report_text(_report(Built().ends(60), tmp_path))
    assert "none of those looked for" in said


@pytest.mark.parametrize(
    "doubtful", [_vmstat_moved, _probes_ceased_to_fire, _every_kind_lost_events]
)
def test_where_all_may_not_be_there_nothing_is_called_absent(
    doubtful: Callable[[Built], None], tmp_path: Path
) -> None:
    built = Built()
    doubtful(built)
    report = _report(built, tmp_path)
    content = json.loads(report_json(report))
    # With deflate-on-OOM the balloon does not lower the total, whatever was traced.
    assert content["findings_checked"] == ["allocation-refused"]
    said = report_text(report).replace("none of those looked for: allocation-refused", "")
    assert [words for words in ABSENT if words in said] == []
    assert content["totals"]["inflated_pages"] is None
    assert content["totals"]["deflated_pages"] is None
    assert content["oom"] is None or content["oom"].get("notifier_calls") is None
    assert "could not look for busy-no-op" in said


def test_what_is_there_is_told_all_the_same(tmp_path: Path) -> None:
    built = Built().fill(1.0, 0.5, 256).ends(60, vmstat(12800, 512))
    content = json.loads(report_json(_report(built, tmp_path)))
    assert content["totals"]["inflated_pages"] == 256
    assert content["totals"]["deflated_pages"] is None
    assert content["reconciliation"]["agrees"] is False


def test_what_the_guest_counted_too_is_no_more_in_doubt(tmp_path: Path) -> None:
    built = Built().fill(1.0, 0.5, 256).ends(60, vmstat(12800, 0))
    content = json.loads(report_json(_report(built, tmp_path)))
    assert content["totals"]["deflated_pages"] == content["totals"]["migrated_pages"] == 0
    assert content["oom"] is None


def test_one_kinds_losses_are_no_doubt_of_another(tmp_path: Path) -> None:
    built = Built().fill(1.0, 0.5, 256).ends(60, vmstat(256))
    built.trailer = {**(built.trailer or {}), "counters": {"scan": {"missed": 1}}}
    content = json.loads(report_json(_report(built, tmp_path)))
    assert content["totals"]["deflated_pages"] == 0
    assert content["returns_missed"] == {"scan": 1}


@pytest.mark.parametrize("knows_the_flag", [True, False], ids=["now", "0.1"])
def test_an_open_call_within_one_that_returned_has_lost_its_return(
    knows_the_flag: bool, tmp_path: Path
) -> None:
    built = Built(base=1000).call("oom_notify", 5, 0.002, 0, 256, tid=70, comm=b"java")
    built.leak(5, None, 256, within="oom", tid=70, comm=b"java").ends(65)
    built.leak(30, None, 100, tid=71, comm=b"other")  # nothing says that this one returned
    if not knows_the_flag:
        built.header["flags"] = {k: v for k, v in built.header["flags"].items() if k != "missed"}
    report = _report(built, tmp_path)
    assert report.recording.scalars["returns_missed"] == {"leak": 1}
    leaks = next(r for r in report.results["latencies"].tables["latencies"] if r["call"] == "leak")
    assert (leaks["open"], leaks["open_longest_s"], leaks["unseen"]) == (1, 35.0, 1)
    causes = {row["cause"]: row for row in report.results["causes"].tables["causes"]}
    assert (causes["oom"]["pages"], causes["oom"]["busy_s"]) == (256, 0.0)


def test_an_open_call_that_was_entered_anew_has_lost_its_return(tmp_path: Path) -> None:
    built = Built().call("scan", 5, None, 512, 0, tid=70).call("scan", 6, 0.5, 512, 0, tid=70)
    built.call("scan", 7, None, 512, 0, tid=71).ends(65)
    assert _report(built, tmp_path).recording.scalars["returns_missed"] == {"scan": 1}


def test_a_target_that_must_have_been_read_is_not_absent(tmp_path: Path) -> None:
    report = _report(Built().fill(1, 0.5, 256).ends(9), tmp_path)
    (why,) = report.results["episodes"].missing
    assert why == "target (the size worker moved pages, and read one that was not seen)"
    begun_before = Built().fill(1, 0.5, 256, flags="partial").ends(9)
    assert _report(begun_before, tmp_path).results["episodes"].missing == []
