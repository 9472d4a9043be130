# SPDX-License-Identifier: Apache-2.0
"""Small fleets for tests, and runs of them."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from balloontrace.fleet import engine
from balloontrace.fleet.batches import batches_of
from balloontrace.fleet.dataset import Dataset
from balloontrace.fleet.processes import Processes
from balloontrace.fleet.sources import Source, found
from balloontrace.fleet.work import Limits
from balloontrace.recording.reader import read_recording
from balloontrace.recording.writer import Writer
from tests.unit.builders import Built

LIMITS = Limits(1 << 30, 60)
BY = "1.2.3"

NOT_OF_THE_GUEST = ("batch", "read_at")


def recording(path: Path, pages: int = 256, host: str = "lab", day: int = 0) -> Path:
    """A guest with a fill of so many pages, its clock so many days after 1970."""
    built = Built()
    built.header["guest"]["hostname"] = host
    built.header["clock"] = {"monotonic_ns": 0, "realtime_ns": day * 86_400_000_000_000}
    built.target(1.0, pages, 0).fill(1.1, 0.5, pages)
    path.parent.mkdir(parents=True, exist_ok=True)
    built.write(path)
    return path


def fleet(directory: Path, number: int) -> Path:
    """So many recordings, of three days."""
    for one in range(number):
        path = recording(directory / f"{one:03}.btrace", 256 * (one + 1), f"host-{one}", one % 3)
        os.utime(path, (0, 0))
    return directory


def hostile(directory: Path) -> dict[str, str]:
    """Files that are no good recordings: name -> what is said of it."""
    whole = recording(directory / "whole").read_bytes()
    (directory / "whole").unlink()
    content = {
        "empty": (b"", "it is empty"),
        "zip": (b"PK\x03\x04" * 999, "it is not a balloontrace recording"),
        "header": (whole[:40], "it has lost its header"),
    }
    for name, (of_file, _) in content.items():
        (directory / f"{name}.btrace").write_bytes(of_file)
    return {f"{name}.btrace": reason for name, (_, reason) in content.items()}


def hog(path: Path, blocks: int) -> None:
    """A small file of a great many events: so many blocks of 200,000."""
    built = Built().fill(1.0, 0.001, 256)
    built.write(path)
    first = next(iter(read_recording(str(path)).events))
    descriptor = os.open(path, os.O_WRONLY | os.O_TRUNC)
    try:
        writer = Writer(descriptor)
        writer.header(built.header)
        for _ in range(blocks):
            writer.events(first * 200_000)
    finally:
        os.close(descriptor)


def run(
    dataset: Dataset, sources: Iterable[Source], workers: int = 2, limits: Limits = LIMITS
) -> engine.Progress:
    """Read them by processes."""
    with dataset.alone():
        batches = batches_of(sources, BY, workers)
        return engine.run(batches, Processes(workers, dataset, limits), dataset)


def sources_in(directory: Path) -> list[Source]:
    """The recordings there."""
    return found([str(directory)])


def rows(dataset: Dataset, name: str) -> list[dict[str, Any]]:
    """The rows of a table that count, in a known order, but for what depends on the run."""
    of_table = dataset.table(name).drop_columns(
        [key for key in NOT_OF_THE_GUEST if key in dataset.table(name).column_names]
    )
    return sorted(of_table.to_pylist(), key=lambda row: (row["source"], str(row)))
