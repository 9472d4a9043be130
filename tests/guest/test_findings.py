# SPDX-License-Identifier: Apache-2.0
"""Each finding is made to happen in a real guest, and is the only one that fires there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.guest.test_lab import balloontrace, both_sides, ids_of, whole_report

pytestmark = pytest.mark.own_guests

MIB_PAGES = 256
GIB_PAGES = 1 << 18


def ran(scenario: str, out: Path, *, kernel: str = "6.1") -> dict[str, Any]:
    """The report of a scenario, exact to the page."""
    balloontrace("lab", "run", scenario, "--kernel", kernel, "--out", str(out))
    recording = out / f"{scenario}-stock.btrace"
    return whole_report(recording, slow_host=scenario == "slow-host")


def evidence(report: dict[str, Any], *only: str) -> dict[str, Any]:
    """The evidence of the first of the findings that must be all that fire."""
    assert ids_of(report) == set(only) - {"slow-host-ack"}
    assert report["findings_unchecked"] == {}
    found: dict[str, Any] = next(
        finding["evidence"] for finding in report["findings"] if finding["id"] == only[0]
    )
    return found


def test_a_host_that_sends_its_target_again(tmp_path: Path) -> None:
    report = ran("oom-resend", tmp_path)
    # How often the worker finds no page beside the task, and sleeps, is the machine's pace.
    (held,) = report["periods"]["after"]
    short = held["end_pages"] < held["target_pages"] == GIB_PAGES * 3 // 4
    found = evidence(report, "oom-ping-pong", *["out-of-puff"] * (short and held["sleeps"] >= 5))
    assert held["left"] >= 1
    assert found["retaken_pages"] >= 10 * MIB_PAGES
    assert found["notices"] > found["targets"] == 0
    assert found["given_to"][0]["actor"] == "task python3"
    assert report["oom"]["killed"] == 0
    given_back = sum(row["pages"] for row in report["causes"] if row["cause"] == "oom")
    assert given_back == report["oom"]["notifier_pages"]
    inflated, deflated = (report["totals"][f"{way}_pages"] for way in ("inflated", "deflated"))
    assert inflated == deflated > GIB_PAGES * 3 // 4


def test_inflation_that_is_still_in_flight(tmp_path: Path) -> None:
    report = ran("oom-inflight", tmp_path)
    found = evidence(report, "oom-ping-pong", "out-of-puff")
    assert found["retaken_pages"] >= 10 * MIB_PAGES
    assert found["notices"] == 0
    assert report["episodes"][0]["outcome"] in ("settled", "superseded")
    assert report["oom"]["killed"] == 0


def test_a_guest_that_reads_its_programs_again_and_again(tmp_path: Path) -> None:
    report = ran("oom-thrash", tmp_path, kernel="5.10")
    # It starves beside a balloon at rest, which holds as well where OOMs are further apart.
    found = evidence(report, "oom-thrash", *ids_of(report) & {"held-under-pressure"})
    assert found["refaults_per_page"] >= 16
    assert found["full_share"] >= 0.05
    assert report["oom"]["killed"] == 0


def test_a_target_beyond_what_the_guest_has(tmp_path: Path) -> None:
    report = ran("unreachable", tmp_path)
    found = evidence(report, "out-of-puff")
    assert found["episode"] == 1
    assert found["outcome"] in ("settled", "superseded")  # as it kept finding a page or none
    assert found["sleep_s"] >= 0.2 * found["sleeps"] >= 1.0
    assert found["short_pages"] > 0


def test_a_host_that_changes_its_mind(tmp_path: Path) -> None:
    report = ran("target-flapping", tmp_path)
    found = evidence(report, "target-flapping")
    assert found["cycles"] == 7
    assert found["inflated_pages"] == 7 * GIB_PAGES * 3 // 16 == report["totals"]["inflated_pages"]
    assert {row["outcome"] for row in report["episodes"]} == {"reached"}
    assert {row["left"] for row in report["episodes"]} == {0}


def test_a_host_that_is_slow_to_take_pages(tmp_path: Path) -> None:
    report = ran("slow-host", tmp_path)
    found = evidence(report, "slow-host-ack")
    assert found["pages"] == GIB_PAGES // 32
    # strace delayed each page by 1 ms, and a chunk has 256.
    assert found["slow_acks"] == found["acks"] == report["phases"]["fill"]["calls"]
    assert found["slow_s"] >= found["pages"] / 1000
    assert report["episodes"][0]["outcome"] == "reached"
    # Whether it gets its CPUs as well is the machine's pace.
    assert of_both_sides(tmp_path / "slow-host-stock.btrace") <= {"host-not-running-guest"}


def of_both_sides(path: Path) -> set[str]:
    """The findings that take the host's view."""
    found = {finding["id"] for finding in both_sides(path)["findings"]}
    return found & {"host-gains-nothing", "host-not-running-guest", "target-never-arrived"}


def test_a_host_that_keeps_what_the_guest_gives(tmp_path: Path) -> None:
    report = ran("locked-host", tmp_path)
    assert ids_of(report) == set()  # nothing that the guest could know
    path = tmp_path / "locked-host-stock.btrace"
    assert of_both_sides(path) - {"host-not-running-guest"} == {"host-gains-nothing"}
    (found,) = (f for f in both_sides(path)["findings"] if f["id"] == "host-gains-nothing")
    assert found["certainty"] == "high"
    assert found["evidence"]["due_bytes"] == 256 << 20
    assert found["evidence"]["locked_bytes"] >= 512 << 20


