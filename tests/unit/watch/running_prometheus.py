# SPDX-License-Identifier: Apache-2.0
"""Prometheus on loopback, which reads guests of ours, and guests for it to read."""

from __future__ import annotations

import json
import re
import select
import socket
import subprocess
import threading
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from balloontrace import sums
from balloontrace.conditions.triggers import FINDINGS
from balloontrace.watch.exposition import page
from balloontrace.watch.metrics import DUMPED_FOR, REASONS
from balloontrace.watch.server import Server
from tests.unit.watch.prometheus import debians_prometheus
from tests.unit.watch.readings import everything, sums_of

PATIENCE_S = 60.0
"""Until a test fails that waits for what does not come."""

INTERVAL = "250ms"
JOB = "balloontrace"


class Guest:
    """A guest in which everything happens between any two looks at it."""

    def __init__(self, attached: bool) -> None:
        self._attached, self._looks = attached, 0

    def __call__(self) -> bytes:
        """The page of now."""
        self._looks += 1
        looks, reading = self._looks, everything()
        reading.attached = self._attached
        reading.sums = sums_of({row.name: [1 << 15, 1 << 22, 1 << 30] * looks for row in sums.ROWS})
        reading.counters = {"fill": dict.fromkeys(REASONS.values(), looks)}
        reading.findings = dict.fromkeys(FINDINGS, looks)
        reading.dumps = dict.fromkeys(DUMPED_FOR, looks)
        reading.progress_pages, reading.no_progress_ns = looks, looks * 10**7
        reading.cpu_ns = looks * 10**6
        return page(reading)


@contextmanager
def served(guest: Guest) -> Iterator[str]:
    """Where its metrics are read, from a thread."""
    server = Server(("127.0.0.1", 0), guest)
    told, tell = socket.socketpair()

    def serve() -> None:
        stop = told.fileno()
        while stop not in select.select([server.fileno(), stop], [], [])[0]:
            server.serve()

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield f"127.0.0.1:{server.port}"
    finally:
        tell.send(b".")
        thread.join()
        server.close()
        told.close()
        tell.close()


@contextmanager
def refusing() -> Iterator[str]:
    """An address that is taken, and at which nobody listens."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield f"127.0.0.1:{bound.getsockname()[1]}"


class Prometheus:
    """One that runs."""

    def __init__(self, address: str) -> None:
        self._address = address

    def ask(self, path: str, **parameters: str) -> Any:
        """The data of an answer of its API. Raises HTTPError if it says that this is an error."""
        words = {"match[]" if name == "match" else name: of for name, of in parameters.items()}
        url = f"http://{self._address}/api/v1/{path}?{urllib.parse.urlencode(words)}"
        with urllib.request.urlopen(url, timeout=PATIENCE_S) as answer:
            return json.load(answer)["data"]

    def now(self, query: str) -> list[dict[str, Any]]:
        """The series of an instant vector; `values` are pairs of time and text, as of a range."""
        found = self.ask("query", query=query)["result"]
        return [{"metric": one["metric"], "values": [one["value"]]} for one in found]

    def lately(self, query: str) -> list[dict[str, Any]]:
        """The series of a range vector of the last seconds."""
        end = time.time()
        times = {"start": f"{end - 2:.3f}", "end": f"{end:.3f}", "step": INTERVAL}
        found: list[dict[str, Any]] = self.ask("query_range", query=query, **times)["result"]
        return found

    def wait_for(self, query: str) -> None:
        """Until a query has an answer."""
        deadline = time.monotonic() + PATIENCE_S
        while not self.now(query):
            assert time.monotonic() < deadline, query
            time.sleep(0.1)  # it tells nobody when it has scraped


@contextmanager
def running(directory: Path, rules: str) -> Iterator[Prometheus]:
    """With these rules, and with three targets: a guest, one that is not attached, and nobody."""
    with ExitStack() as stack:
        guests = [stack.enter_context(served(Guest(attached))) for attached in (True, False)]
        targets = [*guests, stack.enter_context(refusing())]
        (directory / "rules.yml").write_text(rules)
        times = {"scrape_interval": INTERVAL, "scrape_timeout": INTERVAL}
        config = {
            "global": {**times, "evaluation_interval": INTERVAL},
            "rule_files": ["rules.yml"],
            "scrape_configs": [{"job_name": JOB, "static_configs": [{"targets": targets}]}],
        }
        (directory / "prometheus.yml").write_text(json.dumps(config))  # JSON is YAML
        yield stack.enter_context(_process(directory))


@contextmanager
def _process(directory: Path) -> Iterator[Prometheus]:
    command = [
        str(debians_prometheus() / "usr/bin/prometheus"),
        *("--config.file=prometheus.yml", "--storage.tsdb.path=data"),
        "--web.listen-address=127.0.0.1:0",
    ]
    with subprocess.Popen(command, cwd=directory, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr
        log = iter(process.stderr)
        reader = threading.Thread(target=list, args=(log,))
        try:
            address = _address(log)
            reader.start()  # or it would stand still one day, with nobody to read what it says
            yield Prometheus(address)
        finally:
            process.terminate()
            if reader.ident:
                reader.join()


def _address(log: Iterator[str]) -> str:
    """Where it listens, once it answers. Raises RuntimeError if it ends before it does."""
    said = ""
    for line in log:
        said += line
        if "Server is ready to receive web requests" in line:
            (address,) = re.findall(r'msg="Listening on" address=(\S+)', said)
            return str(address)
    raise RuntimeError(said)
