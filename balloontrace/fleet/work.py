# SPDX-License-Identifier: Apache-2.0
"""Reading one batch: what a worker does, however it came to it."""

from __future__ import annotations

import contextlib
import resource
import signal
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from datetime import date
from pathlib import Path
from types import FrameType
from typing import Any

from balloontrace.errors import UserError
from balloontrace.escape import visible
from balloontrace.fleet.batches import Batch
from balloontrace.fleet.dataset import Dataset, failed, of_file
from balloontrace.fleet.schema import EPISODE, FAILURE, FINDING, GUEST, READ
from balloontrace.fleet.sources import Source, Unreachable, local

_REASON_CHARS = 500


@dataclass(frozen=True)
class Limits:
    """What one worker may take. memory_bytes: of private memory (RLIMIT_DATA), interpreter and
    libraries in it; seconds: for one recording, with fetching it."""

    memory_bytes: int
    seconds: float


@dataclass
class Summary:
    """What became of a batch. failures: source, kind, reason of each; cpu_s: user and system;
    peak_bytes: resident memory of the worker so far; spent: a limit was met, so that the worker is
    better replaced."""

    files: int = 0
    size_bytes: int = 0
    cpu_s: float = 0.0
    peak_bytes: int = 0
    spent: bool = False
    failures: list[tuple[str, str, str]] = field(default_factory=list)


class _TooLong(BaseException):
    """No Exception: nothing on the way may take it for one of its own."""


def read(batch: Batch, dataset: Dataset, limits: Limits, begins: Callable[[int], None]) -> Summary:
    """Read the recordings of a batch and write its parts; begins: is told of each, by its number.

    A recording that cannot be read is a row of `failure`. Raises OSError if the dataset takes no
    more. Its time is limited in the main thread only.
    """
    began_s = time.process_time()
    rows: dict[str, list[dict[str, Any]]] = {
        table.name: [] for table in (GUEST, EPISODE, FINDING, FAILURE)
    }
    outcomes, summary = [], Summary(len(batch.sources), batch.size_bytes)
    for number, source in enumerate(batch.sources):
        begins(number)
        kind, reason, found = _one(source, limits.seconds)
        outcomes.append(kind)
        if found is None:
            rows[FAILURE.name].append(failed(source, batch, kind, reason))
            summary.failures.append((source.name, kind, reason))
            summary.spent |= kind in ("memory", "time")
            continue
        rows[GUEST.name].append({**of_file(source, batch), **found.guest})
        rows[EPISODE.name] += ({"source": source.name, **row} for row in found.episodes)
        rows[FINDING.name] += ({"source": source.name, **row} for row in found.findings)
    dataset.write(batch, rows, outcomes)
    summary.cpu_s = time.process_time() - began_s
    summary.peak_bytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10
    return summary


def _one(source: Source, seconds: float) -> tuple[str, str, Any]:
    """The outcome of one recording, why it failed, and its rows if it did not."""
    from balloontrace.fleet.one import rows_of

    try:
        with _at_most(seconds), local(source) as path:
            try:
                return READ, "", rows_of(path, source.written)
            except UserError as error:  # which names the copy, if it is one
                # What the disk, or the system, refuses now it may give another time.
                kind = "source" if isinstance(error.__context__, OSError) else "unreadable"
                return kind, _line(error.message.replace(path, "it")), None
    except Unreachable as error:
        return "source", _line(error), None
    except OSError as error:
        return "source", _line(error.strerror or error), None
    except MemoryError:
        return "memory", "it takes more memory than a worker may have", None
    except _TooLong:
        return "time", f"it takes more than {seconds:g} s", None
    except Exception as error:  # a bug must not cost the others of the batch
        return "error", _line(f"{type(error).__name__}: {error}"), None


def _line(error: object) -> str:
    return visible(" ".join(str(error).split()))[:_REASON_CHARS]


@contextlib.contextmanager
def _at_most(seconds: float) -> Iterator[None]:
    """Raises _TooLong in the block once it has lasted so long."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def ring(_: int, __: FrameType | None) -> None:
        raise _TooLong

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


# As JSON, from one process to another


def batch_json(batch: Batch) -> dict[str, Any]:
    """A batch as JSON has it."""
    sources = [asdict(one) | {"written": one.written.isoformat()} for one in batch.sources]
    return {"sources": sources, "analysed_by": batch.analysed_by}


def batch_of(said: dict[str, Any]) -> Batch:
    """The batch again."""
    sources = tuple(
        Source(**(one | {"written": date.fromisoformat(one["written"])})) for one in said["sources"]
    )
    return Batch(sources, said["analysed_by"])


def job(batch: Batch, dataset: Dataset, limits: Limits) -> dict[str, Any]:
    """All that a worker must be told to read a batch."""
    return {
        "batch": batch_json(batch),
        "directory": str(dataset.directory.absolute()),
        "limits": asdict(limits),
    }


def do(said: dict[str, Any], begins: Callable[[int], None]) -> Summary:
    """What `job` asks for."""
    dataset = Dataset(Path(said["directory"]))
    return read(batch_of(said["batch"]), dataset, Limits(**said["limits"]), begins)
