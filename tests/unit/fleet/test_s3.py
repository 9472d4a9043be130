# SPDX-License-Identifier: Apache-2.0
"""A real server that speaks S3, on loopback."""

from __future__ import annotations

import os
from pathlib import Path

import obstore
import pytest
from obstore.store import S3Store

from balloontrace.errors import UserError
from balloontrace.fleet.dataset import Dataset
from balloontrace.fleet.sources import Unreachable, found, local, named
from tests.unit.fleet.conftest import SECRET
from tests.unit.fleet.fleets import fleet, rows, run


def test_objects_are_read_as_files_are(tmp_path: Path, bucket: S3Store) -> None:
    directory = fleet(tmp_path / "in", 6)
    for number, path in enumerate(sorted(directory.iterdir())):
        key = f"2026/{number}/a b%2e.btrace" if number else "2026/first.btrace"
        obstore.put(bucket, key, path.read_bytes())
    obstore.put(bucket, "2026/notes.txt", b"no recording")
    every = found(["s3://bucket/2026/**.btrace"])
    assert len(every) == 6
    assert found(["s3://bucket/2026"]) == found(["s3://bucket/2026/"]) == every
    assert len(found(["s3://bucket/2026/*.btrace"])) == 1
    assert found(["s3://bucket/2026/first.btrace"]) == [named(every[-1].name)] == every[-1:]
    with pytest.raises(UserError, match="there is no recording"):
        found(["s3://bucket/2025/**"])
    dataset = Dataset.made(tmp_path / "out")
    progress = run(dataset, every)
    assert (progress.files_done, progress.failures) == (6, {})
    assert {row["host_name"] for row in rows(dataset, "guest")} == {f"host-{n}" for n in range(6)}
    for part in dataset.directory.glob("**/*.parquet"):
        assert SECRET.encode() not in part.read_bytes()


def test_an_object_that_is_replaced_is_not_taken_for_what_was_found(
    tmp_path: Path, bucket: S3Store
) -> None:
    obstore.put(bucket, "a.btrace", b"one")
    (one,) = found(["s3://bucket/a.btrace"])
    with local(one) as path:
        assert Path(path).read_bytes() == b"one"
        assert "(deleted)" in os.readlink(path)  # whatever ends a worker, nothing stays
    assert not os.path.exists(path)
    obstore.put(bucket, "a.btrace", b"two")
    with pytest.raises(Unreachable, match="changed"), local(one):
        pass
