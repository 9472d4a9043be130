"""Each seam fires under a load made to fire it, and its pages are exact."""

from __future__ import annotations

import signal
from collections.abc import Callable

from balloontrace.lab.guest import Guest
from balloontrace.recording import Recording
from tests.guest.conftest import (
    MIB_PAGES,
    Recorder,
    balloon_counters,
    move_balloon,
    report_of,
)

Fetch = Callable[..., Recording]

HOG = (
    "import mmap; size = {mib} << 20; hog = mmap.mmap(-1, size); "
    "[hog.write(b'x' * 4096) for _ in range(size >> 12)]"
)
"""Touches so much memory and ends."""


def _written(recording: Recording, kind: str) -> int:
    assert recording.trailer is not None
    return int(recording.trailer["counters"][kind]["written"])


def test_removing_the_driver_is_a_cause_of_its_own(stock: Guest, fetch: Fetch) -> None:
    move_balloon(stock, 20 * MIB_PAGES)
    recorder = Recorder(stock)
    stock.run("echo $(basename /sys/bus/virtio/drivers/virtio_balloon/virtio*) > /run/device")
    bind = "cat /run/device > /sys/bus/virtio/drivers/virtio_balloon"
    stock.run(f"{bind}/unbind")
    assert recorder.stop()[0] == 0
    stock.run(f"{bind}/bind")
    report = report_of(fetch(stock))
    causes = {cause["cause"]: cause["pages"] for cause in report["causes"]}
    assert causes == {"remove": 20 * MIB_PAGES}
    assert report["reconciliation"]["agrees"] is True
    move_balloon(stock, 0)


def test_oom_notifier_is_seen_and_charged_to_who_needed_memory(stock: Guest, fetch: Fetch) -> None:
    before = balloon_counters(stock)
    recorder = Recorder(stock)
    move_balloon(stock, 600 * MIB_PAGES)
    size_before = stock.balloon.actual_pages()
    stock.run(["python3", "-c", HOG.format(mib=340)], check=False)
    assert recorder.stop()[0] == 0
    after = balloon_counters(stock)
    recording = fetch(stock)
    report = report_of(recording)
    oom = [cause for cause in report["causes"] if cause["cause"] == "oom"]
    assert _written(recording, "oom_notify") > 0
    assert sum(cause["pages"] for cause in oom) == after[1] - before[1] > 0
    assert report["reconciliation"]["agrees"] is True
    assert size_before - stock.balloon.actual_pages() == after[1] - before[1]
    move_balloon(stock, 0)


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
    assert report["lost_events"] == 0
    by_shrinker = [cause for cause in report["causes"] if cause["cause"] == "shrinker"]
    assert sum(cause["pages"] for cause in by_shrinker) == report["totals"]["deflated_pages"] > 0
    assert _written(recording, "count") > 0
    assert _written(recording, "scan") > 0


def test_without_btf_another_rung_counts_the_same(stock: Guest, fetch: Fetch) -> None:
    recorder = Recorder(stock, "--no-btf")
    move_balloon(stock, 77 * MIB_PAGES + 3)
    move_balloon(stock, 0)
    assert recorder.stop()[0] == 0
    recording = fetch(stock)
    report = report_of(recording)
    assert "length of its buffer" in recording.header["seams"]["ack"]["rung"]
    assert report["reconciliation"]["agrees"] is True
    assert report["reconciliation"]["exact"] is True
    assert report["totals"]["inflated_pages"] == 77 * MIB_PAGES + 3
    assert [episode["outcome"] for episode in report["episodes"]] == ["reached", "reached"]


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
        seen = sum(counts[n] for n in ("written", "lost", "untracked", "open", "unpaired"))
        assert counts["entered"] == seen
    fills = recording.trailer["counters"]["fill"]
    assert fills["lost"] > 0
    assert report["totals"]["inflated_pages"] + fills["lost_pages"] == 100 * MIB_PAGES
    assert report["lost_events"] == recording.trailer["lost_events"] > 0
    assert report["reconciliation"]["agrees"] is False
    move_balloon(stock, 0)
