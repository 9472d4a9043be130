# SPDX-License-Identifier: Apache-2.0
"""`make support`: what works on each kernel of the lab, from real runs, into docs/support.md.

On each kernel, in a fresh guest: `balloontrace doctor`, whose output goes to docs/doctor/, then a
recording of the tour that makes every seam fire (lab/loads.py). The recordings are the fixtures
tests/data/<kernel>-tour.btrace. argv: kernels, all by default; the table needs all.
"""

from __future__ import annotations

import json
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from balloontrace.analysis.report import Report, build
from balloontrace.errors import UserError
from balloontrace.lab.guest import Guest
from balloontrace.lab.image import ensure_image
from balloontrace.lab.kernels import find_kernel, load_kernels
from balloontrace.lab.loads import MEMORY_BYTES, can_suspend, move_balloon, suspend, tour
from balloontrace.lab.qemu import GuestConfig
from balloontrace.lab.record import start_recorder
from balloontrace.tracers.attach.seams import SEAMS
from tools.command import progress, run

_ROOT = Path(__file__).parents[1]
_DATA = _ROOT / "tests" / "data"
_DOCS = _ROOT / "docs"
_RECORDING = "/root/tour.btrace"

COUNTED = {"fill": "inflate", "leak": "deflate", "migrate": "migrate"}
"""Seam -> the counter of /proc/vmstat its pages are checked against (reconciliation.py)."""

_INTRODUCTION = """\
# Support matrix

Written by `make support` from real runs: one guest for each kernel of the lab (x86-64, QEMU;
`micro` has no modules and no kprobes, and cannot be suspended), in which a tour of loads makes
every seam fire. Each cell is the rung in use (1 is the best; what each is stands below the table),
the events it gave on the tour, and `exact` where their pages equal /proc/vmstat to the page.
`compact` cannot fire: the driver allocates single pages, and the kernel does not compact for these.

On aarch64 the same programs were run by hand in a guest with Debian's Linux 6.1 under
qemu-system-aarch64: tests/data/6.1-arm64.btrace is what they recorded, equal to /proc/vmstat to the
page.
"""


def recording_of(kernel: str) -> Path:
    """Where the tour's recording of a kernel is kept."""
    return _DATA / f"{kernel}-tour.btrace"


def visit(kernel: str) -> None:
    """Run doctor and the tour on one kernel. Raises UserError if either fails."""
    config = GuestConfig(kernel, memory_bytes=MEMORY_BYTES, hinting=True, reporting=True)
    with Guest(ensure_image(find_kernel(kernel), progress), config, progress) as guest:
        guest.install_balloontrace()
        diagnosis = guest.run(["balloontrace", "doctor"]).stdout
        (_DOCS / "doctor").mkdir(exist_ok=True)
        (_DOCS / "doctor" / f"{kernel}.txt").write_text(diagnosis, encoding="utf-8")
        recorder, attached = start_recorder(guest, _RECORDING)
        if not attached:
            raise UserError(f"kernel {kernel}: no recording", recorder.communicate()[2])
        tour(guest)
        if can_suspend(guest):
            suspend(guest)
        move_balloon(guest, 0)
        recorder.send_signal(signal.SIGINT)
        status, _, said = recorder.communicate()
        if status:
            raise UserError(f"the recorder ended with status {status} on kernel {kernel}", said)
        guest.fetch(_RECORDING, recording_of(kernel))


def matrix(reports: dict[str, Report]) -> str:
    """docs/support.md of one report for each kernel."""
    lines = [_INTRODUCTION, "| seam | " + " | ".join(reports) + " |"]
    lines.append("|---" * (len(reports) + 1) + "|")
    for seam in SEAMS:
        cells = [_cell(report, seam.name) for report in reports.values()]
        lines.append(f"| `{seam.name}` | " + " | ".join(cells) + " |")
    lines += ["", "| | " + " | ".join(reports) + " |", "|---" * (len(reports) + 1) + "|"]
    facts: dict[str, Callable[[Report], object]] = {
        "kernel": lambda r: r.results["guest"].scalars["kernel"],
        "means": lambda r: r.recording.scalars["means"],
        "events": lambda r: f"{r.recording.scalars['events']:,}",
        "lost": lambda r: f"{r.recording.scalars['lost_events']:,}",
        "driver": lambda r: r.results["guest"].scalars["driver_behaviour"],
    }
    for name, fact in facts.items():
        lines.append(f"| {name} | " + " | ".join(str(fact(r)) for r in reports.values()) + " |")
    lines += ["", "## Rungs", "", "| seam | rung | by | loses |", "|---|---|---|---|"]
    for seam in SEAMS:
        for number, rung in enumerate(seam.rungs, 1):
            lines.append(f"| `{seam.name}` | {number} | {rung.name} | {rung.loses} |")
    lines += ["", "What `balloontrace doctor` says: "]
    lines[-1] += ", ".join(f"[{kernel}](doctor/{kernel}.txt)" for kernel in reports) + "."
    return "\n".join(lines) + "\n"


def _cell(report: Report, seam: str) -> str:
    row = _row(report, seam)
    if not row.get("rung"):
        return "–"
    number = [rung.name for rung in next(s for s in SEAMS if s.name == seam).rungs].index(
        row["rung"]
    )
    if row["events"] is None:  # a seam of which there are no events
        return str(number + 1)
    cell = f"{number + 1}: {row['events']:,}"
    checked = report.results["reconciliation"].scalars
    counter = COUNTED.get(seam)
    if (
        counter
        and checked["exact"]
        and checked[f"traced_{counter}"] == checked[f"vmstat_{counter}"]
    ):
        cell += " exact"
    return cell


def _row(report: Report, seam: str) -> dict[str, Any]:
    return next((row for row in report.results["seams"].tables["seams"] if row["seam"] == seam), {})


def main() -> int:
    """Visit the kernels named, then write the table of all."""
    for kernel in sys.argv[1:] or load_kernels():
        progress(f"kernel {kernel}: doctor, then the tour")
        visit(kernel)
    reports = {kernel: build(str(recording_of(kernel))) for kernel in load_kernels()}
    (_DOCS / "support.md").write_text(matrix(reports), encoding="utf-8")
    print(json.dumps({kernel: str(recording_of(kernel)) for kernel in reports}))
    return 0


if __name__ == "__main__":
    run("support", main)
