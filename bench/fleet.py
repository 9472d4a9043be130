# SPDX-License-Identifier: Apache-2.0
"""`make bench-fleet`: what reading 10, 100, 1,000 and 10,000 recordings of a MiB each costs, by one
process, by one for each CPU, and by a cluster of Dask with as many workers.

Seconds and CPU are of all processes, for each recording; what it takes to begin is that of a run
with one recording for each CPU, stands by itself, and is in none of the others. The engine's own
CPU is all but what workers take in reading batches. Memory is resident, at its most. Prints
budgets, and exits with 1 if one is missed. argv: numbers of recordings.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from tools.cluster import cluster
from tools.command import budget, progress, run
from tools.fleet_recordings import make

NUMBERS = (10, 100, 1_000, 10_000)
RECORDING_BYTES = 1 << 20
SEED = 18

FLAT_FROM, FLAT = 100, 0.2
"""From so many on, a recording takes as long as there, within this share of it."""

OVERHEAD_BUDGET = 0.1
"""Of the CPU of a recording: what the engine may take beside, from FLAT_FROM on."""

RUNS, ONCE_FROM = 5, 1_000
"""How often is measured what is quick, and what is not quick any more."""

CPUS = len(os.sched_getaffinity(0))


@dataclass(frozen=True)
class Cost:
    """Of one run. cpu_s: of all processes; reading_s: of workers in their batches; the others are
    bytes: of the client, the scheduler, the largest worker of Dask, and of the largest reader.
    scheduler_s: of CPU, by the scheduler for all batches."""

    number: int
    seconds: float
    cpu_s: float
    reading_s: float
    client: int
    reader: int
    scheduler: int = 0
    worker: int = 0
    scheduler_s: float = 0.0
    batches: int = 0

    def each(self, begin: Cost) -> Cost:
        """For each recording, without what the run to begin with took."""
        more = max(1, self.number - begin.number)
        return Cost(
            self.number,
            (self.seconds - begin.seconds) / more,
            (self.cpu_s - begin.cpu_s) / more,
            (self.reading_s - begin.reading_s) / more,
            self.client, self.reader, self.scheduler, self.worker,
            self.scheduler_s, self.batches,
        )  # fmt: skip


def fleet(files: Path, out: Path, number: int, *options: str) -> Cost:
    """A run of the command; CPU is that of the client and of the processes that it began."""
    before, begun_s = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    words = ["fleet", str(files), "-o", str(out), "--json", *options]
    done = subprocess.run(
        [sys.executable, "-m", "balloontrace", *words],
        check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    seconds, after = time.monotonic() - begun_s, resource.getrusage(resource.RUSAGE_CHILDREN)
    said = json.loads(done.stdout)
    assert said["read"] + sum(said["failed"].values()) == said["found"] == number
    used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    client, reader = said["client_peak_bytes"], said["worker_peak_bytes"]
    return Cost(number, seconds, used, said["cpu_s"], client, reader, batches=said["batches"])


def by_processes(files: Path, out: Path, number: int, workers: int) -> Cost:
    """By so many processes of this machine."""
    return fleet(files, out, number, "--workers", str(workers))


def by_dask(files: Path, out: Path, number: int) -> Cost:
    """By a cluster whose scheduler and workers are processes of their own."""
    with tempfile.TemporaryDirectory() as directory, cluster(Path(directory), CPUS) as there:
        parts = [process.pid for process in (there.scheduler, *there.workers)]
        before_s = list(map(_cpu_s, parts))
        cost = fleet(files, out, number, "--scheduler", there.address)
        spent_s = [_cpu_s(part) - before for part, before in zip(parts, before_s, strict=True)]
        scheduler, *workers = map(_peak_bytes, parts)
    return Cost(
        number, cost.seconds, cost.cpu_s + sum(spent_s), cost.reading_s, cost.client, cost.reader,
        scheduler, max(workers), spent_s[0], cost.batches,
    )  # fmt: skip


def _cpu_s(pid: int) -> float:
    """That a process has taken, and those that it began and that are gone: so are our readers once
    a run is over."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK")


def _peak_bytes(pid: int) -> int:
    status = Path(f"/proc/{pid}/status").read_text()
    line = next(line for line in status.splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) << 10


