# SPDX-License-Identifier: Apache-2.0
"""The servers of fleets' tests: each the real one, on loopback."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from urllib.error import URLError

import pytest
from obstore.store import S3Store

from balloontrace.fleet import on_dask, sources

Cluster = tuple[str, list["subprocess.Popen[bytes]"]]

SECRET = "not-to-be-kept"


@pytest.fixture
def bucket(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[S3Store]:
    """A bucket called `bucket`, which the environment says how to reach."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    words = ["-H", "127.0.0.1", "-p", address.partition(":")[2]]
    with (tmp_path / "moto.log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "moto.server", *words], stdout=log, stderr=log
        )
    try:
        for key, value in {
            "AWS_ENDPOINT_URL": f"http://{address}",
            "AWS_ALLOW_HTTP": "true",
            "AWS_ACCESS_KEY_ID": "testing",
            "AWS_SECRET_ACCESS_KEY": SECRET,
            "AWS_REGION": "us-east-1",
        }.items():
            monkeypatch.setenv(key, value)
        made = urllib.request.Request(f"http://{address}/bucket", method="PUT")
        while True:
            try:
                urllib.request.urlopen(made)
                break
            except URLError:
                assert process.poll() is None, (tmp_path / "moto.log").read_text()
                time.sleep(0.05)
        sources._store.cache_clear()
        store = sources._store("s3://bucket")
        assert isinstance(store, S3Store)
        yield store
    finally:
        sources._store.cache_clear()
        process.kill()
        process.wait()


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
        address = json.loads(where.read_text())["address"]
        with on_dask.connected(address) as client:
            client.wait_for_workers(2, timeout=60)
        yield address, workers
    finally:
        for process in reversed(processes):
            process.kill()
            process.wait()
        log.close()
