# SPDX-License-Identifier: Apache-2.0
"""`balloontrace fleet`: many recordings, as one dataset."""

from __future__ import annotations

import json
import os
import resource
import shutil
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Dict, List, Optional

import typer
from typer.core import TyperGroup

from balloontrace.analysis import dependencies
from balloontrace.cli import output
from balloontrace.cli.commands import fleet_dataset
from balloontrace.cli.duration import seconds_in
from balloontrace.errors import EXIT_USAGE, UserError

if TYPE_CHECKING:
    from balloontrace.fleet.dataset import Dataset
    from balloontrace.fleet.engine import Progress, Workers
    from balloontrace.fleet.work import Limits

_NEEDED = (*dependencies.NEEDED, "pyarrow")


class _Group(TyperGroup):
    """`fleet PATH...` is `fleet run PATH...`: what is no command of its own is the first path."""

    def parse_args(self, ctx: Any, args: List[str]) -> List[str]:
        if args and args[0] not in (*self.commands, "--help"):
            args = ["run", *args]
        return super().parse_args(ctx, args)


app = typer.Typer(
    cls=_Group,
    no_args_is_help=True,
    help="Thousands of recordings as one dataset: fleet PATH... -o DIR is fleet run.",
)


@app.command("run")
def run(
    paths: List[str] = typer.Argument(
        ...,
        metavar="PATH...",
        help="Files, directories, patterns, or URLs of object storage (s3, gs, az, http).",
    ),
    directory: Path = typer.Option(
        ..., "-o", "--output", metavar="DIR", help="The dataset, to which it is appended."
    ),
    workers: Optional[int] = typer.Option(
        None, "--workers", metavar="N", help="So many at once; as many as CPUs without it."
    ),
    scheduler: Optional[str] = typer.Option(
        None,
        "--scheduler",
        metavar="ADDRESS",
        help="Read on a cluster of Dask that is there: tcp://HOST:PORT.",
    ),
    dask: bool = typer.Option(False, "--dask", help="Read on a cluster of Dask begun here."),
    memory: str = typer.Option("1G", "--memory", help="Of one worker at most.", show_default=True),
    limit: str = typer.Option("5m", "--time", help="Of one recording at most.", show_default=True),
    retry: bool = typer.Option(
        False, "--retry-failures", help="Read again what failed before, too."
    ),
    as_json: bool = typer.Option(False, "--json", help="One JSON object about this run."),
) -> None:
    """Read recordings, each once, and keep what they say in a dataset of Parquet files.

    What is in it already, by name, size and ETag or time of writing, is not read again; a run that
    was killed goes on where it was. A recording that cannot be read is a row of `failure`.
    """
    dependencies.require("fleet", _NEEDED, "fleet")
    from balloontrace import __version__
    from balloontrace.fleet import engine, sources
    from balloontrace.fleet.batches import batches_of
    from balloontrace.fleet.dataset import Dataset
    from balloontrace.fleet.work import Limits

    number = len(os.sched_getaffinity(0)) if workers is None else workers
    if scheduler and dask:
        raise UserError("--dask begins a cluster, --scheduler takes one", "give one", EXIT_USAGE)
    if scheduler or dask:
        dependencies.require("a cluster", ("distributed",), "dask")
    if number < 1:
        raise UserError("--workers takes 1 or more", "", EXIT_USAGE)
    limits = Limits(_bytes(memory), _seconds(limit))
    with output.working("looking for recordings"):
        found = sources.found(paths)
    dataset = Dataset.made(directory)
    with dataset.alone():
        done = dataset.done(retry)
        new = [
            one for one in found if (one.name, one.size_bytes, one.version, __version__) not in done
        ]
        batches = batches_of(new, __version__, number)
        show = _Shown()
        try:
            pool = _workers(number, len(batches), scheduler, dask, dataset, limits)
            progress = engine.run(batches, pool, dataset, show)
        except KeyboardInterrupt:
            show.end()
            output.status("interrupted; what is done stays, and the same command goes on from here")
            raise
        finally:
            show.end()
    _tell(progress, len(found), directory, as_json)


fleet_dataset.add(app)


