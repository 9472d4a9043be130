# SPDX-License-Identifier: Apache-2.0
"""`balloontrace watch` in real guests: what it counts, keeps, and tells a real Prometheus."""

from __future__ import annotations

import signal
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from balloontrace.events import BALLOON_PAGE_BYTES
from balloontrace.lab.guest import Guest
from balloontrace.lab.loads import MIB_PAGES, kill_in_cgroup, move_balloon
from balloontrace.lab.record import start_and_wait
from balloontrace.recording.reader import Recording
from tests.guest.conftest import balloon_counters, report_of
from tests.guest.scraper import Prometheus
from tests.unit.watch.prometheus import Series, series_of

Fetch = Callable[..., Recording]

KEPT = "/root/kept"
READY = "/run/balloontrace.watch.ready"
PORT = 9758
READS_FOR_EVER = "while :; do cat /root/cache > /dev/null; done"
MOST_RSS = 16 << 20
RUNS_FOR = "time() - process_start_time_seconds"
MOVED = 'sum(balloontrace_moved_bytes_total{{direction="{}"}})'


class Watcher:
    """`balloontrace watch` running in a guest, attached."""

    def __init__(self, guest: Guest, *arguments: str) -> None:
        self.guest = guest
        command = ["balloontrace", "watch", "--listen", f"0.0.0.0:{PORT}", "--dir", KEPT]
        self.process, attached = start_and_wait(guest, [*command, *arguments], READY)
        if not attached:
            pytest.fail(f"the watcher did not start: {self.process.communicate()}")

    def stop(self, number: signal.Signals = signal.SIGTERM) -> tuple[int, str]:
        """End it by a signal; returns (status, stderr)."""
        self.process.send_signal(number)
        status, _, said = self.process.communicate()
        return status, said

    def kept(self, pattern: str) -> list[str]:
        """Paths in its directory, in order."""
        return self.guest.run(f"ls -d {KEPT}/{pattern} 2>/dev/null || true").stdout.split()

    def await_one(self, pattern: str) -> str:
        """The path of the first that is there."""
        self.guest.run(f"until ls -d {KEPT}/{pattern} >/dev/null 2>&1; do sleep 0.2; done")
        return self.kept(pattern)[0]

    def rss_bytes(self) -> int:
        """Its resident memory at most."""
        status = self.guest.run(["cat", f"/proc/{self.process.pid}/status"]).stdout
        fields = dict(line.split(":", 1) for line in status.splitlines())
        return int(fields["VmHWM"].split()[0]) * 1024


@pytest.fixture
def empty(stock: Guest) -> Iterator[Guest]:
    """A guest in which nothing is kept, and nothing was taken."""
    stock.run(["rm", "-rf", KEPT])
    move_balloon(stock, 0)
    yield stock
    move_balloon(stock, 0)