def test_a_guest_that_is_stopped(tmp_path: Path) -> None:
    balloontrace("lab", "run", "stopped-guest", "--out", str(tmp_path))
    path = tmp_path / "stopped-guest-stock.btrace"
    assert of_both_sides(path) == {"host-not-running-guest"}
    assert both_sides(path)["host_side"]["unanswered_s"] >= 7


def test_a_container_that_outgrows_its_limit(tmp_path: Path) -> None:
    report = ran("memcg-oom", tmp_path)
    found = evidence(report, "memcg-oom")
    (victim,) = found["victims"]
    assert (victim["victim"], victim["balloon_pages"]) == ("python3", GIB_PAGES // 2)
    assert report["oom"]["notifier_calls"] == 0
    assert report["totals"]["deflated_pages"] == GIB_PAGES // 2


def test_a_driver_that_is_unloaded(tmp_path: Path) -> None:
    report = ran("driver-gone", tmp_path)
    found = evidence(report, "driver-gone")
    assert (found["by"], found["back"], found["pages"]) == ("rmmod", False, GIB_PAGES // 4)
    assert found["away_s"] >= 5
    assert {row["cause"]: row["pages"] for row in report["causes"]} == {"remove": GIB_PAGES // 4}
    path = tmp_path / "driver-gone-stock.btrace"
    assert of_both_sides(path) - {"host-not-running-guest"} == {"target-never-arrived"}
    (lost,) = (f for f in both_sides(path)["findings"] if f["id"] == "target-never-arrived")
    assert lost["evidence"]["driver_there"] is False
    assert lost["evidence"]["target_pages"] == GIB_PAGES // 2


def test_a_balloon_at_rest_that_starves_its_guest(tmp_path: Path) -> None:
    report = ran("held-under-pressure", tmp_path)
    evidence(report, "held-under-pressure")
    assert {row["outcome"] for row in report["episodes"]} == {"reached"}
    assert report["totals"]["inflated_pages"] == GIB_PAGES * 25 // 32
    assert report["totals"]["deflated_pages"] == 0
    assert report["oom"]["killed"] == 0


def test_a_kill_beside_a_balloon_that_may_not_deflate(tmp_path: Path) -> None:
    report = ran("killed-beside-balloon", tmp_path)
    evidence(report, "killed-beside-balloon")
    (kill,) = report["oom"]["kills"]
    assert (kill["victim"], kill["memcg"]) == ("python3", False)
    assert kill["balloon_pages"] == GIB_PAGES * 2 // 5
    assert report["oom"]["notifier_calls"] == 0


def test_memory_refused_by_a_limit_that_the_balloon_lowered(tmp_path: Path) -> None:
    report = ran("refused-beside-balloon", tmp_path)
    found = evidence(report, "allocation-refused")
    # The task counted five. Who else asks meanwhile, as the netlink process, is refused, too.
    most, *others = report["refusals"]
    assert (most["task"], most["refused"]) == ("python3", 5)
    assert found["refused"] == 5 + sum(row["refused"] for row in others)


def test_inflation_that_pushes_a_task_to_swap(tmp_path: Path) -> None:
    report = ran("swapped-by-inflation", tmp_path)
    # How long inflation waits for what must be swapped out first, and how much of its time the task
    # then waits for its memory, is the machine's pace.
    evidence(
        report, "swapped-by-inflation", *ids_of(report) & {"out-of-puff", "held-under-pressure"}
    )
    assert report["totals"]["inflated_pages"] == GIB_PAGES // 4
    assert report["oom"]["killed"] == 0


def test_work_items_that_are_not_run(tmp_path: Path) -> None:
    report = ran("frozen-work", tmp_path)
    found = evidence(report, "stats-stale", "worker-at-rest")
    assert found["longest_answer_s"] >= 10  # they were frozen for 12 s, and it asks each second
    (resting,) = (row for row in report["findings"] if row["id"] == "worker-at-rest")
    assert resting["evidence"]["rest_s"] >= 10
    assert resting["evidence"]["gained_pages"] == GIB_PAGES // 16
    assert {row["outcome"] for row in report["episodes"]} == {"reached"}
    frozen = {row["cause"]: row["pages"] for row in report["causes"]}["freeze"]
    assert frozen == GIB_PAGES // 16


def test_a_device_that_takes_its_time_with_a_report(tmp_path: Path) -> None:
    report = ran("reporting-stuck", tmp_path)
    found = evidence(report, "reporting-stuck")
    assert found["longest_s"] >= 10
    assert found["pages"] > 0


def test_memory_that_is_reported_and_taken_again_and_again(tmp_path: Path) -> None:
    report = ran("reporting-churn", tmp_path)
    found = evidence(report, "reporting-churn")
    assert found["times_the_memory"] >= 5
    assert found["pages"] == report["free_pages"]["reporting"]["pages"]
    assert report["free_pages"]["hinting"]["lent_pages"] > 0


@pytest.mark.parametrize("scenario", ["held-with-room", "spared-beside-balloon", "swap-unused"])
def test_what_is_alike_and_well(tmp_path: Path, scenario: str) -> None:
    report = ran(scenario, tmp_path)
    assert ids_of(report) == set()
    assert report["findings_unchecked"] == {}
    assert {row["outcome"] for row in report["episodes"]} == {"reached"}
    assert report["oom"]["killed"] == 0
