# SPDX-License-Identifier: Apache-2.0
"""`make bench-inflate`: how fast the balloon moves, by the method of hyperalloc-bench's `inflate`.

Runs the scenario inflate-bench in a real guest and prints, for each of its four steps, the rates of
all runs but the first; then the published figures beside them, which are of other machines.
"""

from __future__ import annotations

import statistics
from pathlib import Path
from tempfile import TemporaryDirectory

from balloontrace.analysis.report import Report, build
from balloontrace.errors import UserError
from balloontrace.lab.qemu import GuestConfig, choose_accel
from balloontrace.lab.run import run_scenario
from balloontrace.lab.scenario import find_scenario
from tools.command import progress, run

STEPS = ("inflate, touched", "deflate", "inflate, untouched", "deflate again")
"""What each step of a run is."""


def rates(report: Report) -> dict[str, list[float]]:
    """Step -> GiB/s of each run but the first. Raises UserError unless every step got there."""
    rows = report.results["episodes"].tables["episodes"]
    episodes = [row for row in rows if row["kind"] == "target"]
    missed = [row["outcome"] for row in episodes if row["outcome"] != "reached"]
    if missed or len(episodes) % len(STEPS):
        raise UserError(f"{len(episodes)} episodes, of which {len(missed)} missed their target")
    return {
        step: [float(row["net_gib_per_s"]) for row in episodes[n :: len(STEPS)]][1:]
        for n, step in enumerate(STEPS)
    }


def main() -> int:
    """Run it and print the table."""
    scenario = find_scenario("inflate-bench")
    config = GuestConfig(memory_bytes=scenario.memory_bytes, cpus=scenario.cpus)
    with TemporaryDirectory() as out:
        done = run_scenario(scenario, config, Path(out), progress)
        report = build(str(done.recording))
    measured = rates(report)
    kernel = report.results["guest"].scalars["kernel"]
    checked = report.results["reconciliation"].scalars["summary"]
    print(f"Linux {kernel}, {choose_accel()}; {checked}")
    print("\n| step | runs | median | least | most |\n|---|---:|---:|---:|---:|")
    for step, values in measured.items():
        figures = (statistics.median(values), min(values), max(values))
        cells = " | ".join(f"{value:.3f} GiB/s" for value in figures)
        print(f"| {step} | {len(values)} | {cells} |")
    print("\n| figure | published | here, largest episode |\n|---|---|---:|")
    for row in report.results["published"].tables["published"]:
        here = "-" if row["here"] is None else f"{row['here']:.3g} {row['unit']}"
        print(f"| {row['what']} | {row['published']} | {here} |")
    return 0


if __name__ == "__main__":
    run("bench-inflate", main)
