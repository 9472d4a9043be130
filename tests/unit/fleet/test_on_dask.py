# SPDX-License-Identifier: Apache-2.0
"""A cluster whose scheduler and workers are processes of their own."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from balloontrace.errors import UserError
from balloontrace.fleet import engine
from balloontrace.fleet.batches import batches_of
from balloontrace.fleet.dataset import Dataset
from balloontrace.fleet.schema import TABLES
from tests.unit.fleet.fleets import BY, LIMITS, fleet, hostile, rows, run, sources_in

Cluster = tuple[str, list["subprocess.Popen[bytes]"]]


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    """The scheduler's address, and two workers."""
    where = tmp_path / "scheduler.json"
    log = (tmp_path / "dask.log").open("wb")
    package = str(Path(__file__).parents[3])
    path = os.pathsep.join(filter(None, (package, os.environ.get("PYTHONPATH"))))
    env = {**os.environ, "PYTHONPATH": path}

    def begin(program: str, *more: str) -> subprocess.Popen[bytes]:
        words = [sys.executable, "-m", f"distributed.cli.dask_{program}", "--no-dashboard"]
        return subprocess.Popen(
            [*words, "--scheduler-file", str(where), *more],
            env=env, stdout=log, stderr=log, cwd=tmp_path,
        )  # fmt: skip

    processes = [begin("scheduler", "--port", "0", "--host", "127.0.0.1")]
    try:
        while not where.exists():
            assert processes[0].poll() is None, (tmp_path / "dask.log").read_text()
            time.sleep(0.05)
        workers = [begin("worker", "--no-nanny", "--nthreads", "1") for _ in range(2)]
        processes += workers
        import json

        from balloontrace.fleet import on_dask

        address = json.loads(where.read_text())["address"]
        with on_dask.connected(address) as client:
            client.wait_for_workers(2, timeout=60)
        yield address, workers
    finally:
        for process in reversed(processes):
            process.kill()
            process.wait()
        log.close()


def test_a_worker_of_the_cluster_that_is_killed_costs_nothing(
    tmp_path: Path, cluster: Cluster
) -> None:
    from balloontrace.fleet import on_dask

    address, workers = cluster
    hostile(fleet(tmp_path / "in", 21))
    found = sources_in(tmp_path / "in")
    here, there = Dataset.made(tmp_path / "here"), Dataset.made(tmp_path / "there")
    run(here, found)
    looked: list[int] = []

    def kill(progress: engine.Progress) -> None:
        looked.append(progress.files_done)
        if len(looked) == 1:
            workers[0].kill()

    with there.alone():
        pool = on_dask.OnDask(on_dask.connected(address), there, LIMITS)
        progress = engine.run(batches_of(found, BY, 8), pool, there, kill)
    assert looked[0] < progress.files_done == 24
    assert progress.failures == {"unreadable": 3}
    for name in TABLES:
        assert rows(here, name) == rows(there, name), name
    assert workers[1].poll() is None  # a cluster that was there stays


def test_no_scheduler_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    from balloontrace.fleet import on_dask

    monkeypatch.setattr(on_dask, "_CONNECT_S", 1)
    with pytest.raises(UserError, match=r"no scheduler at tcp://127\.0\.0\.1:9") as raised:
        on_dask.connected("tcp://127.0.0.1:9")
    assert "\n" not in str(raised.value)
