# SPDX-License-Identifier: Apache-2.0
"""Each seam fires under a load made to fire it, and its pages are exact."""

from __future__ import annotations

import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from balloontrace.analysis.trace.trace import trace_of
from balloontrace.lab.guest import Guest
from balloontrace.lab.kernels import find_kernel
from balloontrace.lab.loads import (
    MEMORY_BYTES,
    MIB_PAGES,
    SUSPEND_SEAMS,
    TOUR_SEAMS,
    Tour,
    hint,
    move_balloon,
    tour,
)
from balloontrace.recording.reader import Recording, read_recording
from balloontrace.tracers.attach.state import ENDS
from tests.guest.conftest import Recorder, balloon_counters, report_of
from tests.guest.guests import Guests

Fetch = Callable[..., Recording]


def _written(recording: Recording, kind: str) -> int:
    assert recording.trailer is not None
    return int(recording.trailer["counters"][kind]["written"])


@pytest.fixture
def toured(
    stock: Guest, guests: Guests, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Tour, Recording]:
    """A recording of every seam's load, and what happened."""
    return guests.prepared((stock, __name__), lambda: _tour(stock, tmp_path_factory.mktemp("tour")))


def _tour(guest: Guest, directory: Path) -> tuple[Tour, Recording]:
    before = balloon_counters(guest)
    # Compaction writes 60,000 events in 3 s: a reader that the host holds up must not lose any.
    recorder = Recorder(guest, "--ring-kib", "4096", path="/root/tour.btrace")
    happened = tour(guest)
    status, _, said = recorder.stop()
    assert status == 0, said
    after = balloon_counters(guest)
    local = directory / "tour.btrace"
    guest.fetch(recorder.path, local)
    totals = report_of(read_recording(str(local)))["totals"]
    assert totals["inflated_pages"] == after[0] - before[0]
    assert totals["deflated_pages"] == after[1] - before[1]
    return happened, read_recording(str(local))


@pytest.mark.micro
def test_every_seam_fires(toured: tuple[Tour, Recording], kernel: str) -> None:
    _, recording = toured
    assert [seam for seam in TOUR_SEAMS if not _written(recording, seam)] == []
    untraced = {name for name, seam in recording.header["seams"].items() if seam["rung"] is None}
    suspend = set(SUSPEND_SEAMS) if find_kernel(kernel).config else set()
    assert untraced == suspend | {"refuse"}  # it overcommits


@pytest.mark.micro
def test_all_of_it_is_exact(toured: tuple[Tour, Recording]) -> None:
    report = report_of(toured[1])
    assert report["lost_events"] == 0
    assert report["reconciliation"]["agrees"] is True
    assert report["reconciliation"]["exact"] is True
    assert report["totals"]["migrated_pages"] > 0


@pytest.mark.micro
def test_every_cause_of_a_leak_is_told_apart(toured: tuple[Tour, Recording]) -> None:
    report = report_of(toured[1])
    pages: dict[str, int] = {}
    for cause in report["causes"]:
        pages[cause["cause"]] = pages.get(cause["cause"], 0) + cause["pages"]
    assert set(pages) == {"host", "oom", "remove"}
    assert pages["remove"] == 20 * MIB_PAGES
    assert sum(pages.values()) == report["totals"]["deflated_pages"]


@pytest.mark.micro
def test_victims_of_the_oom_killer_are_named(toured: tuple[Tour, Recording]) -> None:
    happened, recording = toured
    kills = trace_of(recording).events("oom_kill")
    memcg = trace_of(recording).marked(kills, "flags", "flags", "memcg")
    assert dict(zip(kills["done"], memcg, strict=True)) == {
        happened.killed_in_cgroup: True,
        happened.killed_globally: False,
    }
    assert trace_of(recording).names("oom_kill")[1] == ["python3"]


@pytest.mark.micro
def test_statistics_are_what_the_host_was_told(toured: tuple[Tour, Recording]) -> None:
    happened, recording = toured
    values = report_of(recording)["statistics"]["values"]
    if recording.header["seams"]["stats"]["loses"]:
        assert values == []
        return
    sent = {value["name"]: value["last"] for value in values}
    ours = {"major-faults", "minor-faults", "free-memory", "total-memory", "available-memory"}
    told = {name.removeprefix("stat-"): value for name, value in happened.statistics.items()}
    assert {name: sent[name] for name in ours} == {name: told[name] for name in ours}
    assert len(sent) == len(told)


@pytest.mark.micro
def test_the_host_is_answered_in_time(toured: tuple[Tour, Recording]) -> None:
    statistics = report_of(toured[1])["statistics"]
    assert statistics["answered"] >= 2
    assert statistics["unanswered_s"] is None
    assert 0 < statistics["median_answer_s"] < 2


@pytest.mark.micro
def test_what_is_reported_is_reported_by_the_worker_of_reporting(
    toured: tuple[Tour, Recording],
) -> None:
    trace = trace_of(toured[1])
    reports, runs = trace.events("report"), trace.events("reporting")
    assert runs["done"].sum() == reports["done"].sum() > 0
    assert set(reports["tid"]) <= set(runs["tid"])


