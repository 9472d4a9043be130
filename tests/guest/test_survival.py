# SPDX-License-Identifier: Apache-2.0
"""A recording survives what befalls its guest, and says so where it cannot."""

from __future__ import annotations

import signal
import subprocess
import time
from collections.abc import Callable

import pytest

from balloontrace.lab.guest import Guest
from balloontrace.lab.loads import MIB_PAGES, move_balloon
from balloontrace.recording.reader import Recording
from tests.guest.conftest import Recorder, report_of

Fetch = Callable[..., Recording]

BPF, PERFMON, SYSLOG, SYS_ADMIN, IPC_LOCK, NET_ADMIN, KILL = 39, 38, 34, 21, 14, 12, 5
"""include/uapi/linux/capability.h"""

CANNOT_GO_ON = "what was recorded before is kept"


def capabilities(guest: Guest, pid: int | str) -> set[int]:
    """The capabilities of a process in a guest."""
    status = guest.run(f"cat /proc/{pid}/status").stdout
    mask = int(status.partition("CapEff:")[2].split()[0], 16)
    return {bit for bit in range(mask.bit_length()) if mask >> bit & 1}


@pytest.mark.oldest_and_newest
def test_a_recorder_keeps_only_the_privileges_it_needs(stock: Guest, fetch: Fetch) -> None:
    move_balloon(stock, 0)
    command = ("sh", "-c", "cat /proc/self/status; exec sleep 1000")
    recorder = Recorder(stock, "--means", "kprobe", "--", *command)
    while "CapEff" not in (line := recorder.process.stdout.readline().decode()):
        pass
    assert int(line.split()[1], 16) >> SYSLOG  # the command has what the user has
    pid = recorder.process.pid
    stock.run(f"until grep -q 'NoNewPrivs:.*1' /proc/{pid}/status; do sleep 0.1; done")
    # Debian's kernels let only SYS_ADMIN attach probes, as long as they are not told otherwise.
    assert capabilities(stock, pid) - {SYS_ADMIN} == {BPF, PERFMON, SYSLOG, IPC_LOCK, KILL}
    netlink = stock.run("pgrep -f balloontrace.tracers.record.netlink").stdout.strip()
    stock.run(f"until grep -q 'CapEff:.*1000$' /proc/{netlink}/status; do sleep 0.1; done")
    assert capabilities(stock, netlink) == {NET_ADMIN}
    move_balloon(stock, 8 * MIB_PAGES)
    # It attaches again with what it has kept.
    stock.run("rmmod virtio_balloon && modprobe virtio_balloon")
    move_balloon(stock, 8 * MIB_PAGES)
    recorder.await_state("attached")
    assert recorder.stop()[0] == 0
    recording = fetch(stock)
    states = [sample["driver"]["state"] for sample in recording.samples if "driver" in sample]
    assert states == ["gone", "attached"]
    move_balloon(stock, 0)


@pytest.mark.one_kernel
def test_two_capabilities_will_do_instead_of_root(stock: Guest, fetch: Fetch) -> None:
    move_balloon(stock, 0)
    stock.run("install -d -o nobody /tmp/nobody; sysctl -qw kernel.perf_event_paranoid=2")
    setpriv = "setpriv --reuid=nobody --clear-groups --inh-caps=-all,+bpf,+perfmon"
    as_nobody = f"{setpriv} --ambient-caps=-all,+bpf,+perfmon"
    enter = "cd /tmp/nobody; ulimit -l unlimited"
    command = f"{enter}; exec {as_nobody} balloontrace record -o r.btrace"
    recorder = stock.popen(["sh", "-c", command], stderr=subprocess.STDOUT)
    while b"tracing the balloon" not in (line := recorder.stdout.readline()):
        assert line, recorder.communicate()
    move_balloon(stock, 16 * MIB_PAGES)
    move_balloon(stock, 0)
    recorder.send_signal(signal.SIGINT)
    assert recorder.communicate()[0] == 0
    recording = fetch(stock, "/tmp/nobody/r.btrace")
    report = report_of(recording)
    stock.run("rm -r /tmp/nobody; sysctl -qw kernel.perf_event_paranoid=3")
    assert report["totals"]["inflated_pages"] == 16 * MIB_PAGES
    assert report["reconciliation"]["exact"] is True


