# SPDX-License-Identifier: Apache-2.0
"""Two thousand recordings in object storage, read by a cluster that loses a worker, against the
same files read by one process here."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import obstore
from obstore.store import S3Store

from balloontrace.fleet import engine, on_dask
from balloontrace.fleet.batches import batches_of
from balloontrace.fleet.dataset import Dataset
from balloontrace.fleet.overview import fleet_of, overview_of
from balloontrace.fleet.schema import TABLES
from balloontrace.fleet.sources import found
from balloontrace.fleet.work import Limits
from tests.unit.fleet.fleets import BY, hog, hostile, rows, run, sources_in
from tools.cluster import Cluster
from tools.fleet_recordings import make

NUMBER = 2000
LIMITS = Limits(256 << 20, 60)
"""The largest of the recordings takes half of that."""

HOG_BLOCKS = 10
STORE = "s3://bucket/"

OF_THE_STORE = ("source", "version", "day")
"""What another place says otherwise: an object's day is that of its upload."""


def put(bucket: S3Store, directory: Path) -> None:
    """Upload all files below a directory."""
    for path in directory.rglob("*.btrace"):
        obstore.put(bucket, path.relative_to(directory).as_posix(), path.read_bytes())


def test_the_dataset_of_a_cluster_is_that_of_one_process(
    tmp_path: Path, bucket: S3Store, cluster: Cluster
) -> None:
    directory = tmp_path / "in"
    made = make(directory, NUMBER, 18)
    bad = hostile(directory)
    hog(directory / "hog.btrace", HOG_BLOCKS)
    put(bucket, directory)
    here, there = Dataset.made(tmp_path / "here"), Dataset.made(tmp_path / "there")
    run(here, sources_in(directory), 1, LIMITS)

    address, workers = cluster.address, cluster.workers
    killed_at: list[int] = []

    def kill(progress: engine.Progress) -> None:
        if not killed_at and progress.files_done > NUMBER / 3:
            workers[0].kill()
            killed_at.append(progress.files_done)

    with there.alone():
        batches = batches_of(found([f"{STORE}**.btrace"]), BY, 2)
        pool = on_dask.OnDask(on_dask.connected(address), there, LIMITS)
        progress = engine.run(batches, pool, there, kill)
    assert progress.files_done == progress.files == NUMBER + len(bad) + 1
    assert killed_at
    assert killed_at[0] < NUMBER / 2

    for name in TABLES:
        assert same(rows(here, name), f"{directory}/") == same(rows(there, name), STORE), name
    unreadable = [one.file for one in made if not one.readable] + list(bad)
    failures = {row["source"].removeprefix(STORE): row["kind"] for row in rows(there, "failure")}
    assert failures == {**dict.fromkeys(unreadable, "unreadable"), "hog.btrace": "memory"}
    said = overview_of(fleet_of(there))
    findings = {row["id"]: row["recordings"] for row in said.findings if row["recordings"]}
    assert findings == Counter(name for one in made if one.readable for name in one.findings)


def same(of_table: list[dict[str, Any]], begin: str) -> list[dict[str, Any]]:
    """Rows with the name within the store or directory, in its order, and without what it says of
    a file. The day of a guest is by its own clock, and stays."""
    told = [
        {"file": row["source"].removeprefix(begin)}
        | {
            key: value
            for key, value in row.items()
            if key not in OF_THE_STORE or (key == "day" and "kernel" in row)
        }
        for row in of_table
    ]
    return sorted(told, key=lambda row: (row["file"], str(row)))
