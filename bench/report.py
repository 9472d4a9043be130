# SPDX-License-Identifier: Apache-2.0
"""`make bench-report`: what a report of a long recording costs, beside DuckDB over the same events.

First of recordings that are long without many events: days at rest, bursts of the OOM notifier.

Builds recordings of 1, 3 and 10 million events from a real one (tests/recordings/long.py) in a
temporary directory, and runs `balloontrace report --json` and DuckDB's answers to the same
questions (tests/recordings/ask_duckdb.py) on each, in turns, each time in a fresh process. Prints a
table and the budgets; exits with 1 if one is missed or the two do not agree.
"""

from __future__ import annotations

import json
import os
import platform
import statistics
import subprocess
import sys
import time
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

from tests.recordings.differing import differing

MILLIONS = (1, 3, 10)
ROUNDS = 3

CPU_BUDGET_S = 2.5
MEMORY_BUDGET = 600 << 20
"""Of the report of the longest recording."""


class Cost(NamedTuple):
    """What one process took: seconds of CPU (user and system) and of wall clock, peak memory."""

    cpu_s: float
    wall_s: float
    peak_bytes: int


# This process stays small: the peak memory of a child is no less than its parent's was.
def run(arguments: list[str]) -> tuple[Cost, dict[str, Any]]:
    """Run a Python module; what it cost, and the JSON it printed."""
    began = time.monotonic()
    # An installed package has its byte code: it is written in the first round, if not before.
    process = subprocess.Popen(
        [sys.executable, "-m", *arguments],
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONDONTWRITEBYTECODE": ""},
    )
    assert process.stdout is not None
    said = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        sys.exit(f"{' '.join(arguments)} failed")
    cost = Cost(usage.ru_utime + usage.ru_stime, time.monotonic() - began, usage.ru_maxrss * 1024)
    return cost, json.loads(said)


def median(costs: list[Cost]) -> Cost:
    """The median of each figure."""
    return Cost(*(statistics.median(figures) for figures in zip(*costs, strict=True)))


def measure(millions: int, directory: Path) -> tuple[Cost, Cost]:
    """The cost of the report, and of DuckDB's answers, of a recording of so many events."""
    recording, parquet = directory / f"{millions}.btrace", directory / f"{millions}.parquet"
    events = millions * 1_000_000
    print(f"building a recording of {events:,} events", file=sys.stderr, flush=True)
    make = [sys.executable, "-m", "tests.recordings.long", str(events)]
    subprocess.run([*make, str(recording), str(parquet)], check=True)
    ours, theirs = [], []
    for _ in range(ROUNDS):
        cost, reported = run(["balloontrace", "report", "--json", str(recording)])
        ours.append(cost)
        cost, asked = run(["tests.recordings.ask_duckdb", str(parquet)])
        theirs.append(cost)
    if reported["events"] != events or not reported["reconciliation"]["exact"]:
        sys.exit("the recording that was built is not a sensible one")
    if different := differing(reported, asked):
        sys.exit("the report and DuckDB do not agree:\n" + "\n".join(different))
    return median(ours), median(theirs)


class Quiet(NamedTuple):
    """What a long recording is long by: three lengths of it, and the budgets of the longest."""

    unit: str
    lengths: tuple[int, int, int]
    cpu_s: float
    peak_bytes: int


QUIET = {
    "rest": Quiet("days at rest", (1, 3, 10), 5.0, 300 << 20),
    "bursts": Quiet("OOM bursts", (160, 480, 1600), 3.0, 600 << 20),
}
"""By what tests/recordings/quiet.py makes of them."""


def measure_quiet(kind: str, directory: Path) -> list[Cost]:
    """The cost of reports of each length."""
    costs = []
    for length in QUIET[kind].lengths:
        recording = str(directory / f"{kind}.btrace")
        print(f"building {length:,} {QUIET[kind].unit}", file=sys.stderr, flush=True)
        make = [sys.executable, "-m", "tests.recordings.quiet", kind, str(length), recording]
        subprocess.run(make, check=True)
        runs = [run(["balloontrace", "report", "--json", recording]) for _ in range(ROUNDS)]
        if not runs[0][1]["reconciliation"]["exact"]:
            sys.exit("the recording that was built is not a sensible one")
        costs.append(median([cost for cost, _ in runs]))
    return costs


