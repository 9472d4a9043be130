# SPDX-License-Identifier: Apache-2.0
"""Every means of attachment counts the same, proves itself, and loses no cause at the end."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from balloontrace.analysis.trace.trace import trace_of
from balloontrace.lab.guest import Guest
from balloontrace.lab.loads import MEMORY_BYTES, MIB_PAGES, load, move_balloon, unload
from balloontrace.lab.qemu import GuestConfig
from balloontrace.recording.reader import Recording
from balloontrace.tracers.attach.means import MEANS
from balloontrace.tracers.attach.state import ENDS
from balloontrace.tracers.attach.switches import FTRACE, KPROBES
from balloontrace.tracers.load.untraceable import INSTEAD
from tests.guest.conftest import REMOTE, Recorder, balloon_counters, report_of
from tests.guest.guests import Guests

Fetch = Callable[..., Recording]

PAGES = 77 * MIB_PAGES + 3
RECORD = "balloontrace record -f -d 1s -o /root/no"

HAVE = {
    "5.10": {"kprobe"},
    "6.1": {"kprobe", "fentry"},
    "6.12": {"kprobe.multi", "kprobe", "fentry"},
    "7.2": {"kprobe.multi", "kprobe", "fentry"},
    "micro": {"fentry"},
}
"""What each kernel of the lab has: kprobe.multi since 5.18, but Debian's 6.1 is built without
CONFIG_FPROBE; fentry of the driver's functions where its module carries BTF."""

TARGET_UNKNOWN = ("7.2", "fentry")
"""BTF made by pahole 1.30 or newer leaves out functions whose name others have, as vp_get."""


@pytest.mark.micro
@pytest.mark.parametrize("means", [means.name for means in MEANS])
def test_each_means_counts_the_same(stock: Guest, fetch: Fetch, kernel: str, means: str) -> None:
    if means not in HAVE[kernel]:
        done = stock.run(f"{RECORD} --means {means}", check=False)
        assert done.returncode == 3
        assert f"{means}: " in done.stderr
        assert len(done.stderr.splitlines()) == 1
        return
    move_balloon(stock, 0)
    before = balloon_counters(stock)
    recorder = Recorder(stock, "--means", means)
    move_balloon(stock, PAGES)
    move_balloon(stock, 0)
    assert recorder.stop()[0] == 0
    after = balloon_counters(stock)
    recording = fetch(stock)
    report = report_of(recording)
    assert recording.header["means"]["used"] == means
    assert report["reconciliation"]["exact"] is True
    assert report["totals"]["inflated_pages"] == after[0] - before[0] == PAGES
    assert report["totals"]["deflated_pages"] == after[1] - before[1] == PAGES
    if (kernel, means) == TARGET_UNKNOWN:
        assert report["not_recorded"]["episodes"][0].startswith("target (config read by")
    else:
        assert [episode["target_pages"] for episode in report["episodes"]] == [PAGES, 0]
    assert recording.trailer is not None
    assert recording.trailer["returns_missed"] == recording.trailer["kernel_missed"] == 0
    for counts in recording.trailer["counters"].values():
        assert counts["entered"] == sum(counts[end] for end in ENDS)


@pytest.mark.micro
def test_the_best_means_is_taken(stock: Guest, fetch: Fetch, kernel: str) -> None:
    recorder = Recorder(stock)
    assert recorder.stop()[0] == 0
    header = fetch(stock).header
    best = next(name for name in ("kprobe.multi", "kprobe", "fentry") if name in HAVE[kernel])
    assert header["means"]["used"] == best
    assert bool(header["means"]["not"]) is (best != "kprobe.multi")


