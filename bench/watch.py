# SPDX-License-Identifier: Apache-2.0
"""`make bench-watch`: what a watcher costs its guest, beside bpftrace's maps, and nothing.

In a guest of 6.1: inflate and deflate with no tracing, with `watch` that writes no events and one
that keeps them, and with bpftrace counting in the kernel, in an order that rotates; each time is
divided by that of the same round without tracing. Then a watcher beside a balloon at rest: CPU,
memory, bytes on the disk, and the time of a scrape. Prints budgets, and exits with 1 if one is
missed. argv: rounds.
"""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from functools import partial
from pathlib import Path

from balloontrace.errors import UserError
from balloontrace.lab.guest import Guest, image_of
from balloontrace.lab.loads import MIB_PAGES
from balloontrace.lab.qemu import GuestConfig, choose_accel
from balloontrace.lab.record import start_and_wait
from bench.overhead import (
    IN_GUEST,
    MEMORY_BYTES,
    NONE,
    UNTIL_IDLE,
    Tracer,
    bpftrace,
    compared,
    in_kernel,
    moved_in,
)
from tools.command import budget, progress, run

KERNEL = "6.1"
ROUNDS = 5
REST_S = 90
SCRAPES = 20
CPU_BUDGET_S, RSS_BUDGET = 2.0, 16 << 20
"""Of an hour at rest."""

SILENT, KEEPING = "watch --keep 0", "watch"
_KEPT = "/root/kept"
_READY = "/run/balloontrace.bench.ready"
_SCRAPE = """
import time, urllib.request
times = []
for _ in range({scrapes}):
    begun = time.perf_counter()
    page = urllib.request.urlopen("http://127.0.0.1:9758/metrics").read()
    times.append(time.perf_counter() - begun)
print(len(page), sorted(times)[len(times) // 2])
"""


@contextmanager
def watching(guest: Guest, *arguments: str) -> Iterator[int]:
    """`balloontrace watch` runs meanwhile, with the process id that is given."""
    guest.run(["rm", "-rf", _KEPT])
    command = ["balloontrace", "watch", "--dir", _KEPT, *arguments]
    watcher, attached = start_and_wait(guest, command, _READY)
    if not attached:
        raise UserError(f"nothing watches: {watcher.communicate()[2]}")
    yield watcher.pid
    watcher.send_signal(signal.SIGTERM)
    watcher.communicate()


def tracers_of(guest: Guest) -> dict[str, Tracer]:
    """What is compared, by name."""
    return {
        NONE: nullcontext,
        SILENT: partial(watching, guest, "--keep", "0"),
        KEEPING: partial(watching, guest),
        "bpftrace, kprobe": partial(bpftrace, guest, "kprobe"),
        "bpftrace, fentry": partial(bpftrace, guest, "fentry"),
    }


def moving(guest: Guest, wanted: int) -> bool:
    """Whether a watcher without events costs no more than bpftrace.

    By the kernel's own account of what the programs take: against seconds of which they are a
    fiftieth, the guest's pace from round to round is a storm.
    """
    tracers = tracers_of(guest)
    compared(guest, tracers, wanted)
    took = in_kernel(guest, tracers)
    theirs = min(ms for name, ms in took.items() if name.startswith("bpftrace"))
    return budget(
        f"{SILENT} takes {took[SILENT]:.1f} ms in the kernel, bpftrace at best {theirs:.1f}",
        took[SILENT] <= theirs,
    )


def cpu_s(guest: Guest, pid: int) -> float:
    """CPU time of a process: the scheduler's own account, in nanoseconds (Documentation/scheduler/
    sched-stats.rst)."""
    return int(guest.run(["cat", f"/proc/{pid}/schedstat"]).stdout.split()[0]) / 1e9


def resting(guest: Guest) -> bool:
    """What watchers cost beside a balloon at rest, with 1 MiB in it."""
    moved_in(guest, MIB_PAGES)
    print(f"\nAt rest, {REST_S} s\n")
    print("| | CPU s an hour | RSS MiB | KiB on the disk an hour | page bytes | ms a scrape |")
    print("|---|---:|---:|---:|---:|---:|")
    holds = True
    for name, arguments in ((SILENT, ("--keep", "0")), (KEEPING, ())):
        with watching(guest, *arguments) as pid:
            guest.run(UNTIL_IDLE)
            size = f"du -bc {_KEPT}/* 2>/dev/null | tail -1 | cut -f1"
            before_s, before = cpu_s(guest, pid), int(guest.run(size).stdout or 0)
            guest.run(["sleep", str(REST_S)], timeout_s=REST_S * 2)
            an_hour = 3600 / REST_S
            used_s = (cpu_s(guest, pid) - before_s) * an_hour
            written = (int(guest.run(size).stdout or 0) - before) * an_hour
            scrape = guest.run(["python3", "-c", _SCRAPE.format(scrapes=SCRAPES)]).stdout.split()
            status = guest.run(["cat", f"/proc/{pid}/status"]).stdout
            rss = int(status.partition("VmHWM:")[2].split()[0]) * 1024
        page, took_s = int(scrape[0]), float(scrape[1])
        print(
            f"| {name} | {used_s:.2f} | {rss / 2**20:.1f} | {written / 1024:.0f} | {page:,} | "
            f"{took_s * 1e3:.1f} |"
        )
        holds &= budget(
            f"{name}: {used_s:.2f} s of CPU an hour, at most {CPU_BUDGET_S}", used_s <= CPU_BUDGET_S
        )
        holds &= budget(
            f"{name}: {rss / 2**20:.1f} MiB, at most {RSS_BUDGET >> 20}", rss <= RSS_BUDGET
        )
    return holds


def main() -> int:
    """Measure and print; returns the exit status. Raises UserError."""
    wanted = int(sys.argv[1]) if len(sys.argv) > 1 else ROUNDS
    config = GuestConfig(KERNEL, memory_bytes=MEMORY_BYTES)
    with Guest(image_of(config, progress), config, progress) as guest:
        guest.install_balloontrace()
        guest.push((Path(__file__).parent / "in_guest.py").read_bytes(), f"cat > {IN_GUEST}")
        print(f"Linux {guest.run(['uname', '-r']).stdout.strip()}, {choose_accel()}")
        holds = resting(guest)
        if wanted:
            moved_in(guest, 0)
            holds &= moving(guest, wanted)
    return 0 if holds else 1


if __name__ == "__main__":
    run("bench-watch", main)