def scraped(guest: Guest, port: int) -> Series:
    """What a watcher in the guest tells, by a port of the host's."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=60) as answer:
        return series_of(answer.read())


def value(series: Series, name: str, **labels: str) -> float:
    """One of them."""
    return series[name, frozenset(labels.items())]


def moved(series: Series) -> tuple[float, float]:
    """Balloon pages in and out."""
    ways = [
        sum(number for (name, labels), number in series.items()
            if name == "balloontrace_moved_bytes_total" and ("direction", way) in labels)
        for way in ("in", "out")
    ]  # fmt: skip
    return ways[0] / BALLOON_PAGE_BYTES, ways[1] / BALLOON_PAGE_BYTES


@pytest.mark.oldest_and_newest
@pytest.mark.micro
def test_without_events_it_counts_to_the_page(empty: Guest) -> None:
    port = empty.monitor.forward(PORT)
    watcher = Watcher(empty, "--keep", "0")
    before = balloon_counters(empty)
    move_balloon(empty, 200 * MIB_PAGES + 7)
    move_balloon(empty, 40 * MIB_PAGES)
    after = balloon_counters(empty)
    series = scraped(empty, port)
    while value(series, "balloontrace_size_bytes") != 40 << 20:  # of the next look
        series = scraped(empty, port)
    assert moved(series) == (200 * MIB_PAGES + 7, 160 * MIB_PAGES + 7)
    assert moved(series) == (after[0] - before[0], after[1] - before[1])
    assert value(series, "balloontrace_attached") == 1
    assert value(series, "balloontrace_target_bytes") == 40 << 20
    leaks = value(series, "balloontrace_leaks_total", cause="host")
    assert leaks == value(series, "balloontrace_calls_total", kind="leak")
    assert leaks == value(series, "balloontrace_call_duration_seconds_count", kind="leak") > 160
    acks = value(series, "balloontrace_host_ack_duration_seconds_count", queue="inflate")
    assert acks == value(series, "balloontrace_calls_total", kind="fill")
    lost = [series[key] for key in series if key[0] == "balloontrace_lost_calls_total"]
    assert lost == [0, 0, 0]
    while ("balloontrace_vmstat_agrees", frozenset()) not in series:
        series = scraped(empty, port)
    assert value(series, "balloontrace_vmstat_agrees") == 1
    assert watcher.rss_bytes() <= MOST_RSS
    assert watcher.kept("*") == []
    assert watcher.stop()[0] == 0


@pytest.mark.oldest_and_newest
def test_what_was_asked_for_is_kept_with_what_led_to_it(
    empty: Guest, kernel: str, fetch: Fetch
) -> None:
    watcher = Watcher(empty, "--after", "2s", "--keep", "1M")
    before = balloon_counters(empty)
    move_balloon(empty, 100 * MIB_PAGES + 3)
    said = []
    if kernel == "5.10":
        watcher.process.send_signal(signal.SIGUSR1)
    else:
        empty.run(["balloontrace", "mark", "--dump", "it is slow"])
        said = ["it is slow"]
    dump = watcher.await_one("dump-*-asked.btrace")
    after = balloon_counters(empty)
    move_balloon(empty, 0)
    segments = watcher.kept("segment-*")
    assert watcher.stop()[0] == 0

    recording = fetch(empty, dump)
    (fired,) = recording.header["watch"]["fired"]
    assert fired["finding"] == "asked"
    report = report_of(recording)
    assert report["complete"] is True
    assert report["totals"]["inflated_pages"] == after[0] - before[0] == 100 * MIB_PAGES + 3
    assert report["reconciliation"]["exact"] is True
    assert sorted(mark["text"] for mark in report["marks"]) == [*said, "watch: asked"]
    assert report["duration_s"] >= 2
    assert report["findings"] == []

    assert len(segments) == 2
    emptied = report_of(fetch(empty, segments[1]))
    assert emptied["totals"]["deflated_pages"] == 100 * MIB_PAGES + 3
    assert emptied["totals"]["inflated_pages"] == 0
    assert emptied["reconciliation"]["exact"] is True
    (episode,) = emptied["episodes"]
    assert (episode["target_pages"], episode["outcome"]) == (0, "reached")


@pytest.mark.one_kernel
def test_a_watcher_that_is_killed_loses_nothing_that_was_kept(empty: Guest, fetch: Fetch) -> None:
    watcher = Watcher(empty)
    before = balloon_counters(empty)
    move_balloon(empty, 100 * MIB_PAGES)
    moved_pages = balloon_counters(empty)[0] - before[0]
    # What is synced is in the file: it need not be closed.
    size = f"$(stat -c %s {KEPT}/segment-00000000.btrace)"
    empty.run(f"first={size}; until [ {size} -gt $first ]; do sleep 0.2; done")
    watcher.stop(signal.SIGKILL)
    again = Watcher(empty)
    recording = fetch(empty, again.await_one("dump-*-restart.btrace"))
    assert again.stop()[0] == 0
    assert recording.trailer is None
    assert report_of(recording)["totals"]["inflated_pages"] == moved_pages == 100 * MIB_PAGES


@pytest.mark.one_kernel
def test_neither_a_full_disk_nor_the_oom_killer_ends_it(empty: Guest, fetch: Fetch) -> None:
    port = empty.monitor.forward(PORT)
    empty.run(f"mkdir -m 700 {KEPT}; mount -t tmpfs -o size=3M,mode=700 none {KEPT}")
    empty.run(f"dd if=/dev/zero of={KEPT}/others bs=64k 2>/dev/null || true")
    watcher = Watcher(empty, "--keep", "1M", "--after", "1s")
    watcher.process.send_signal(signal.SIGUSR1)  # of which there is nothing to keep
    move_balloon(empty, 100 * MIB_PAGES)
    series = scraped(empty, port)
    while not value(series, "balloontrace_unkept_total", what="events"):
        series = scraped(empty, port)
    assert value(series, "balloontrace_kept_bytes") == 0
    assert moved(series) == (100 * MIB_PAGES, 0)

    empty.run(f"rm {KEPT}/others")
    watcher.await_one("segment-*")
    killed = kill_in_cgroup(empty)
    dump = watcher.await_one("dump-*-oom-kill.btrace")
    series = scraped(empty, port)
    assert value(series, "balloontrace_findings_total", finding="oom-kill") == 1
    assert value(series, "balloontrace_dumps_total", finding="oom-kill") == 1
    assert value(series, "balloontrace_dumps_total", finding="asked") == 0
    assert watcher.rss_bytes() <= MOST_RSS
    status, said = watcher.stop()
    assert status == 0
    assert "nothing is kept until there are" in said
    report = report_of(fetch(empty, dump))
    assert [one["finding"] for one in report["kept_for"]] == ["oom-kill"]
    assert [victim["victim_pid"] for victim in report["oom"]["kills"]] == [killed]
    empty.run(["umount", KEPT])


@pytest.mark.one_kernel
def test_a_driver_that_goes_and_comes_is_told_of_and_watched_again(
    empty: Guest, fetch: Fetch
) -> None:
    port = empty.monitor.forward(PORT)
    watcher = Watcher(empty, "--means", "kprobe", "--after", "2s")
    before = balloon_counters(empty)
    move_balloon(empty, 50 * MIB_PAGES)
    empty.run("rmmod virtio_balloon")
    gone = balloon_counters(empty)
    dump = watcher.await_one("dump-*-driver-gone.btrace")
    assert value(scraped(empty, port), "balloontrace_attached") == 0
    empty.run("modprobe virtio_balloon")
    while not value(series := scraped(empty, port), "balloontrace_attached"):
        pass
    # What it took before it was traced, for the host's target has stayed, is in no sum.
    traced = balloon_counters(empty)
    move_balloon(empty, 80 * MIB_PAGES)
    after = balloon_counters(empty)
    while value(series := scraped(empty, port), "balloontrace_size_bytes") != 80 << 20:
        pass
    taken_in = moved(series)[0]
    assert gone[0] - before[0] == 50 * MIB_PAGES
    assert gone[0] - before[0] + after[0] - traced[0] <= taken_in <= after[0] - before[0]
    assert watcher.stop()[0] == 0
    report = report_of(fetch(empty, dump))
    assert [one["finding"] for one in report["kept_for"]] == ["driver-gone"]
    assert report["totals"]["inflated_pages"] == 50 * MIB_PAGES


@pytest.mark.one_kernel
def test_the_no_op_is_told_to_prometheus_while_it_happens(
    shrinker: Guest, fetch: Fetch, tmp_path: Path
) -> None:
    """The founding experiment's driver, and everything that is between it and who is called."""
    shrinker.run(f"rm -rf {KEPT}; truncate -s 700M /root/cache")
    move_balloon(shrinker, 0)
    watcher = Watcher(shrinker, "--after", "20s")
    before = balloon_counters(shrinker)
    with Prometheus(tmp_path, shrinker.monitor.forward(PORT)) as prometheus:
        prometheus.await_value(RUNS_FOR, lambda seconds: seconds > 65)
        reader = shrinker.popen(["sh", "-c", READS_FOR_EVER])
        shrinker.balloon.set_target_pages(700 * MIB_PAGES)
        prometheus.await_alert(finding="busy-no-op")
        dump = watcher.await_one("dump-*-busy-no-op.btrace")
        reader.kill_group()
        reader.communicate()
        shrinker.run("rm /root/cache")
        move_balloon(shrinker, 0)
        after = balloon_counters(shrinker)
        for way, now, then in zip(("in", "out"), after, before, strict=True):
            wanted = float((now - then) * BALLOON_PAGE_BYTES)
            prometheus.await_value(MOVED.format(way), wanted.__eq__)
        prometheus.await_value("balloontrace_vmstat_agrees", (1.0).__eq__)
    status, said = watcher.stop()
    assert status == 0, said
    report = report_of(fetch(shrinker, dump))
    first, *_ = report["marks"]
    assert first["text"] == "watch: busy-no-op"
    assert first["at_s"] >= 60
    assert "busy-no-op" in [finding["id"] for finding in report["findings"]]
    assert report["reconciliation"]["agrees"] is True
    assert report["lost_events"] == 0
