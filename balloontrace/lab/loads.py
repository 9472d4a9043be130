# SPDX-License-Identifier: Apache-2.0
"""Loads that make each seam of the driver fire, in a guest of `MEMORY_BYTES`.

The guest tests use them, and the tour that the support matrix is made from. Each leaves the guest
as it was but for the balloon's size, and raises UserError if the guest does not do what it should.
"""

from __future__ import annotations

import shlex
import time
from collections.abc import Callable
from dataclasses import dataclass
from signal import SIGKILL
from subprocess import PIPE

from balloontrace.errors import UserError
from balloontrace.lab import hog, pauses
from balloontrace.lab.guest import Guest

MEMORY_BYTES = 1 << 30
MIB_PAGES = 256
SETTLE_S = 60.0
_POLL_S = 0.05
_REST_S = 3.0  # an emulated guest on a busy host may gain nothing for a second, with memory left

TOUR_SEAMS = (
    *("fill", "leak", "ack", "target", "notice", "migrate", "count", "scan", "oom_notify"),
    *("report", "reporting", "hint", "sleep", "reclaim", "kswapd_wake", "oom_kill"),
    *("stats_ask", "stats", "bind", "remove"),
)
"""The seams that fire on a `tour`: all but SUSPEND_SEAMS; `compact`, which single pages never
cause; and `refuse`, which a guest that overcommits does not have."""

SUSPEND_SEAMS = ("freeze", "restore")

_CGROUP = "/sys/fs/cgroup/balloontrace"
_DRIVER = "/sys/bus/virtio/drivers/virtio_balloon"


@dataclass(frozen=True)
class Tour:
    """What happened on a tour. statistics: of the guest, as the host was told them; process ids of
    the two tasks that the OOM killer chose."""

    statistics: dict[str, int]
    killed_in_cgroup: int
    killed_globally: int


def tour(guest: Guest) -> Tour:
    """Make the seams of TOUR_SEAMS fire, in a guest with deflate-on-oom, hinting and reporting.

    Ends with an empty balloon. The driver is unbound, but stays loaded.
    """
    migrate(guest)
    report(guest)
    hint(guest)
    statistics = ask_for_statistics(guest)
    # Before any OOM: after one, kswapd may have given up (kswapd_failures), and nobody wakes it.
    out_of_puff(guest)
    oom_notify(guest)
    happened = Tour(statistics, kill_in_cgroup(guest), kill_globally(guest))
    rebind(guest)
    move_balloon(guest, 0)
    return happened


def move_balloon(guest: Guest, pages: int) -> None:
    """Set the balloon's size through QMP and wait until QEMU reports it as reached.

    The worker reports a size after its last page has moved, so the counters are final then.
    """
    balloon = guest.balloon
    balloon.set_target_pages(pages)
    _until(lambda: balloon.actual_pages() == pages, f"the balloon does not reach {pages} pages")


def migrate(guest: Guest) -> None:
    """Pages of the balloon lie between those of a file; the file goes, compaction moves them."""
    guest.run("truncate -s 400M /root/cache")
    for part in range(8):
        guest.run(f"dd if=/root/cache of=/dev/null bs=1M skip={50 * part} count=50 status=none")
        move_balloon(guest, 48 * MIB_PAGES * (part + 1))
    guest.run("rm /root/cache; echo 3 > /proc/sys/vm/drop_caches")
    guest.run("echo 1 > /proc/sys/vm/compact_memory")


def ask_for_statistics(guest: Guest) -> dict[str, int]:
    """The host asks for the guest's statistics once a second; returns what it was told."""
    begun = time.time()
    with guest.balloon.polling(1):
        _until(
            # The first that QEMU takes was sent when the driver took the device.
            lambda: guest.balloon.statistics_at() > begun + 1,
            "the guest does not send statistics",
        )
    return guest.balloon.statistics()


def oom_notify(guest: Guest) -> None:
    """A task needs memory that only the balloon has; nobody is killed."""
    move_balloon(guest, 600 * MIB_PAGES)
    guest.run(["python3", "-c", hog.until_given_back(16 * MIB_PAGES)])


def kill_in_cgroup(guest: Guest) -> int:
    """A task outgrows its memory cgroup and is killed; returns its process id."""
    program = shlex.join(["python3", "-c", hog.take(60 << 20)])
    command = f"echo $$ > {_CGROUP}/cgroup.procs; exec {program}"
    guest.run(f"mkdir -p {_CGROUP}; echo 30M > {_CGROUP}/memory.max")
    pid = _killed(guest, command)
    guest.run(f"rmdir {_CGROUP}")
    return pid


