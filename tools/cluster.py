# SPDX-License-Identifier: Apache-2.0
"""A cluster of Dask on this machine, whose scheduler and workers are programs of their own: for
benches, and for tests."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

_READY_S = 60


class Cluster(NamedTuple):
    """address: of the scheduler; workers: with one thread each."""

    address: str
    scheduler: subprocess.Popen[bytes]
    workers: list[subprocess.Popen[bytes]]


@contextmanager
def cluster(directory: Path, workers: int) -> Iterator[Cluster]:
    """One with so many workers, ready, as long as the block lasts. What its programs say is in
    `directory`, in dask.log."""
    from balloontrace.fleet import on_dask

    said, log = directory / "scheduler.json", directory / "dask.log"
    package = str(Path(__file__).parents[1])
    path = os.pathsep.join(filter(None, (package, os.environ.get("PYTHONPATH"))))

    def begin(program: str, *more: str) -> subprocess.Popen[bytes]:
        words = [sys.executable, "-m", f"distributed.cli.dask_{program}", "--no-dashboard"]
        with log.open("ab") as file:
            return subprocess.Popen(
                [*words, "--scheduler-file", str(said), *more],
                env={**os.environ, "PYTHONPATH": path}, stdout=file, stderr=file, cwd=directory,
            )  # fmt: skip

    processes = [begin("scheduler", "--port", "0", "--host", "127.0.0.1")]
    try:
        while not said.exists():
            assert processes[0].poll() is None, log.read_text()
            time.sleep(0.05)
        processes += [begin("worker", "--no-nanny", "--nthreads", "1") for _ in range(workers)]
        address = json.loads(said.read_text())["address"]
        with on_dask.connected(address) as client:
            client.wait_for_workers(workers, timeout=_READY_S)
        yield Cluster(address, processes[0], processes[1:])
    finally:
        for process in reversed(processes):
            process.kill()
            process.wait()
