# SPDX-License-Identifier: Apache-2.0
"""What Prometheus and its Python client make of a page of metrics."""

from __future__ import annotations

import fcntl
import io
import shutil
import subprocess
import tempfile
from collections.abc import Iterable
from pathlib import Path

from prometheus_client.metrics_core import Metric
from prometheus_client.openmetrics import parser as openmetrics
from prometheus_client.parser import text_string_to_metric_families

from balloontrace.lab.image import cache_directory

Series = dict[tuple[str, frozenset[tuple[str, str]]], float]
"""Name of a sample and its labels -> value."""


def debians_prometheus() -> Path:
    """Directory of Debian's package `prometheus`, see `debians`."""
    return debians("prometheus")


def debians(package: str) -> Path:
    """Directory of a package of Debian's, unpacked, fetched before its first use.

    Raises CalledProcessError if it cannot be had.
    """
    tree = cache_directory() / package
    tree.parent.mkdir(parents=True, exist_ok=True)
    with (tree.parent / f"lock-{package}").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not tree.exists():
            _fetch(package, tree)
    return tree


def _fetch(name: str, tree: Path) -> None:
    with tempfile.TemporaryDirectory(dir=tree.parent) as work:
        options = ("-o", "APT::Sandbox::User=root", "-o", "Acquire::Retries=3")
        subprocess.run(["apt-get", "-q", *options, "download", name], cwd=work, check=True)
        (package,) = Path(work).glob("*.deb")
        subprocess.run(["dpkg", "-x", str(package), f"{work}/tree"], check=True)
        shutil.move(f"{work}/tree", tree)


def promtool(page: bytes) -> str:
    """What `promtool check metrics` has against a page; '' is nothing."""
    command = [str(debians_prometheus() / "usr/bin/promtool"), "check", "metrics"]
    done = subprocess.run(
        command, input=page, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False
    )
    return done.stdout.decode() or (f"exit {done.returncode}" if done.returncode else "")


def series_of(page: bytes) -> Series:
    """The samples of a page, read as the text format it is, and as OpenMetrics.

    Raises ValueError if there is anything wrong with it: what the format's own parser lets pass
    are repeated and split families, and histograms that are none.
    """
    text = page.decode("utf-8")
    found = _samples(text_string_to_metric_families(text))
    converted = io.StringIO(_as_openmetrics(text))
    strict = _samples(openmetrics.text_fd_to_metric_families(converted))  # type: ignore[no-untyped-call]
    lines = sum(1 for line in text.splitlines() if not line.startswith("#"))
    if not len(found) == len(strict) == lines:
        raise ValueError("a series stands there twice")
    if found != strict:
        raise ValueError("the parsers do not agree")
    return found


def series_of_another(page: bytes) -> Series:
    """The samples of a page that is not ours, as the text format's own parser reads it."""
    return _samples(text_string_to_metric_families(page.decode("utf-8")))


def _samples(families: Iterable[Metric]) -> Series:
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in families
        for sample in family.samples
    }


def _as_openmetrics(text: str) -> str:
    """The same in OpenMetrics, in which a counter's family has no `_total`, and the page an end."""
    lines = []
    counters = {
        line.split()[2] for line in text.splitlines() if line.startswith("# TYPE ")
        and line.endswith(" counter")
    }  # fmt: skip
    for line in text.splitlines():
        words = line.split(" ", 3)
        if words[0] == "#" and words[2] in counters:
            words[2] = words[2].removesuffix("_total")
        lines.append(" ".join(words))
    return "\n".join([*lines, "# EOF", ""])