@pytest.mark.micro
def test_free_pages_are_reported_and_hinted(toured: tuple[Tour, Recording]) -> None:
    trace = trace_of(toured[1])
    reports, hints = trace.events("report"), trace.events("hint")
    assert reports["done"].sum() > 16 * MIB_PAGES
    block_pages = 512  # pageblock_order; the kernel reports no smaller block
    assert (reports["done"] % block_pages == 0).all()
    lent = hints["done"][~trace.marked(hints, "flags", "flags", "returned")]
    assert 48 * MIB_PAGES < lent.sum() < MEMORY_BYTES // 4096
    assert trace.events("scan")["done"].sum() > 0


@pytest.mark.micro
def test_pages_that_are_taken_back_while_others_are_lent_count_as_lent(
    stock: Guest, fetch: Fetch
) -> None:
    best = Recorder(stock)
    from_buffers = Recorder(stock, "--rung", "hint=2", path="/root/buffers.btrace")
    hint(stock)
    assert (best.stop()[0], from_buffers.stop()[0]) == (0, 0)
    recording = fetch(stock)
    hinting = report_of(recording)["free_pages"]["hinting"]
    check = report_of(fetch(stock, from_buffers.path))["free_pages"]["hinting"]
    assert hinting["lent_pages"] == check["lent_pages"] > 0
    if not recording.header["seams"]["hint"]["loses"]:
        taken = trace_of(recording).events("scan")["done"].sum()
        assert hinting["lent_pages"] == hinting["returned_pages"] + taken


@pytest.mark.micro
def test_delays_of_tasks_are_in_the_recording(toured: tuple[Tour, Recording]) -> None:
    tids: set[str] = set()
    for sample in toured[1].samples:
        tids |= set(sample.get("delays", ()))
    kswapd, workers = toured[1].header["tasks"]["kswapd"], trace_of(toured[1]).events("fill")["tid"]
    assert {str(tid) for tid in kswapd} <= tids
    assert tids & {str(tid) for tid in workers}


@pytest.mark.micro
def test_out_of_puff_is_seen_as_sleeps_of_the_size_worker(toured: tuple[Tour, Recording]) -> None:
    trace = trace_of(toured[1])
    sleeps = trace.events("sleep")
    # msleep(200) counts jiffies, of which the first is a part: of 4 ms in these kernels. One sleep
    # may be far shorter: jiffies stand still while the vCPU that counts them is not scheduled.
    assert sleeps["duration_ns"].median() >= 196_000_000
    assert trace.marked(sleeps, "within", "within", "worker").all()
    assert trace.events("reclaim")["duration_ns"].sum() > 0


def test_shrinker_driver_is_recognised_and_its_reclaim_counted(
    shrinker: Guest, fetch: Fetch
) -> None:
    recorder = Recorder(shrinker)
    move_balloon(shrinker, 500 * MIB_PAGES)
    shrinker.run("truncate -s 700M /root/cache; cat /root/cache > /dev/null; rm /root/cache")
    status, _, said = recorder.stop()
    assert status == 0, said
    recording = fetch(shrinker)
    report = report_of(recording)
    assert recording.header["balloon"]["driver"]["version"] == "balloontrace-shrinker"
    assert report["guest"]["driver_behaviour"] == "shrinker"
    assert report["reconciliation"]["agrees"] is True
    # A third task in reclaim may go without its return, see test_means.py.
    assert recording.trailer is not None
    assert report["lost_events"] == recording.trailer["returns_missed"]
    by_shrinker = [cause for cause in report["causes"] if cause["cause"] == "shrinker"]
    assert sum(cause["pages"] for cause in by_shrinker) == report["totals"]["deflated_pages"] > 0
    assert _written(recording, "count") > 0
    assert _written(recording, "scan") > 0


@pytest.mark.one_kernel
def test_attaching_while_the_balloon_moves_gives_a_true_bound(stock: Guest, fetch: Fetch) -> None:
    stock.balloon.set_target_pages(600 * MIB_PAGES)
    recorder = Recorder(stock)
    move_balloon(stock, 600 * MIB_PAGES)
    move_balloon(stock, 0)
    assert recorder.stop()[0] == 0
    recording = fetch(stock)
    report = report_of(recording)
    attach = recording.header["vmstat_attach"]
    checked = report["reconciliation"]
    assert checked["agrees"] is True
    moved_meanwhile = attach["before"] != attach["after"]
    assert checked["exact"] is not moved_meanwhile


@pytest.mark.one_kernel
def test_every_call_is_accounted_for_when_the_ring_is_too_small(stock: Guest, fetch: Fetch) -> None:
    recorder = Recorder(stock, "--ring-kib", "4", "--strict")
    stock.kill(recorder.process.pid, signal.SIGSTOP)  # a reader that does not come
    move_balloon(stock, 100 * MIB_PAGES)
    stock.kill(recorder.process.pid, signal.SIGCONT)
    status, _, _ = recorder.stop()
    recording = fetch(stock)
    report = report_of(recording)
    assert status == 4
    assert recording.trailer is not None
    for counts in recording.trailer["counters"].values():
        assert counts["entered"] == sum(counts[end] for end in ENDS)
        assert counts["missed"] == counts["unpaired"] == 0
    fills = recording.trailer["counters"]["fill"]
    assert fills["lost"] > 0
    assert report["totals"]["inflated_pages"] + fills["lost_pages"] == 100 * MIB_PAGES
    assert report["lost_events"] == recording.trailer["lost_events"] > 0
    assert report["reconciliation"]["agrees"] is False
    move_balloon(stock, 0)
