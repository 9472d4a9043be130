# SPDX-License-Identifier: Apache-2.0
"""Workers on a cluster of Dask: what runs on each of its threads hands batches to a process of ours
(processes.py), so that memory and time are limited in the same way wherever it is.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import dask
from distributed import CancelledError, Client, KilledWorker, LocalCluster

from balloontrace.errors import EXIT_USAGE, UserError
from balloontrace.escape import visible
from balloontrace.fleet.batches import Batch
from balloontrace.fleet.dataset import Dataset
from balloontrace.fleet.processes import Lost, Worker
from balloontrace.fleet.work import Limits, Summary, batch_json, batch_of

_SETTINGS = {
    "distributed.scheduler.allowed-failures": 3,  # at 0 an innocent batch is blamed
    "distributed.worker.profile.enabled": False,
    "distributed.admin.tick.limit": "10s",
}
"""Of a cluster that is begun here; a fifth less CPU without the profiler."""

_CONNECT_S = 30

_ADDRESS = re.compile(r"([a-z]+://)?[^/\s]+:\d+")


class _Reading:
    """A batch at Dask."""

    def __init__(self, future: Any) -> None:
        self._future = future

    def result(self) -> Summary:
        """Raises Lost, or UserError."""
        try:
            summary: Summary = self._future.result()
        except KilledWorker:
            raise Lost("killed", "workers of the cluster were lost while they read it") from None
        except CancelledError:
            raise UserError("the scheduler is gone", "the same command goes on from here") from None
        return summary

    def add_done_callback(self, tell: Callable[[Any], object], /) -> None:
        """In a thread of Dask's client."""
        self._future.add_done_callback(lambda _: tell(self))


class OnDask:
    """The threads of a cluster's workers, each with one process of ours."""

    def __init__(self, client: Client, dataset: Dataset, limits: Limits) -> None:
        self._client, self._cluster = client, client.cluster
        self._said = (str(dataset.directory.absolute()), limits)
        self._futures: list[Any] = []

    def submit(self, batches: list[Batch]) -> list[_Reading]:
        """All in one message: one by one takes three times as long."""
        jobs = [batch_json(batch) for batch in batches]
        directory, limits = self._said
        futures = self._client.map(
            _read, jobs, directory=directory, limits=limits, pure=False, key="balloontrace"
        )
        self._futures += futures
        return [_Reading(future) for future in futures]

    def close(self) -> None:
        """Cancel what is not done, and end our processes; a cluster that was there stays."""
        with suppress(Exception):  # whatever has become of the cluster
            self._client.cancel(self._futures)
            self._client.run(_end)
        self._client.close()
        if self._cluster is not None:
            self._cluster.close()


def connected(scheduler: str) -> Client:
    """A client of the scheduler at an address such as tcp://host:8786. Raises UserError."""
    if not _ADDRESS.fullmatch(scheduler):  # Dask would wait for it for ever
        said = f"{visible(scheduler)} is no address of a scheduler"
        raise UserError(said, "such as tcp://HOST:8786", EXIT_USAGE)
    try:
        return Client(scheduler, timeout=_CONNECT_S, set_as_default=False)
    except (OSError, ValueError) as error:
        said = visible(" ".join(str(error).split()))
        raise UserError(f"no scheduler at {visible(scheduler)}: {said}") from None


def begun(workers: int) -> Client:
    """A client of a cluster of so many workers on this machine, which ends with it."""
    dask.config.set(_SETTINGS)
    cluster = LocalCluster(
        n_workers=workers, threads_per_worker=1, dashboard_address=None, memory_limit=0
    )
    return Client(cluster, set_as_default=False)


# On the cluster

_mine = threading.local()
_all: list[Worker] = []


def _read(job: dict[str, Any], directory: str, limits: Limits) -> Summary:
    """Read a batch, by the process of this thread."""
    worker = getattr(_mine, "worker", None)
    if worker is None or worker not in _all:
        worker = _mine.worker = Worker(Dataset(Path(directory)), limits)
        _all.append(worker)
    return worker.read(batch_of(job))


def _end() -> None:
    """End the processes of all threads."""
    for worker in _all:
        worker.kill()
    _all.clear()
