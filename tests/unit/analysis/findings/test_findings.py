# SPDX-License-Identifier: Apache-2.0
"""Findings on recordings whose answers are known by hand: what shows each, and what must not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from balloontrace.analysis.report import Report, build
from balloontrace.analysis.text.report import report_text
from balloontrace.events import UNKNOWN_PAGES
from tests.unit.builders import RECORDER_PID, Built, ns, stock_like, vmstat

MIB_PAGES = 256
GIB_PAGES = 1 << 18


def report_of(built: Built, tmp_path: Path) -> Report:
    """The report of a recording whose driver has no shrinker, as all since 5.7."""
    return build(built.write(tmp_path / "r.btrace"))


def found(built: Built, tmp_path: Path) -> dict[str, dict[str, Any]]:
    rows = report_of(built, tmp_path).results["findings"].tables["findings"]
    return {row["id"]: row for row in rows}


def given_back(built: Built, at: float, pages: int = MIB_PAGES, **who: Any) -> Built:
    """The OOM notifier gives back a chunk, for python3 unless told otherwise."""
    who = {"tid": 70, "comm": b"python3", **who}
    built.leak(at, 0.001, pages, **{**who, "within": "oom leak"})
    return built.call("oom_notify", at, 0.002, 0, pages, **who)


def ping_pong(rounds: int = 40, retaken: int = 20) -> Built:
    """A target of 400 chunks, reached at 4 s; from 10 s on one chunk a second is given back, and
    the first `retaken` of them are taken again half a second later."""
    built = Built().target(0, 400 * MIB_PAGES, 0)
    for i in range(400):
        built.fill(i * 0.01, 0.01, MIB_PAGES)
    for i in range(rounds):
        given_back(built, 10 + i)
        if i < retaken:
            built.call("notice", 10.4 + i, 0, 0, 0, tid=0, comm=b"")
            built.fill(10.5 + i, 0.01, MIB_PAGES)
    return built


def test_ping_pong_with_its_evidence(tmp_path: Path) -> None:
    built = ping_pong()
    given_back(built, 40.5, tid=99, pid=RECORDER_PID)
    row = found(built.ends(60), tmp_path)["oom-ping-pong"]
    assert (row["severity"], row["certainty"]) == ("high", "high")
    evidence = row["evidence"]
    assert (evidence["calls"], evidence["pages"]) == (40, 40 * MIB_PAGES)
    assert (evidence["recorder_calls"], evidence["recorder_pages"]) == (1, MIB_PAGES)
    # One of those taken again may have been what the recorder got.
    assert evidence["retaken_pages"] == 19 * MIB_PAGES
    assert (evidence["notices"], evidence["targets"]) == (20, 0)
    assert (evidence["start_s"], evidence["end_s"]) == (10.0, 49.002)
    assert [(who["actor"], who["pages"]) for who in evidence["given_to"]] == [
        ("task python3", 40 * MIB_PAGES),
        ("the recorder itself", MIB_PAGES),
    ]
    assert "the host sent 20 configuration changes, of which 0 changed the target" in row["summary"]


@pytest.mark.parametrize(
    ("rounds", "retaken", "hit"), [(36, 9, 0), (40, 10, 1), (41, 10, 0), (41, 0, 0)]
)
def test_ping_pong_begins_at_its_thresholds(
    tmp_path: Path, rounds: int, retaken: int, hit: int
) -> None:
    # Ten chunks, and a quarter of what was given back.
    assert len(found(ping_pong(rounds, retaken).ends(60), tmp_path)) == hit


def test_what_was_taken_again_was_given_back_though_no_answer_was_seen(tmp_path: Path) -> None:
    built = Built().target(0, 400 * MIB_PAGES, 0)
    for i in range(40):
        built.leak(i + 0.5, 0.001, MIB_PAGES, tid=70, comm=b"python3", within="oom leak")
        built.call(
            "oom_notify", i + 0.5, 0.0, 0, UNKNOWN_PAGES, tid=70, comm=b"python3", flags="missed"
        )
        built.fill(i + 0.6, 0.1, MIB_PAGES)
    evidence = found(built.ends(45), tmp_path)["oom-ping-pong"]["evidence"]
    assert evidence["pages"] == evidence["retaken_pages"] == 39 * MIB_PAGES
    assert evidence["retaken_share"] == 1


def test_pages_taken_for_another_target_are_no_ping_pong(tmp_path: Path) -> None:
    built = ping_pong(rounds=20, retaken=0)
    built.target(31, 500 * MIB_PAGES, 380 * MIB_PAGES)
    for i in range(120):
        built.fill(32 + i * 0.01, 0.01, MIB_PAGES)
    (bout,) = report_of(built.ends(60), tmp_path).results["oom"].tables["bouts"]
    assert (bout["pages"], bout["retaken_pages"]) == (20 * MIB_PAGES, 0)


def test_pages_a_new_driver_takes_are_no_ping_pong(tmp_path: Path) -> None:
    built = ping_pong(rounds=20, retaken=0)
    built.call("remove", 31, 0.5, 0, 0, tid=71, comm=b"rmmod", within="")
    built.leak(31.1, 0.1, 380 * MIB_PAGES, within="remove leak", tid=71)
    built.call("bind", 32, 0.1, 0, 1, tid=72, comm=b"modprobe", within="")
    for i in range(100):
        built.fill(32.1 + i * 0.01, 0.01, MIB_PAGES)
    assert "oom-ping-pong" not in found(built.ends(60), tmp_path)


def test_inflation_still_in_flight_pays_the_debt_first(tmp_path: Path) -> None:
    # 100 chunks on the way to 400, each fifth of them given back at once.
    built = Built().target(0, 400 * MIB_PAGES, 0)
    for i in range(100):
        built.fill(i * 0.1, 0.05, MIB_PAGES)
        if i % 5 == 0:
            given_back(built, i * 0.1 + 0.06)
    row = found(built.ends(11), tmp_path)["oom-ping-pong"]
    # The last one is taken again when nobody needs it any more.
    assert row["evidence"]["pages"] == 20 * MIB_PAGES
    assert row["evidence"]["retaken_pages"] == 19 * MIB_PAGES
    assert "The inflation to the host's target was still under way" in row["summary"]


def test_a_balloon_that_fills_up_again_when_the_need_is_over_is_no_ping_pong(
    tmp_path: Path,
) -> None:
    built = ping_pong(rounds=40, retaken=0)
    for i in range(40):
        built.fill(52 + i * 0.01, 0.01, MIB_PAGES)
    assert found(built.ends(60), tmp_path) == {}


def test_what_only_the_recorder_needed_is_no_ping_pong(tmp_path: Path) -> None:
    built = Built().target(0, 400 * MIB_PAGES, 0)
    for i in range(40):
        built.fill(i, 0.1, MIB_PAGES)
        given_back(built, i + 0.5, tid=99, pid=RECORDER_PID)
    report = report_of(built.ends(45), tmp_path)
    assert report.results["oom"].tables["bouts"] == []
    assert report.results["findings"].tables["findings"] == []


def test_bouts_far_apart_are_counted_apart(tmp_path: Path) -> None:
    built = Built(base=100 * MIB_PAGES)
    for at in (1, 2, 33):  # 31 s after the second
        given_back(built, at)
    rows = report_of(built.ends(40), tmp_path).results["oom"].tables["bouts"]
    assert [(row["start_s"], row["calls"]) for row in rows] == [(1.0, 2), (33.0, 1)]


def crawling(refaults: int, full_s: float, key: str = "workingset_refault_file") -> Built:
    """The notifier gives back 4 MiB from 5 s to 25 s; samples at 4 s and 26 s are around it."""
    built = Built(base=400 * MIB_PAGES)
    for i in range(4):
        given_back(built, 5 + i * 6.6)
    for at, share in ((4, 0), (15, 0.5), (26, 1), (30, 1)):
        built.sample(at, {key: 1000 + round(share * refaults), "balloon_inflate": 0})
        built.samples[-1]["psi"] = {
            "memory": dict.fromkeys(("some_us", "full_us"), round(share * full_s * 1e6))
        }
    return built.ends(31)


def test_thrash_with_its_evidence(tmp_path: Path) -> None:
    row = found(crawling(refaults=102_400, full_s=11.0), tmp_path)["oom-thrash"]
    assert (row["severity"], row["certainty"]) == ("high", "medium")
    evidence = row["evidence"]
    assert (evidence["pages"], evidence["refaulted_pages"]) == (1024, 102_400)
    assert evidence["refaults_per_page"] == 100.0
    assert evidence["full_share"] == pytest.approx(0.5)
    assert evidence["sampled_s"] == 22.0
    assert evidence["given_back_bytes_per_s"] == pytest.approx((4 << 20) / 22)


@pytest.mark.parametrize(
    ("refaults", "full_s", "hit"),
    [(16_384, 1.1, True), (16_383, 11.0, False), (16_384, 1.09, False), (400_000, 1.0, False)],
)
def test_thrash_begins_at_its_thresholds(
    tmp_path: Path, refaults: int, full_s: float, hit: bool
) -> None:
    assert ("oom-thrash" in found(crawling(refaults, full_s), tmp_path)) == hit


def test_thrash_on_a_kernel_that_counts_all_refaults_together(tmp_path: Path) -> None:
    built = crawling(102_400, 11.0, "workingset_refault")
    assert found(built, tmp_path)["oom-thrash"]["evidence"]["refaulted_pages"] == 102_400


def test_thrash_without_psi_is_less_sure(tmp_path: Path) -> None:
    built = crawling(102_400, 11.0)
    for sample in built.samples:
        sample["psi"] = {}
    row = found(built, tmp_path)["oom-thrash"]
    assert (row["certainty"], row["evidence"]["full_share"]) == ("low", None)
    assert "how long tasks waited for memory was not recorded" in row["summary"]


def test_samples_that_say_nothing_show_no_thrash(tmp_path: Path) -> None:
    built = crawling(102_400, 11.0, "nr_free_pages")
    assert "oom-thrash" not in found(built, tmp_path)
    (bout,) = report_of(built, tmp_path).results["oom"].tables["bouts"]
    assert bout["refaulted_pages"] is None


def sleepy(sleeps: int) -> Built:
    """A target of 100 chunks of which the guest has 50; then the worker sleeps."""
    built = Built().target(0, 100 * MIB_PAGES, 0)
    for i in range(50):
        built.fill(i * 0.01, 0.01, MIB_PAGES)
    for i in range(sleeps):
        built.fill(1 + i, 0.21, 0)
        built.call("sleep", 1 + i, 0.2, 0, 0, within="worker")
        built.call("sleep", 1.5 + i, 0.1, 0, 0, within="worker")  # of reclaim
    return built


def test_out_of_puff_with_its_evidence(tmp_path: Path) -> None:
    row = found(sleepy(5).ends(20), tmp_path)["out-of-puff"]
    assert (row["severity"], row["certainty"]) == ("medium", "high")
    evidence = row["evidence"]
    assert (evidence["episode"], evidence["sleeps"]) == (1, 5)
    assert evidence["sleep_s"] == pytest.approx(1.0)
    assert (evidence["first_sleep_s"], evidence["short_pages"]) == (1.0, 50 * MIB_PAGES)
    assert evidence["outcome"] == "unfinished"
    assert evidence["longest_no_progress_s"] == 19.5


def test_a_target_that_was_late_is_less_sure_to_be_out_of_reach(tmp_path: Path) -> None:
    built = sleepy(5)
    for i in range(50):
        built.fill(10 + i * 0.01, 0.01, MIB_PAGES)
    row = found(built.ends(20), tmp_path)["out-of-puff"]
    assert (row["certainty"], row["evidence"]["outcome"]) == ("medium", "reached")


def test_sleeps_after_each_of_which_inflation_goes_on_are_kswapd_being_late(tmp_path: Path) -> None:
    built = Built().target(0, 100 * MIB_PAGES, 0)
    for i in range(100):
        built.fill(0.3 * i, 0.01, MIB_PAGES)
        built.call("sleep", 0.3 * i + 0.05, 0.2, 0, 0, within="worker")
    assert found(built.ends(40), tmp_path) == {}


def test_a_busy_no_op_that_sleeps_is_not_out_of_puff(tmp_path: Path) -> None:
    built = sleepy(5)
    for i in range(40):  # what it took reclaim takes back: no memory is lacking
        built.leak(0.6 + i * 0.005, 0.004, MIB_PAGES, within="scan leak")
    assert found(built.ends(6.5), tmp_path).keys() == {"busy-no-op"}


def test_a_few_sleeps_are_no_finding(tmp_path: Path) -> None:
    assert found(sleepy(4).ends(9), tmp_path) == {}


def test_sleeps_that_were_not_recorded_are_not_looked_for(tmp_path: Path) -> None:
    built = sleepy(5).ends(20)
    built.header["seams"]["sleep"] = {"rung": None, "not": ["no msleep"]}
    findings = report_of(built, tmp_path).results["findings"]
    assert findings.scalars["unchecked"]["out-of-puff"] == ["phases.fill.sleeps"]
    assert "slow-host-ack" in findings.scalars["checked"]
    (episode,) = report_of(built, tmp_path).results["episodes"].tables["episodes"]
    assert episode["sleeps"] is None


def slow(acks: int, each_s: float) -> Built:
    """So many slow acks among 400 quick ones."""
    built = stock_like()
    for i in range(acks):
        built.ack(20 + i * 2, each_s, MIB_PAGES, "inflate", "worker")
        built.fill(20 + i * 2, each_s, MIB_PAGES)
    return built.ends(60)


def test_slow_host_with_its_evidence(tmp_path: Path) -> None:
    row = found(slow(4, 0.5), tmp_path)["slow-host-ack"]
    assert (row["severity"], row["certainty"]) == ("medium", "high")
    evidence = row["evidence"]
    assert (evidence["slow_acks"], evidence["acks"]) == (4, 804)
    assert (evidence["slow_s"], evidence["longest_s"]) == (2.0, 0.5)
    assert (evidence["start_s"], evidence["end_s"]) == (20.0, 26.5)
    assert evidence["ack_s"] == pytest.approx(2.0 + 400 * 0.004)
    assert evidence["moving_s"] == pytest.approx(2.0 + 400 * 0.015)


@pytest.mark.parametrize(
    ("acks", "each_s", "certainty"),
    [(19, 0.1, None), (20, 0.1, "high"), (19, 0.099, None), (1, 2.0, "medium")],
)
def test_slow_host_begins_at_its_thresholds(
    tmp_path: Path, acks: int, each_s: float, certainty: str | None
) -> None:
    row = found(slow(acks, each_s), tmp_path).get("slow-host-ack")
    assert (row["certainty"] if row else None) == certainty


def test_a_few_slow_acks_in_a_long_recording_are_no_finding(tmp_path: Path) -> None:
    built = slow(4, 0.5)
    built.fill(30, 0.1, 256).fill(31, 10.0, 0)  # 2 s of 18.1 s
    assert found(built, tmp_path) == {}


def test_waits_for_the_host_are_shown_if_it_was_slow(tmp_path: Path) -> None:
    text = report_text(report_of(slow(4, 0.5), tmp_path))
    line = next(line for line in text.splitlines() if line.split()[:1] == ["inflate"])
    assert " ".join(line.split()) == "inflate 404 103,424 3.2 s 3.0 ms 500.0 ms 4 2.0 s"
    assert "Waits for the host" not in report_text(report_of(stock_like(), tmp_path))


def killed(base: int, **fields: Any) -> Built:
    """nginx is chosen at 3 s, with a balloon of `base` pages in a guest of 4 GiB."""
    built = Built(base=base)
    return built.call("oom_kill", 3, 0, 0, 81, tid=99, comm=b"nginx", **fields)


def test_an_answer_of_the_notifier_that_was_not_seen_is_not_in_vain(tmp_path: Path) -> None:
    built = Built(base=10_000)
    for at, done in ((5, 256), (6, 0), (7, 0)):
        missed = "missed" if at == 6 else ""
        who = {"tid": 900, "comm": b"cat", "within": ""}
        built.call("oom_notify", at, 0.01, 0, done, flags=missed, **who)
        if at < 7:
            built.leak(at + 0.001, 0.005, 256, within="oom leak", tid=900, comm=b"cat")
    facts = report_of(built.ends(10), tmp_path).results["oom"].scalars
    assert (facts["notifier_calls"], facts["notifier_calls_in_vain"]) == (3, 1)


def test_memcg_oom_with_its_evidence(tmp_path: Path) -> None:
    built = killed(base=20_000, flags="memcg").call(
        "oom_kill", 5, 0, 0, 82, tid=99, comm=b"\x1b[2J", flags="memcg"
    )
    report = report_of(built.ends(9), tmp_path)
    (row,) = report.results["findings"].tables["findings"]
    assert (row["id"], row["severity"], row["certainty"]) == ("memcg-oom", "medium", "high")
    assert row["evidence"]["kills"] == 2
    assert (row["evidence"]["start_s"], row["evidence"]["end_s"]) == (3.0, 5.0)
    assert row["evidence"]["victims"][0] == {
        "at_s": 3.0,
        "victim": "nginx",
        "victim_pid": 81,
        "balloon_pages": 20_000,
    }
    assert "\x1b" not in report_text(report)


@pytest.mark.parametrize(
    ("base", "flags"),
    [
        (20_000, ""),  # the guest's own OOM
        (0, "memcg"),
        (10_000, "memcg"),  # under 1 % of 4 GiB
    ],
)
def test_other_kills_are_no_memcg_oom(tmp_path: Path, base: int, flags: str) -> None:
    assert found(killed(base, flags=flags).ends(9), tmp_path) == {}


@pytest.mark.parametrize(
    ("asked_at", "certainty"), [(None, "medium"), (2.9, None), (1.0, "medium")]
)
def test_a_rung_that_cannot_tell_a_memcg_s_oom(
    tmp_path: Path, asked_at: float | None, certainty: str | None
) -> None:
    built = killed(base=20_000)
    built.header["seams"]["oom_kill"]["loses"] = "whose OOM it was"
    if asked_at is not None:
        given_back(built, asked_at)
    row = found(built.ends(9), tmp_path).get("memcg-oom")
    assert (row["certainty"] if row else None) == certainty


def removed(at: float, pages: int) -> Built:
    """The driver leaves with so many pages."""
    built = Built(base=pages)
    built.call("remove", at, 0.5, 0, 0, tid=71, comm=b"rmmod", within="")
    return built.leak(at + 0.1, 0.1, pages, within="remove leak", tid=71, comm=b"rmmod")


def test_driver_gone_with_its_evidence(tmp_path: Path) -> None:
    row = found(removed(2, 1000).ends(10), tmp_path)["driver-gone"]
    assert (row["severity"], row["certainty"]) == ("high", "high")
    assert row["evidence"] == {
        "times": 1,
        "start_s": 2.5,
        "end_s": 10.0,
        "away_s": 7.5,
        "back": False,
        "by": "rmmod",
        "pages": 1000,
    }


def bound(built: Built, at: float, done: int = 1) -> Built:
    return built.call("bind", at, 0.1, 0, done, tid=72, comm=b"bash", within="")


@pytest.mark.parametrize(
    ("pages", "bound_at", "done", "hit"),
    [
        (1000, 2.6, 1, False),  # bound again at once
        (256_000, 2.6, 1, False),  # the same, with all of a gigabyte in it
        (1000, 3.5, 1, True),  # away for 1.1 s
        (1000, 2.6, 0, True),  # it failed to bind
    ],
)
def test_driver_gone_begins_at_its_thresholds(
    tmp_path: Path, pages: int, bound_at: float, done: int, hit: bool
) -> None:
    built = bound(removed(2, pages), bound_at, done).ends(10)
    assert ("driver-gone" in found(built, tmp_path)) == hit


def counts_of(built: Built, **counters: dict[str, int]) -> None:
    """What the trailer says became of the calls of each kind."""
    assert built.trailer is not None
    built.trailer["counters"] = counters


@pytest.mark.parametrize("lost", ["bind", "its return"])
def test_a_driver_that_works_again_has_come_back(tmp_path: Path, lost: str) -> None:
    built = Built().target(0.5, 1000, 0).fill(0.6, 0.1, 1000)
    built.call("remove", 2, 0.5, 0, 0, tid=71, comm=b"rmmod", within="")
    built.leak(2.1, 0.1, 1000, within="remove leak", tid=71, comm=b"rmmod")
    if lost == "its return":
        built.call("bind", 2.6, 0.0, 0, 0, tid=72, comm=b"bash", within="", flags="missed")
    built.fill(2.8, 0.1, 600).fill(2.9, 0.1, 400).ends(100)
    count = "lost" if lost == "bind" else "missed"
    counts_of(built, bind={"entered": 1, "written": 0, count: 1})
    report = report_of(built, tmp_path)
    assert "driver-gone" not in found(built, tmp_path)
    driver = report.results["driver"].tables["calls"]
    assert [row["back_s"] for row in driver if row["call"] == "remove"] == [2.8]
    assert [row["failed"] for row in driver if row["call"] == "bind"] in ([], [None])
    again = report.results["episodes"].tables["episodes"][1]
    assert (again["begun_by"], again["start_s"], again["outcome"]) == ("driver", 2.8, "reached")
    assert report.results["totals"].scalars["churn_ratio"] == 0.0


def test_a_driver_whose_bind_may_be_lost_is_not_said_to_be_gone(tmp_path: Path) -> None:
    built = removed(2, 1000).ends(100)
    counts_of(built, bind={"entered": 1, "written": 0, "lost": 1})
    findings = report_of(built, tmp_path).results["findings"]
    assert findings.tables["findings"] == []
    assert findings.scalars["unchecked"]["driver-gone"] == ["driver.returns_known"]


def test_a_driver_that_is_being_bound_has_not_come_back(tmp_path: Path) -> None:
    built = removed(2, 1000)
    built.call("bind", 90, None, 0, 0, tid=72, comm=b"bash", within="").ends(100)
    evidence = found(built, tmp_path)["driver-gone"]["evidence"]
    assert (evidence["back"], evidence["end_s"]) == (False, 100.0)


def untraceable(taken: int = 500_000) -> Built:
    """The driver is loaded again after 1 s, cannot be traced, and takes so many pages by 80 s."""
    built = Built().target(1, 256, 0).fill(1, 0.01, 256)
    built.call("remove", 10, 0.1, 0, 0, tid=71, comm=b"rmmod", within="")
    built.leak(10.01, 0.01, 256, within="remove leak", tid=71, comm=b"rmmod")
    built.gone(10.2, vmstat(256, 256)).driver(11, "untraceable", why="it has other functions")
    for at in range(120):
        now = max(0, min(taken, (at - 30) * taken // 50))
        built.sample(at, vmstat(256 * (at > 1) + now, 256 * (at > 10)))
        built.samples[-1]["meminfo"] = {"MemTotal": 4 << 30, "MemAvailable": 2 << 30}
    return built.ends(120, vmstat(256 + taken, 256))


@pytest.mark.parametrize("later", [False, True])
def test_a_driver_that_cannot_be_traced_is_there_and_fills_the_balloon(
    tmp_path: Path, later: bool
) -> None:
    built = untraceable()
    if later:
        built.attached(110, vmstat(500_256, 256)).leak(112, 0.1, 256)
        built.ends(120, vmstat(500_256, 512))
    report = report_of(built, tmp_path)
    absence = found(built, tmp_path).get("driver-gone")
    assert absence is None or absence["evidence"]["back"]
    memory = report.results["memory"].scalars
    assert memory["size_end_pages"] == 500_000 - 256 * later
    assert memory["size_most_pages"] == 500_000
    assert memory["size_most_share"] == pytest.approx(0.4768, abs=0.001)
    assert report.results["totals"].scalars["inflated_pages"] == 256
    (gap,) = report.results["driver"].tables["gaps"]
    assert (gap["back_s"], gap["open"]) == (11.0, not later)


def test_one_that_could_not_be_traced_and_left_again_is_gone(tmp_path: Path) -> None:
    built = untraceable(taken=1000)
    built.gone(100, vmstat(1256, 1256)).ends(120, vmstat(1256, 1256))
    for sample in built.samples:
        if sample["t_ns"] > ns(100) and "vmstat" in sample:
            sample["vmstat"] = vmstat(1256, 1256)
    report = report_of(built, tmp_path)
    first, second = report.results["driver"].tables["gaps"]
    assert (first["end_s"], first["back_s"], second["back_s"]) == (100.0, 11.0, None)
    evidence = found(built, tmp_path)["driver-gone"]["evidence"]
    assert (evidence["start_s"], evidence["back"], evidence["away_s"]) == (100.0, False, 20.0)
    assert report.results["memory"].scalars["size_end_pages"] == 0
    assert report.results["reconciliation"].scalars["agrees"] is True


def test_a_segment_that_begins_with_one_that_cannot_be_traced(tmp_path: Path) -> None:
    built, here = Built(), vmstat(1000)
    built.header |= {"seams": {}, "vmstat_attach": {"before": here, "after": here}}
    built.driver(0.1, "absent", vmstat={"before": here, "after": here})
    built.driver(0.1, "untraceable", why="it has other functions")
    for at in range(1, 10):
        built.sample(at, vmstat(1000 + 100 * (at > 5)))
    report = report_of(built.ends(10, vmstat(1100)), tmp_path)
    memory = report.results["memory"].scalars
    assert (memory["size_begin_pages"], memory["size_end_pages"]) == (1000, 1100)
    (gap,) = report.results["driver"].tables["gaps"]
    assert gap["untraceable"] == "it has other functions"


def test_a_driver_whose_remove_was_not_seen(tmp_path: Path) -> None:
    counters = {"balloon_inflate": 0, "balloon_deflate": 0, "balloon_migrate": 0}
    built = Built().gone(4, counters).attached(7, counters).ends(10)
    row = found(built, tmp_path)["driver-gone"]
    assert (row["certainty"], row["evidence"]["pages"]) == ("medium", None)
    assert (row["evidence"]["away_s"], row["evidence"]["back"]) == (3.0, True)


def test_a_gap_after_a_remove_is_the_same_absence(tmp_path: Path) -> None:
    counters = {"balloon_inflate": 1000, "balloon_deflate": 1000, "balloon_migrate": 0}
    built = removed(2, 1000).gone(3, counters).attached(7, counters).ends(10)
    evidence = found(built, tmp_path)["driver-gone"]["evidence"]
    assert (evidence["times"], evidence["start_s"], evidence["end_s"]) == (1, 2.5, 7.0)


def test_the_most_severe_finding_comes_first(tmp_path: Path) -> None:
    built = removed(40, 1000)
    built.call("oom_kill", 3, 0, 0, 81, tid=99, comm=b"nginx", flags="memcg")
    built.header["guest"]["memory_bytes"] = 100 << 20
    assert list(found(built.ends(50), tmp_path)) == ["driver-gone", "memcg-oom"]


def test_certainty_is_told_with_its_reason(tmp_path: Path) -> None:
    text = report_text(report_of(slow(1, 2.0), tmp_path))
    assert "Certainty: medium: the wait was seen, but so few of them" in text


def oscillating(cycles: int, target: int = 17, page_size: int = 65_536) -> Built:
    """A target between two pages of the guest: a fill overshoots it, a leak undershoots it."""
    built = Built().target(1, target, 0).fill(1, 0.001, 16).fill(1.001, 0.001, 16)
    built.header["guest"]["page_size"] = page_size
    for cycle in range(cycles):
        built.leak(2 + cycle * 0.01, 0.001, 16, within="worker leak")
        built.fill(2.005 + cycle * 0.01, 0.001, 16)
    end = vmstat(built.moved["fill"] // 16, built.moved["leak"] // 16)
    return built.ends(3 + cycles * 0.01, end)


def test_oscillation_with_its_evidence(tmp_path: Path) -> None:
    report = report_of(oscillating(6000), tmp_path)
    (row,) = report.results["findings"].tables["findings"]
    assert (row["id"], row["severity"], row["certainty"]) == ("oscillation", "high", "high")
    evidence = row["evidence"]
    assert (evidence["cycles"], evidence["target_pages"]) == (5999, 17)
    assert evidence["inflated_pages"] == evidence["deflated_pages"] == 96_000
    assert (evidence["least_pages"], evidence["most_pages"]) == (16, 32)
    assert (evidence["page_pages"], evidence["target_is_multiple"]) == (16, False)
    assert "07622bd41563" in row["remedy"]
    assert "reached, left" in report_text(report)


@pytest.mark.parametrize(("cycles", "shown"), [(9, []), (11, ["oscillation"])])
def test_oscillation_begins_at_its_threshold(cycles: int, shown: list[str], tmp_path: Path) -> None:
    assert list(found(oscillating(cycles), tmp_path)) == shown


def test_oscillation_is_not_looked_for_where_a_target_may_be_missing(tmp_path: Path) -> None:
    built = oscillating(100)
    assert built.trailer is not None
    built.trailer["counters"] = {"target": {"lost": 1}}
    findings = report_of(built, tmp_path).results["findings"]
    assert findings.tables["findings"] == []
    assert findings.scalars["unchecked"]["oscillation"] == ["periods.targets_whole"]


def test_what_others_take_and_the_worker_takes_again_is_no_oscillation(tmp_path: Path) -> None:
    assert "oscillation" not in found(ping_pong(100, 100).ends(200), tmp_path)


def flapping(cycles: int, pages: int = 256_000, top_s: float = 3.0) -> Built:
    """Up in 2 s and, after top_s, down in 1 s; the guest has 4 GiB."""
    built, each_s = Built(), 10 + top_s
    for cycle in range(cycles):
        at = cycle * each_s
        built.target(at, pages, 0).fill(at, 2, pages)
        built.target(at + 2 + top_s, 0, pages).leak(at + 2 + top_s, 1, pages)
    return built.ends(cycles * each_s)


def test_target_flapping_with_its_evidence(tmp_path: Path) -> None:
    row = found(flapping(30), tmp_path)["target-flapping"]
    assert (row["severity"], row["certainty"]) == ("medium", "high")
    evidence = row["evidence"]
    assert (evidence["cycles"], evidence["inflated_pages"]) == (30, 30 * 256_000)
    assert (evidence["top_median_s"], evidence["moving_s"]) == (3.0, 90.0)
    assert "30 times, 29.3 GiB in all, 7.3 times the guest's memory" in row["summary"]


@pytest.mark.parametrize(
    ("cycles", "pages", "top_s", "shown"),
    [
        (6, 256_000, 3, ["target-flapping"]),
        (5, 256_000, 3, []),  # a benchmark
        (30, 2560, 3, []),  # small steps
        (30, 256_000, 61, []),  # it was of use meanwhile
    ],
)
def test_target_flapping_begins_at_its_thresholds(
    cycles: int, pages: int, top_s: float, shown: list[str], tmp_path: Path
) -> None:
    assert list(found(flapping(cycles, pages, top_s), tmp_path)) == shown


def test_flapping_is_measured_by_ram_and_not_by_what_the_balloon_leaves_of_it(
    tmp_path: Path,
) -> None:
    held, step = 14 * GIB_PAGES, 110_000
    built = Built(base=held)
    built.header["guest"]["memory_bytes"] = 2 << 30
    built.header["balloon"]["features"] = ["stats_vq"]  # so the driver lowers MemTotal
    for cycle in range(6):
        at = cycle * 10.0 + 1
        built.target(at, held + step, held).fill(at, 2, step)
        built.target(at + 5, held, held + step).leak(at + 5, 1, step)
    built.ends(70)
    for at in range(70):
        built.sample(at, vmstat(held))
        built.samples[-1]["meminfo"] = {"MemTotal": 2 << 30, "MemAvailable": 1 << 30}
    assert "target-flapping" not in found(built, tmp_path)


def hanging(rest_s: float) -> Built:
    """Five of two hundred chunks, and after a rest the others."""
    built = Built().target(1, 200 * MIB_PAGES, 0)
    for chunk in range(200):
        built.fill(1 + chunk * 0.01 + rest_s * (chunk >= 5), 0.01, MIB_PAGES)
    return built.ends(4 + rest_s)


def test_a_worker_at_rest_with_its_evidence(tmp_path: Path) -> None:
    row = found(hanging(20), tmp_path)["worker-at-rest"]
    assert (row["severity"], row["certainty"]) == ("medium", "medium")
    evidence = row["evidence"]
    assert evidence["rest_s"] == pytest.approx(20.0)
    assert (evidence["episode"], evidence["times"], evidence["outcome"]) == (1, 1, "reached")


def test_a_worker_that_rests_for_less_or_tries_in_vain_is_not_at_rest(tmp_path: Path) -> None:
    assert found(hanging(9.9), tmp_path) == {}
    trying = hanging(19).call("fill", 10, 1.0, 256, 0, within="worker")
    assert found(trying, tmp_path) == {}
    # What the OOM notifier took back meanwhile only another target makes it take again.
    done = given_back(Built().target(1, 512, 0).fill(1, 0.1, 256), 1.2)
    assert found(done.fill(1.5, 0.1, 256).ends(30), tmp_path) == {}
    waiting = Built().target(1, 51_200, 0).fill(1, None, 0).ends(30)
    assert found(waiting, tmp_path) == {}


def statistics(*answers: tuple[float, float, float]) -> Built:
    """The host asks for statistics, the driver answers: when, after how long, in how long."""
    built = Built()
    for at, after, took in answers:
        built.call("stats_ask", at, 0, 0, 0, within="", tid=0, comm=b"")
        built.call("stats", at + after, took, 0, 10, within="")
    return built


def test_statistics_that_come_late(tmp_path: Path) -> None:
    row = found(statistics((1, 0.01, 0.01), (3, 6, 0.5), (11, 0, 0.1)).ends(60), tmp_path)
    assert row["stats-stale"]["evidence"]["longest_answer_s"] == 6.5
    assert row["stats-stale"]["certainty"] == "high"


def test_statistics_that_never_come(tmp_path: Path) -> None:
    built = statistics((1, 0.01, 0.01)).call("stats_ask", 3, 0, 0, 0, within="", tid=0, comm=b"")
    row = found(built.ends(60), tmp_path)["stats-stale"]
    assert row["evidence"]["unanswered_s"] == 57
    assert "The last 57.0 s it waited for an answer." in row["summary"]


def test_statistics_in_time_or_not_asked_for_are_no_finding(tmp_path: Path) -> None:
    many = statistics(*((at, 0.01, 1) for at in range(1, 50, 2)))
    for built in (many, statistics((1, 4, 0.9)), statistics(), statistics((59, 2, 1))):
        assert "stats-stale" not in found(built.ends(61), tmp_path)