def kill_globally(guest: Guest) -> int:
    """A task outgrows the guest, whose balloon is empty, and is killed; returns its process id."""
    move_balloon(guest, 0)
    guest.run("sysctl -qw vm.overcommit_memory=1")
    program = shlex.join(["python3", "-c", hog.take(2 * guest.config.memory_bytes)])
    pid = _killed(guest, f"echo 1000 > /proc/self/oom_score_adj; exec {program}")
    guest.run("sysctl -qw vm.overcommit_memory=0")
    return pid


def _killed(guest: Guest, command: str) -> int:
    process = guest.popen(["sh", "-c", command])
    _, _, said = process.communicate()
    if f"Killed process {process.pid} " not in guest.run("dmesg").stdout:
        raise UserError(f"process {process.pid} was to be killed, and was not", said)
    return process.pid


def out_of_puff(guest: Guest) -> None:
    """The host wants all of the memory, a file's among it: inflation wakes kswapd, and ends in
    sleeps; then it gives all back."""
    # Where there is nothing to reclaim, kswapd is up from the first shortage on, whoever wakes it.
    # Beside a file's pages it goes to sleep again and again, and inflation wakes it.
    guest.run("truncate -s 400M /root/cache; cat /root/cache > /dev/null")
    balloon = guest.balloon
    balloon.set_target_pages(balloon.memory_pages - 4 * MIB_PAGES)
    rest_since, actual = time.monotonic(), -1
    while time.monotonic() < rest_since + _REST_S:
        time.sleep(_POLL_S)
        if (now := balloon.actual_pages()) > actual + MIB_PAGES:
            rest_since, actual = time.monotonic(), now
    move_balloon(guest, 0)
    guest.run("rm /root/cache")


def hint(guest: Guest) -> None:
    """The guest lends all of its free memory to the host; reclaim takes some of it back."""
    move_balloon(guest, 0)
    # Only the largest blocks are lent.
    guest.run("echo 3 > /proc/sys/vm/drop_caches; echo 1 > /proc/sys/vm/compact_memory")
    free = guest.vmstat()["nr_free_pages"]
    lent = 64 * MIB_PAGES
    with guest.balloon.hinting():
        _until(lambda: guest.vmstat()["nr_free_pages"] < free - lent, "no free memory is lent")
        guest.run("echo 2 > /proc/sys/vm/drop_caches")


def report(guest: Guest) -> None:
    """Memory becomes free, and the guest reports it to the host."""
    # Only large blocks are reported.
    guest.run("echo 1 > /proc/sys/vm/compact_memory")
    program = f"{hog.take(300 << 20)}input()"
    process = guest.popen(["python3", "-c", program], stdin=PIPE)
    process.stdout.readline()
    held = guest.resident_bytes()
    process.send_signal(SIGKILL)
    process.communicate()
    _until(lambda: guest.resident_bytes() < held - (16 << 20), "no free memory is reported")


def suspend(guest: Guest, asleep_s: float = 0.0) -> None:
    """The guest is suspended to RAM with a filled balloon, and woken after so long."""
    move_balloon(guest, 10 * MIB_PAGES)
    pauses.suspend(guest, asleep_s)
    _until(lambda: guest.balloon.actual_pages() == 10 * MIB_PAGES, "the balloon is not refilled")


def can_suspend(guest: Guest) -> bool:
    """Whether the guest's kernel is built to be suspended."""
    return guest.run("test -e /sys/power/state", check=False).returncode == 0


def rebind(guest: Guest) -> None:
    """The driver leaves a filled balloon and takes it again; the module stays."""
    move_balloon(guest, 20 * MIB_PAGES)
    guest.run(f"basename {_DRIVER}/virtio* > /run/balloon; cat /run/balloon > {_DRIVER}/unbind")
    guest.run(f"cat /run/balloon > {_DRIVER}/bind")
    move_balloon(guest, 20 * MIB_PAGES)


def unload(guest: Guest) -> None:
    """The driver's module goes, and with it the balloon's pages return."""
    guest.run(["rmmod", "virtio_balloon"])


def load(guest: Guest) -> None:
    """The kernel's own driver is loaded, and goes for the host's target at once."""
    guest.run(["modprobe", "virtio_balloon"])


def _until(condition: Callable[[], bool], complaint: str) -> None:
    deadline = time.monotonic() + SETTLE_S
    while not condition():
        if time.monotonic() > deadline:
            raise UserError(f"after {SETTLE_S:.0f} s: {complaint}")
        time.sleep(_POLL_S)