@pytest.mark.one_kernel
def test_with_nohup_a_closed_terminal_ends_nothing(stock: Guest, fetch: Fetch) -> None:
    move_balloon(stock, 0)
    command = "trap '' HUP; exec balloontrace record -f -o /root/nohup.btrace"
    recorder = stock.popen(["sh", "-c", command], stderr=subprocess.STDOUT)
    while b"tracing the balloon" not in (line := recorder.stdout.readline()):
        assert line, recorder.communicate()
    recorder.send_signal(signal.SIGHUP)
    move_balloon(stock, 16 * MIB_PAGES)
    recorder.send_signal(signal.SIGTERM)
    assert recorder.communicate()[0] == 0
    recording = fetch(stock, "/root/nohup.btrace")
    assert (recording.trailer or {})["reason"] == "terminated"
    assert report_of(recording)["totals"]["inflated_pages"] == 16 * MIB_PAGES
    move_balloon(stock, 0)


@pytest.mark.one_kernel
def test_a_full_disk_ends_a_recording_and_keeps_what_was_written(
    stock: Guest, fetch: Fetch
) -> None:
    move_balloon(stock, 0)
    stock.run("mkdir -p /mnt/full; mount -t tmpfs -o size=32k none /mnt/full")
    recorder = Recorder(stock, path="/mnt/full/r.btrace")
    size = stock.run(f"stat -c %s {recorder.path}").stdout.strip()
    move_balloon(stock, 4 * MIB_PAGES)
    stock.run(f"until [ $(stat -c %s {recorder.path}) -gt {size} ]; do sleep 0.1; done")
    stock.run("dd if=/dev/zero of=/mnt/full/rest bs=4k", check=False)
    move_balloon(stock, 500 * MIB_PAGES)  # more events than what is left of a page holds
    status, _, said = recorder.process.communicate()
    recording = fetch(stock, recorder.path)
    stock.run("umount /mnt/full")
    assert status == 1
    last = said.splitlines()[-1]
    assert last.startswith("balloontrace: cannot go on writing /mnt/full/r.btrace: No space left")
    assert last.endswith(CANNOT_GO_ON)
    assert not recording.complete
    assert report_of(recording)["episodes"][0]["inflated_pages"] == 4 * MIB_PAGES
    assert stock.run("cat /sys/kernel/debug/kprobes/list").stdout == ""


@pytest.mark.one_kernel
def test_a_reader_that_goes_away_ends_a_recording(stock: Guest) -> None:
    done = stock.run("balloontrace record -o - | head -c 8 > /dev/null", check=False)
    assert done.stderr.splitlines()[-1] == (
        f"balloontrace: cannot go on writing -: Broken pipe; {CANNOT_GO_ON}"
    )


@pytest.mark.one_kernel
def test_a_disk_that_takes_nothing_is_said_at_once(stock: Guest) -> None:
    stock.run("mkdir -p /mnt/ro; mount -t tmpfs -o ro none /mnt/ro")
    done = stock.run("balloontrace record -d 1s -o /mnt/ro/r.btrace", check=False)
    stock.run("umount /mnt/ro")
    assert done.returncode == 1
    assert done.stderr == "balloontrace: cannot write /mnt/ro/r.btrace: Read-only file system\n"


@pytest.mark.oldest_and_newest
def test_a_guest_that_stops_loses_a_cpu_and_sets_its_clock_is_recorded_whole(
    stock: Guest, fetch: Fetch
) -> None:
    move_balloon(stock, 0)
    recorder = Recorder(stock)
    stock.balloon.set_target_pages(400 * MIB_PAGES)
    stock.monitor.execute("stop")
    stock.monitor.execute("cont")
    stock.run("date -s '2031-01-01' > /dev/null; echo 0 > /sys/devices/system/cpu/cpu1/online")
    move_balloon(stock, 400 * MIB_PAGES)
    stock.run("date -s '2021-01-01' > /dev/null; echo 1 > /sys/devices/system/cpu/cpu1/online")
    move_balloon(stock, 0)
    stock.run(f"date -s @{time.time():.0f} > /dev/null")
    status, _, said = recorder.stop()
    assert status == 0, said
    recording = fetch(stock)
    report = report_of(recording)
    sampled = [sample["t_ns"] for sample in recording.samples if "vmstat" in sample]
    assert sampled == sorted(sampled)
    assert report["lost_events"] == 0
    assert report["duration_s"] < 600
    assert report["totals"]["inflated_pages"] == 400 * MIB_PAGES
    assert report["reconciliation"]["exact"] is True