@pytest.mark.oldest_and_newest
def test_a_driver_that_its_links_hold_is_not_unloaded(
    stock: Guest, fetch: Fetch, kernel: str
) -> None:
    if "kprobe.multi" not in HAVE[kernel]:
        return  # test_driver.py unloads it
    move_balloon(stock, 0)
    recorder = Recorder(stock)
    done = stock.run("rmmod virtio_balloon", check=False)
    move_balloon(stock, PAGES)
    assert recorder.stop()[0] == 0
    assert "virtio_balloon is in use" in done.stderr
    assert report_of(fetch(stock))["reconciliation"]["exact"] is True
    move_balloon(stock, 0)
    unload(stock)
    load(stock)


@contextmanager
def _switched_off(guest: Guest, switch: str) -> Iterator[None]:
    guest.run("mountpoint -q /sys/kernel/debug || mount -t debugfs none /sys/kernel/debug")
    guest.run(f"echo 0 > {switch}")
    try:
        yield
    finally:
        guest.run(f"echo 1 > {switch}")


@pytest.fixture
def own(kernel: str, guests: Guests) -> Iterator[Guest]:
    """A guest in which ftrace can be switched off: no other test should meet it again."""
    with guests.own(GuestConfig(kernel, memory_bytes=MEMORY_BYTES)) as guest:
        yield guest


@pytest.mark.one_kernel
def test_probes_that_are_switched_off_are_not_attached(own: Guest, kernel: str) -> None:
    for switch, remedy in (
        (KPROBES, "echo 1 > /sys/kernel/debug/kprobes/enabled"),
        (FTRACE, "sysctl kernel.ftrace_enabled=1"),
    ):
        with _switched_off(own, switch):
            recorded = own.run(f"{RECORD} --means kprobe", check=False)
            diagnosed = own.run("balloontrace doctor --json", check=False)
        assert recorded.returncode == 3
        assert recorded.stderr.endswith(f"kprobe: switched off; {remedy}; or {INSTEAD}\n")
        # The other means are ftrace's, and do not mind what kprobes are switched to.
        unharmed = switch == KPROBES and HAVE[kernel] != {"kprobe"}
        assert diagnosed.returncode == (0 if unharmed else 3)
        why = json.loads(diagnosed.stdout)["why"]
        assert why == "" if unharmed else why.endswith(f"{remedy}; or {INSTEAD}")


@pytest.mark.one_kernel
def test_probes_that_do_not_fire_are_noticed(own: Guest, fetch: Fetch) -> None:
    recorder = Recorder(own, "--means", "kprobe")
    with _switched_off(own, KPROBES):
        own.run("umount /sys/kernel/debug")  # the switch is out of sight
        recorded = own.run(f"{RECORD} --means kprobe", check=False)
        move_balloon(own, 4 * MIB_PAGES)
        status, _, said = recorder.stop()
        own.run("mount -t debugfs none /sys/kernel/debug")
    assert recorded.returncode == 3
    assert "attaches probes, but they do not fire" in recorded.stderr
    assert len(recorded.stderr.splitlines()) == 1
    assert status == 0
    assert "the probes no longer fire" in said
    recording = fetch(own)
    assert recording.trailer is not None
    assert recording.trailer["proof"] == {"begin": True, "end": False}
    assert report_of(recording)["reconciliation"]["agrees"] is False


@pytest.mark.oldest_and_newest
def test_a_storm_that_is_cut_off_keeps_every_cause(shrinker: Guest, fetch: Fetch) -> None:
    move_balloon(shrinker, 500 * MIB_PAGES)
    shrinker.run("truncate -s 900M /root/cache")
    reader = shrinker.popen(["sh", "-c", "while cat /root/cache; do :; done > /dev/null"])
    recorder = Recorder(shrinker, "--ring-kib", "4096")
    shrinker.balloon.set_target_pages(600 * MIB_PAGES)
    _await_leaks(shrinker)
    assert recorder.stop()[0] == 0
    shrinker.run("pkill -f 'while [c]at'")
    reader.communicate()
    shrinker.run("rm /root/cache")
    recording = fetch(shrinker)
    report = report_of(recording)
    assert recording.trailer is not None
    for counts in recording.trailer["counters"].values():
        assert counts["unpaired"] == counts["untracked"] == counts["lost"] == 0
    # A third task in reclaim is one more than a return probe has instances for, on two CPUs.
    missed = recording.trailer["returns_missed"]
    assert report["lost_events"] == missed
    assert missed == 0 or recording.header["means"]["used"] == "kprobe"
    assert report["reconciliation"]["agrees"] is True
    assert {cause["cause"] for cause in report["causes"]} == {"shrinker"}
    assert trace_of(recording).events("leak")["done"].sum() > 0
    move_balloon(shrinker, 0)


