# SPDX-License-Identifier: Apache-2.0
"""A cluster whose scheduler and workers are processes of their own."""

from __future__ import annotations

from pathlib import Path

import pytest

from balloontrace.errors import UserError
from balloontrace.fleet import engine, on_dask
from balloontrace.fleet.batches import batches_of
from balloontrace.fleet.dataset import Dataset
from balloontrace.fleet.schema import TABLES
from tests.unit.fleet.fleets import BY, LIMITS, fleet, hostile, rows, run, sources_in
from tools.cluster import Cluster


def test_a_worker_of_the_cluster_that_is_killed_costs_nothing(
    tmp_path: Path, cluster: Cluster
) -> None:
    address, workers = cluster.address, cluster.workers
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
    threads = Path(f"/proc/{workers[1].pid}/task").glob("*/children")
    assert not any(thread.read_text() for thread in threads), "a reader, if only a zombie"


def test_no_scheduler_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(on_dask, "_CONNECT_S", 1)
    with pytest.raises(UserError, match=r"no scheduler at tcp://127\.0\.0\.1:9") as raised:
        on_dask.connected("tcp://127.0.0.1:9")
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("said", ["nonsense", "tcp://", "tcp://host", "tcp://host:x"])
def test_what_is_no_address_is_said_at_once(said: str) -> None:
    with pytest.raises(UserError, match="is no address of a scheduler"):
        on_dask.connected(said)