def cost_of(way: str, files: Path, out: Path, number: int) -> Cost:
    """The median by seconds of some runs by one of the ways to read these files; what is quick is
    done more often."""
    progress(f"{number:,} recordings by {way}")
    found = []
    for time_of in range(1 if number >= ONCE_FROM else RUNS):
        to = out.with_name(f"{out.name} {time_of}")
        if way == "Dask":
            found.append(by_dask(files, to, number))
        else:
            found.append(by_processes(files, to, number, int(way.split()[0])))
    return sorted(found, key=lambda cost: cost.seconds)[len(found) // 2]


def show(way: str, begin: Cost, all_of_it: list[Cost]) -> bool:
    """Print what one way costs, and its budgets; whether they hold."""
    print(f"{way}: {begin.seconds:.1f} s and {begin.cpu_s:.1f} s of CPU to begin")
    print("recordings   ms each   CPU ms   engine's   MiB: client   scheduler   worker   reader")
    each = [cost.each(begin) for cost in all_of_it]
    for cost in each:
        mib = [size / 2**20 for size in (cost.client, cost.scheduler, cost.worker, cost.reader)]
        print(
            f"{cost.number:10,}  {cost.seconds * 1000:8.1f} {cost.cpu_s * 1000:8.1f} "
            f"{(cost.cpu_s - cost.reading_s) * 1000:10.2f}   {mib[0]:11.0f} {mib[1]:11.0f} "
            f"{mib[2]:8.0f} {mib[3]:8.0f}"
        )
    flat = [cost for cost in each if cost.number >= FLAT_FROM]
    if len(flat) < 2:  # nothing to compare
        return True
    return _flat(flat, "seconds", [cost.seconds for cost in flat]) & _flat(
        flat, "CPU", [cost.cpu_s for cost in flat]
    ) & budget(
        f"the engine takes at most {OVERHEAD_BUDGET:.0%} of the CPU from {FLAT_FROM} on",
        all(cost.cpu_s - cost.reading_s <= OVERHEAD_BUDGET * cost.cpu_s for cost in flat),
    )  # fmt: skip


def plan(begin: Cost, most: Cost) -> None:
    """Print what follows for many more, from the largest run by Dask."""
    each = most.each(begin)
    batches = max(1, most.batches - begin.batches)
    batch_s = (most.scheduler_s - begin.scheduler_s) / batches
    per_batch = most.number / max(1, most.batches)
    print(f"a million recordings take {each.cpu_s * 1e6 / 3600:.1f} hours of CPU")
    if batch_s > 0:
        per_s = per_batch / batch_s
        print(
            f"the scheduler takes {batch_s * 1000:.1f} ms of CPU for a batch of {per_batch:.0f}, "
            f"its idling with it: one is enough for {per_s:,.0f} recordings a second at the least, "
            f"by {per_s * each.cpu_s:,.0f} CPUs"
        )


def _flat(costs: list[Cost], what: str, values: list[float]) -> bool:
    off = max(abs(value / values[0] - 1) for value in values)
    said = f"{what} of a recording from {costs[0].number:,} on within {off:.0%}"
    return budget(f"{said}, at most {FLAT:.0%}", off <= FLAT)


def main() -> int:
    """Measure and print; returns the exit status."""
    numbers = [int(word) for word in sys.argv[1:]] or list(NUMBERS)
    ways = ("1 process", f"{CPUS} processes", "Dask")
    begin: dict[str, Cost] = {}
    found: dict[str, list[Cost]] = {way: [] for way in ways}
    with tempfile.TemporaryDirectory() as directory:
        for number in (CPUS, *numbers):
            files = Path(directory, str(number))
            progress(f"making {number:,} recordings")
            make(files, number, SEED, RECORDING_BYTES)
            for way in ways:
                cost = cost_of(way, files, Path(directory, f"{way} {number}"), number)
                if number == CPUS:
                    begin[way] = cost
                else:
                    found[way].append(cost)
            subprocess.run(["rm", "-r", files], check=True)
    held = [show(way, begin[way], found[way]) for way in ways]
    plan(begin["Dask"], found["Dask"][-1])
    return 0 if all(held) else 1


if __name__ == "__main__":
    run("bench-fleet", main)