def _workers(
    number: int,
    batches: int,
    scheduler: str | None,
    dask: bool,
    dataset: Dataset,
    limits: Limits,
) -> Workers:
    """Who reads: a cluster that was named, one that is begun here, or processes. Raises UserError
    if there is no such cluster."""
    if not batches or not (scheduler or dask):
        from balloontrace.fleet.processes import Processes

        return Processes(max(1, min(number, batches)), dataset, limits)
    from balloontrace.fleet import on_dask

    client = on_dask.connected(scheduler) if scheduler else on_dask.begun(number)
    return on_dask.OnDask(client, dataset, limits)


def _tell(progress: Progress, found: int, directory: Path, as_json: bool) -> None:
    """What became of a run, on stdout as JSON or on stderr in words."""
    known = found - progress.files
    if as_json:
        output.result(json.dumps(_summary(progress, found, directory), indent=2))
    failed = sum(progress.failures.values())
    for source, kind, reason in progress.reasons[:_TOLD]:
        output.status(f"{kind}: {source}: {reason}")
    if failed > _TOLD:
        output.status(f"... and {failed - _TOLD:,} more of them, all in the table failure")
    per_s = progress.files / progress.elapsed_s if progress.elapsed_s else 0.0
    output.status(
        f"{progress.files:,} recordings read in {progress.elapsed_s:,.1f} s ({per_s:,.0f}/s), "
        f"{failed:,} of them failed, {known:,} were known; {directory}"
    )


_TOLD = 20
"""Failures that are told by name."""


def _summary(progress: Progress, found: int, directory: Path) -> Dict[str, Any]:
    return {
        "directory": str(directory),
        "found": found,
        "known": found - progress.files,
        "read": progress.files_done - sum(progress.failures.values()),
        "failed": progress.failures,
        "failures": [
            {"source": source, "kind": kind, "reason": reason}
            for source, kind, reason in progress.reasons
        ],
        "bytes": progress.size_bytes,
        "batches": progress.batches,
        "split": progress.split,
        "elapsed_s": round(progress.elapsed_s, 3),
        "cpu_s": round(progress.cpu_s, 3),
        "client_peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10,
        "worker_peak_bytes": progress.peak_bytes,
    }


class _Shown:
    """Progress on a terminal at stderr, in place."""

    def __init__(self) -> None:
        self._terminal = sys.stderr is not None and sys.stderr.isatty()
        self._next_s = time.monotonic() + output.PATIENCE_S
        self._shown = False

    def __call__(self, progress: Progress) -> None:
        if not self._terminal or time.monotonic() < self._next_s:
            return
        self._next_s = time.monotonic() + output.PATIENCE_S
        self._shown = True
        line = progress_line(progress)[: shutil.get_terminal_size().columns - 1]
        print(f"\r\x1b[K{line}", end="", file=sys.stderr, flush=True)  # noqa: T201

    def end(self) -> None:
        """Wipe it."""
        if self._shown:
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)  # noqa: T201
            self._shown = False


def progress_line(progress: Progress) -> str:
    """Files, bytes, rate, time left and failures."""
    left_s, failed = progress.left_s, sum(progress.failures.values())
    per_s = progress.files_done / progress.elapsed_s if progress.elapsed_s else 0.0
    parts = [
        f"{progress.files_done:,} of {progress.files:,} recordings",
        f"{progress.bytes_done / 2**20:,.0f} of {progress.size_bytes / 2**20:,.0f} MiB",
        f"{per_s:,.0f}/s",
        "time left not known" if left_s is None else f"{left_s:,.0f} s left",
        f"{failed:,} failed",
    ]
    return ", ".join(parts)


def _seconds(text: str) -> float:
    seconds = seconds_in(text)
    if not seconds:
        raise UserError(f"--time {text!r} is not a duration such as 60s or 5m", "", EXIT_USAGE)
    if seconds > _MOST_SECONDS:
        raise UserError(f"--time {text} is more than a day", "", EXIT_USAGE)
    return seconds


_MOST_SECONDS = 86_400


_UNITS = {"K": 10, "M": 20, "G": 30}
_LEAST_BYTES = 256 << 20
"""With less a worker does not begin."""


def _bytes(text: str) -> int:
    number, shift = text[:-1], _UNITS.get(text[-1:].upper())
    if not (number.isascii() and number.isdecimal() and len(number) < 10) or shift is None:
        raise UserError(f"--memory {text!r} is not a size such as 512M or 2G", "", EXIT_USAGE)
    size = int(number) << shift
    if size < _LEAST_BYTES:
        raise UserError(f"--memory is {_LEAST_BYTES >> 20}M at least", "", EXIT_USAGE)
    return size
