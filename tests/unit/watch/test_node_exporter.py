# SPDX-License-Identifier: Apache-2.0
"""The textfile as a real node_exporter shows it: every series of ours, and its own beside them."""

from __future__ import annotations

import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from balloontrace.watch import textfile
from balloontrace.watch.exposition import page
from tests.unit.watch.prometheus import Series, debians, series_of, series_of_another
from tests.unit.watch.readings import everything

PATIENCE_S = 60.0


@pytest.fixture
def exporter(tmp_path: Path) -> Iterator[str]:
    """Where a node_exporter that reads this directory, and nothing else, is asked."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    program = debians("prometheus-node-exporter") / "usr/bin/prometheus-node-exporter"
    command = [program, "--collector.disable-defaults", "--collector.textfile"]
    options = [
        f"--collector.textfile.directory={tmp_path}",
        f"--web.listen-address=127.0.0.1:{port}",
    ]
    process = subprocess.Popen([*map(str, command), *options], stderr=subprocess.DEVNULL)
    yield f"http://127.0.0.1:{port}/metrics"
    process.kill()
    process.wait()


def shown_by(address: str) -> Series:
    """What it shows, once it answers."""
    end_s = time.monotonic() + PATIENCE_S
    while True:
        try:
            with urllib.request.urlopen(address) as answer:
                return series_of_another(answer.read())
        except urllib.error.URLError:
            assert time.monotonic() < end_s
            time.sleep(0.05)


def by_limit(series: Series) -> Series:
    """The same with the limits of buckets as numbers: Go writes 1.6384e-05."""
    return {
        (name, frozenset((k, str(float(v)) if k == "le" else v) for k, v in labels)): value
        for (name, labels), value in series.items()
    }


def test_a_node_exporter_shows_every_series_beside_its_own(tmp_path: Path, exporter: str) -> None:
    made = page(everything(), by_another=True)
    textfile.write(str(tmp_path), made)
    shown, ours = by_limit(shown_by(exporter)), by_limit(series_of(made))
    assert {key: shown[key] for key in ours} == ours
    assert shown["node_textfile_scrape_error", frozenset()] == 0
    assert any(name == "process_cpu_seconds_total" for name, _ in shown)  # its own, of the exporter
    assert any(name == "node_textfile_mtime_seconds" for name, _ in shown)