def quiet_budgets(kind: str, costs: list[Cost]) -> list[bool]:
    """Print the table of a kind, and its budgets."""
    quiet, longest = QUIET[kind], costs[-1]
    print(f"\n| {quiet.unit} | CPU | wall | peak memory |\n|---:|---:|---:|---:|")
    for length, cost in zip(quiet.lengths, costs, strict=True):
        mib = cost.peak_bytes / 2**20
        print(f"| {length:,} | {cost.cpu_s:.2f} s | {cost.wall_s:.1f} s | {mib:,.0f} MiB |")
    print()
    what = f"{quiet.lengths[-1]:,} {quiet.unit}"
    each = [cost.cpu_s / n for cost, n in zip(costs, quiet.lengths, strict=True)]
    mib = quiet.peak_bytes >> 20
    return [
        budget(f"{what} in {quiet.cpu_s:.0f} s of CPU", longest.cpu_s <= quiet.cpu_s),
        budget(f"{what} in {mib} MiB", longest.peak_bytes <= quiet.peak_bytes),
        budget(f"linear: no more CPU each than of {quiet.lengths[-2]:,}", each[-1] <= each[-2]),
    ]


def budget(what: str, holds: bool) -> bool:
    """Print one budget line."""
    print(f"- {'holds' if holds else 'MISSED'}: {what}")
    return holds


def slope(costs: dict[int, Cost], first: int, second: int) -> float:
    """Seconds of CPU per million events from one length to another."""
    return (costs[second].cpu_s - costs[first].cpu_s) / (second - first)


def main() -> int:
    """Print the table and all budgets; 1 if one is missed."""
    ours: dict[int, Cost] = {}
    theirs: dict[int, Cost] = {}
    with TemporaryDirectory() as directory:
        quiet = {kind: measure_quiet(kind, Path(directory)) for kind in QUIET}
        for millions in MILLIONS:
            ours[millions], theirs[millions] = measure(millions, Path(directory))
    tools = ", ".join(f"{name} {version(name)}" for name in ("numpy", "pandas", "duckdb"))
    print(f"{os.cpu_count()} CPUs, Linux {platform.release()}, Python {platform.python_version()},")
    print(f"{tools}; median of {ROUNDS} runs each; CPU is user and system time\n")
    print("| events | report: CPU | wall | peak memory | DuckDB: CPU | wall | peak memory |")
    print("|---:|---:|---:|---:|---:|---:|---:|")
    for millions in MILLIONS:
        cells = [
            cell
            for cost in (ours[millions], theirs[millions])
            for cell in (
                f"{cost.cpu_s:.2f} s",
                f"{cost.wall_s:.1f} s",
                f"{cost.peak_bytes / 2**20:,.0f} MiB",
            )
        ]
        print(f"| {millions} M | {' | '.join(cells)} |")
    print()
    most = MILLIONS[-1]
    longest = ours[most]
    begin, end = slope(ours, *MILLIONS[:2]), slope(ours, *MILLIONS[-2:])
    results = [
        budget(f"{most} M events in {CPU_BUDGET_S} s of CPU", longest.cpu_s <= CPU_BUDGET_S),
        budget(
            f"{most} M events in {MEMORY_BUDGET >> 20} MiB", longest.peak_bytes <= MEMORY_BUDGET
        ),
        budget(f"{most} M events not slower than DuckDB", longest.cpu_s <= theirs[most].cpu_s),
        budget(
            f"linear: {most} M take no more CPU per event than {MILLIONS[-2]} M (a further million "
            f"takes {begin:.2f} s at first, {end:.2f} s at last)",
            longest.cpu_s / most <= ours[MILLIONS[-2]].cpu_s / MILLIONS[-2],
        ),
    ]
    for kind, costs in quiet.items():
        results += quiet_budgets(kind, costs)
    return 0 if all(results) else 1


if __name__ == "__main__":
    sys.exit(main())