READERS = 16
"""Far more tasks in reclaim than a kernel without preemption has instances of a return probe: as
many as CPUs, two here."""


@pytest.mark.one_kernel
def test_returns_that_the_kernel_misses_are_counted_and_cost_no_cause(
    shrinker: Guest, fetch: Fetch
) -> None:
    move_balloon(shrinker, 500 * MIB_PAGES)
    shrinker.run("truncate -s 900M /root/cache")
    program = "for i in $(seq %d); do while cat /root/cache; do :; done > /dev/null & done; wait"
    recorder = Recorder(shrinker, "--means", "kprobe", "--ring-kib", "4096")
    readers = shrinker.popen(["sh", "-c", program % READERS])
    shrinker.balloon.set_target_pages(600 * MIB_PAGES)
    _await_leaks(shrinker, 128)
    assert recorder.stop()[0] == 0
    shrinker.run("pkill -f 'while [c]at'; pkill cat")
    readers.communicate()
    shrinker.run("rm /root/cache")
    recording = fetch(shrinker)
    assert recording.trailer is not None
    for counts in recording.trailer["counters"].values():
        assert counts["entered"] == sum(counts[end] for end in ENDS)
        assert counts["unpaired"] == counts["untracked"] == counts["lost"] == 0
    report = report_of(recording)
    assert report["reconciliation"]["agrees"] is True
    assert {cause["cause"] for cause in report["causes"]} == {"shrinker"}
    move_balloon(shrinker, 0)


def _await_leaks(guest: Guest, mib: int = 32) -> None:
    """Until the shrinker has taken so much back, in the middle of more."""
    begun = balloon_counters(guest)[1]
    deadline = time.monotonic() + 120
    while balloon_counters(guest)[1] < begun + mib * MIB_PAGES:
        assert time.monotonic() < deadline, "the shrinker does not take anything back"


@pytest.mark.one_kernel
def test_in_a_pid_namespace_actors_are_those_the_kernel_sees(shrinker: Guest, fetch: Fetch) -> None:
    move_balloon(shrinker, 500 * MIB_PAGES)
    record = ["balloontrace", "record", "-f", "-o", REMOTE, "--"]
    shrinker.run("truncate -s 700M /root/cache")
    load = ["sh", "-c", "nsenter -t 1 -p cat /root/cache > /dev/null; true"]
    inside = ["unshare", "--pid", "--fork", "--mount-proc", *record, *load]
    done = shrinker.run(inside, check=False)
    assert done.returncode == 0, done.stderr
    shrinker.run("rm /root/cache")
    recording = fetch(shrinker)
    report = report_of(recording)
    assert recording.header["tasks"]["recorder"] > 10
    actors = {cause["actor"] for cause in report["causes"] if cause["cause"] == "shrinker"}
    assert "kswapd" in actors
    assert "recorder" not in actors
    move_balloon(shrinker, 0)


@pytest.mark.one_kernel
def test_a_device_as_the_output_is_left_alone(stock: Guest) -> None:
    look = "stat -c %F /dev/null; stat -c %i /root/own; ls /root/new || true"
    before = stock.run(f"touch /root/own; {look}").stdout
    for path in ("/dev/null", "/root/own", "/root/new"):
        done = stock.run(f"balloontrace record --means none -f -d 1s -o {path}", check=False)
        assert done.returncode == 3
    assert stock.run(look).stdout == before
