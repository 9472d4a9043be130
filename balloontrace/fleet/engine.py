# SPDX-License-Identifier: Apache-2.0
"""Has all batches read by some workers, and finds out which recording a worker died of."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from queue import Empty, SimpleQueue
from typing import Any, Protocol

from balloontrace.fleet.batches import Batch
from balloontrace.fleet.dataset import Dataset, failed
from balloontrace.fleet.processes import Lost
from balloontrace.fleet.schema import FAILURE
from balloontrace.fleet.work import Summary

LOOK_S = 0.5
"""So often progress is told."""

_RATE_S = 5.0
"""So long must it have gone on before the time left is told."""


class Reading(Protocol):
    """A batch that is being read, or will be."""

    def result(self) -> Summary:
        """What became of it, once it is done. Raises Lost, or UserError, which ends the run."""

    def add_done_callback(self, tell: Callable[[Any], object], /) -> None:
        """Have `tell` called with it once it is done, in any thread."""


class Workers(Protocol):
    """Who reads batches: processes.py on this machine, on_dask.py on a cluster."""

    def submit(self, batches: list[Batch]) -> Sequence[Reading]:
        """Have them read some time, in about this order."""

    def close(self) -> None:
        """End all workers, whatever they do."""


@dataclass
class Progress:
    """How far a run is. failures: kind -> number; peak_bytes: resident memory of one worker."""

    files: int
    size_bytes: int
    began_s: float = field(default_factory=time.monotonic)
    files_done: int = 0
    bytes_done: int = 0
    cpu_s: float = 0.0
    peak_bytes: int = 0
    batches: int = 0
    split: int = 0
    failures: dict[str, int] = field(default_factory=dict)
    reasons: list[tuple[str, str, str]] = field(default_factory=list)

    @property
    def elapsed_s(self) -> float:
        """Seconds since it began."""
        return time.monotonic() - self.began_s

    @property
    def left_s(self) -> float | None:
        """Seconds to go, by files and bytes so far, whichever is longer; None: too early to say."""
        if self.elapsed_s < _RATE_S or not self.files_done:
            return None
        shares = (
            self.files_done / self.files,
            self.bytes_done / self.size_bytes if self.size_bytes else 1.0,
        )
        least = min(shares)
        return self.elapsed_s * (1 - least) / least if least else None

    def add(self, summary: Summary) -> None:
        """Count a batch that is done."""
        self.batches += 1
        self.files_done += summary.files
        self.bytes_done += summary.size_bytes
        self.cpu_s += summary.cpu_s
        self.peak_bytes = max(self.peak_bytes, summary.peak_bytes)
        for source, kind, reason in summary.failures:
            self.failures[kind] = self.failures.get(kind, 0) + 1
            if len(self.reasons) < MOST_REASONS:
                self.reasons.append((source, kind, reason))


MOST_REASONS = 1000
"""Failures that a run tells of by name; all are in the dataset."""


def run(
    batches: Iterable[Batch],
    workers: Workers,
    dataset: Dataset,
    look: Callable[[Progress], None] = lambda _: None,
) -> Progress:
    """Have all read; returns once each recording is in the dataset, or a failure there.

    look: is shown the progress now and then. A batch that costs its worker is split, down to the
    one recording. Raises UserError if the dataset cannot be written. Whatever ends it, the workers
    are gone then.
    """
    batches = list(batches)
    files = sum(len(batch.sources) for batch in batches)
    progress = Progress(files, sum(batch.size_bytes for batch in batches))
    done: SimpleQueue[Reading] = SimpleQueue()
    waiting: dict[Reading, Batch] = {}

    def submit(more: list[Batch]) -> None:
        readings = workers.submit(more)
        waiting.update(zip(readings, more, strict=True))
        for reading in readings:
            reading.add_done_callback(done.put)

    try:
        if batches:
            submit(batches)
        while waiting:
            with suppress(Empty):
                reading = done.get(timeout=LOOK_S)
                _finish(reading, waiting.pop(reading), dataset, progress, submit)
            look(progress)
    finally:
        workers.close()
    return progress


def _finish(
    reading: Reading,
    batch: Batch,
    dataset: Dataset,
    progress: Progress,
    submit: Callable[[list[Batch]], None],
) -> None:
    """Count a batch that is done; what was lost is read again in parts."""
    try:
        progress.add(reading.result())
    except Lost as lost:
        if len(batch.sources) == 1:
            progress.add(_left_out(batch, dataset, lost))
        else:
            progress.split += 1
            submit(batch.split(lost.suspect))


def _left_out(batch: Batch, dataset: Dataset, lost: Lost) -> Summary:
    """The recording that its worker died of, alone as it was, becomes a failure."""
    (source,) = batch.sources
    rows = {FAILURE.name: [failed(source, batch, lost.kind, lost.why)]}
    dataset.write(batch, rows, [lost.kind])
    return Summary(1, source.size_bytes, failures=[(source.name, lost.kind, lost.why)])
