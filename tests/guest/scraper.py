# SPDX-License-Identifier: Apache-2.0
"""A real Prometheus on the host that scrapes one guest, with the project's own rules."""

from __future__ import annotations

import json
import socket
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self, TypeVar

from tests.unit.watch.prometheus import debians_prometheus

RULES = Path(__file__).parents[2] / "share" / "prometheus" / "balloontrace.rules.yml"
INTERVAL_S = 2
PATIENCE_S = 180.0
_POLL_S = 0.5

_CONFIGURATION = """\
global: {{scrape_interval: {interval}s, evaluation_interval: {interval}s}}
rule_files: ["{rules}"]
scrape_configs:
- job_name: balloontrace
  static_configs: [{{targets: ["127.0.0.1:{port}"]}}]
"""

Got = TypeVar("Got")


class Prometheus:
    """It runs within the block. port: of the host's loopback, where the guest answers."""

    def __init__(self, directory: Path, port: int) -> None:
        self._directory = directory
        configuration = _CONFIGURATION.format(interval=INTERVAL_S, rules=RULES, port=port)
        (directory / "prometheus.yml").write_text(configuration)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self._address = f"127.0.0.1:{free.getsockname()[1]}"
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        command = [
            str(debians_prometheus() / "usr/bin/prometheus"),
            f"--config.file={self._directory}/prometheus.yml",
            f"--storage.tsdb.path={self._directory}/tsdb",
            f"--web.listen-address={self._address}",
        ]
        with (self._directory / "prometheus.log").open("wb") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log)
        return self

    def __exit__(self, *_: object) -> None:
        if self._process:
            self._process.terminate()
            self._process.wait()

    def query(self, expression: str) -> float | None:
        """The only series of an expression now; None if there is none."""
        found = self._get("query", query=expression)["result"]
        return float(found[0]["value"][1]) if found else None

    def await_value(self, expression: str, wanted: Callable[[float], bool]) -> float:
        """What an expression comes to, when that is as wanted."""

        def value() -> float | None:
            now = self.query(expression)
            return now if now is not None and wanted(now) else None

        return self._await(value, expression)

    def await_alert(self, **labels: str) -> dict[str, Any]:
        """The alert with these labels, when it fires."""

        def firing() -> dict[str, Any] | None:
            alerts = self._get("alerts")["alerts"]
            return next(
                (
                    alert for alert in alerts
                    if alert["state"] == "firing" and labels.items() <= alert["labels"].items()
                ),
                None,
            )  # fmt: skip

        return self._await(firing, f"an alert with {labels}")

    def _await(self, look: Callable[[], Got | None], what: str) -> Got:
        deadline = time.monotonic() + PATIENCE_S
        while time.monotonic() < deadline:
            try:
                if (found := look()) is not None:
                    return found
            except urllib.error.URLError:  # it does not listen yet
                pass
            time.sleep(_POLL_S)
        log = (self._directory / "prometheus.log").read_text()[-2000:]
        raise AssertionError(f"not in {PATIENCE_S:.0f} s: {what}\n{log}")

    def _get(self, what: str, **parameters: str) -> Any:
        query = urllib.parse.urlencode(parameters)
        with urllib.request.urlopen(f"http://{self._address}/api/v1/{what}?{query}") as answer:
            return json.load(answer)["data"]
