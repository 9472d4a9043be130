# SPDX-License-Identifier: Apache-2.0
"""The servers of fleets' tests: each the real one, on loopback."""

from __future__ import annotations

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

from balloontrace.fleet import sources
from tools.cluster import Cluster
from tools.cluster import cluster as begun

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
    """A scheduler with two workers."""
    with begun(tmp_path, 2) as there:
        yield there
