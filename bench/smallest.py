# SPDX-License-Identifier: Apache-2.0
"""`make bench-smallest`: the smallest guest, which records a full inflation from its first start.

In guests of 128 MiB that have just booted: record, inflate as far as it goes, deflate, and read the
recording. Once in the guest's own userspace, and so many times with the one file in one that has a
Python and nothing else. Prints budgets, and exits with 1 if one is missed. argv: starts.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import NamedTuple

from balloontrace.analysis.trace.trace import trace_of
from balloontrace.errors import UserError
from balloontrace.lab.guest import Guest, image_of
from balloontrace.lab.loads import MIB_PAGES, move_balloon
from balloontrace.lab.qemu import GuestConfig, choose_accel
from balloontrace.lab.record import start_and_wait
from balloontrace.recording.reader import Recording
from bench.overhead import fetched
from tools.command import budget, progress, run

STARTS = 20
MEMORY_MIB = 128
TARGET_MIB = MEMORY_MIB - 8
SQUEEZED_S = 10.0
"""Longer than the inflation takes. Its target cannot be reached, so there is nothing to await."""
PEAK_BUDGET = 40 << 20

_RECORDING = "/root/smallest.btrace"
_READY = "/run/smallest.ready"
_PROGRAM = "/root/peak.py"
_PEAK = "/root/peak"
_MEASURED = f"""
import resource, subprocess, sys
done = subprocess.run(["balloontrace", "record", *sys.argv[1:]])
with open("{_PEAK}", "w") as file:
    file.write(str(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024))
sys.exit(done.returncode)
"""
"""`record`, and then the most memory that one of its processes had: command line, loader, recorder,
and netlink process."""


class Start(NamedTuple):
    """How a first recording went. taken: pages by all fills; peak_bytes: of the largest of its
    processes; killed: by the OOM killer; why: what went wrong, if it did."""

    complete: bool
    taken: int = 0
    peak_bytes: int = 0
    killed: int = 0
    why: str = ""


@contextmanager
def _recorded(guest: Guest) -> Iterator[None]:
    guest.run(f"cat > {_PROGRAM}", input=_MEASURED)
    command = ["python3", _PROGRAM, "-o", _RECORDING]
    recorder, attached = start_and_wait(guest, command, _READY, _RECORDING)
    if not attached:
        raise UserError(f"no recording: {recorder.communicate()[2]}")
    yield
    guest.run(["pkill", "-INT", "--parent", str(recorder.pid)])
    recorder.communicate()


def first_start(config: GuestConfig) -> Start:
    """Boot a guest, and record a full inflation in it."""
    try:
        with Guest(image_of(config, progress), config, progress) as guest:
            guest.install_balloontrace()
            with _recorded(guest):
                guest.balloon.set_target_pages(TARGET_MIB * MIB_PAGES)
                time.sleep(SQUEEZED_S)
                move_balloon(guest, 0)
            made = fetched(guest, _RECORDING)
            peak = int(guest.run(["cat", _PEAK]).stdout)
            killed = guest.vmstat()["oom_kill"]
    except UserError as error:
        return Start(False, why=error.message[:100])
    return Start(made.complete, _taken(made), peak, killed)


def _taken(made: Recording) -> int:
    return int(trace_of(made).events("fill")["done"].sum())


def smallest(config: GuestConfig, starts: int) -> bool:
    """Whether each of so many first recordings is complete and nobody was killed for it; prints how
    they went."""
    config = replace(config, memory_bytes=MEMORY_MIB << 20)
    made = []
    for number in range(starts):
        progress(f"a guest of {MEMORY_MIB} MiB, start {number + 1} of {starts}")
        made.append(first_start(config))
    good = [start for start in made if start.complete]
    where = f"Linux {config.kernel}, userspace {config.userspace or 'of its own'}, {choose_accel()}"
    taken = sorted(start.taken // MIB_PAGES for start in good) or [0]
    print(
        f"{where}: target {TARGET_MIB} MiB, {taken[0]} to {taken[-1]} MiB taken in within "
        f"{SQUEEZED_S:.0f} s"
    )
    for why in sorted({start.why for start in made if not start.complete}):
        print(f"  {why or 'the recording has no trailer'}")
    peak = max((start.peak_bytes for start in good), default=0)
    killed = sum(start.killed for start in good)
    holds = budget(
        f"a guest of {MEMORY_MIB} MiB, its first recording: complete {len(good)} of {starts} times",
        len(good) == starts,
    )
    holds &= budget(f"{killed} processes killed by the OOM killer", killed == 0)
    return holds & budget(
        f"peak memory of the largest process, the loader included: {peak / 2**20:.1f} of "
        f"{PEAK_BUDGET >> 20} MiB",
        0 < peak <= PEAK_BUDGET,
    )


def main() -> int:
    """Print all budgets; 1 if one is missed."""
    starts = int(sys.argv[1]) if sys.argv[1:] else STARTS
    results = [smallest(GuestConfig(), 1), smallest(GuestConfig("6.12", userspace="bare"), starts)]
    return 0 if all(results) else 1


if __name__ == "__main__":
    run("bench-smallest", main)
