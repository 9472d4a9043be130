# SPDX-License-Identifier: Apache-2.0
"""The rules for Prometheus, run by promtool: each alert fires when it should, and only then."""

from __future__ import annotations

import json
import re
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from balloontrace.analysis.findings import every_finding
from balloontrace.conditions.triggers import FINDINGS
from balloontrace.watch.metrics import REASONS
from tests.unit.test_docs import anchors_of
from tests.unit.watch.prometheus import debians_prometheus
from tools import prometheus
from tools.prometheus import ALERTS, MOVED_PER_PROGRESS, NO_PROGRESS, Alert

DOCS = Path(__file__).parents[3] / "docs"
WHO = {"instance": "guest-1:9758", "job": "balloontrace"}
ELSEWHERE = {"instance": "guest-2:9100", "job": "node"}


def series(name: str, **labels: str) -> str:
    pairs = ",".join(f"{key}={json.dumps(value)}" for key, value in labels.items())
    return f"{name}{{{pairs}}}"


@dataclass(frozen=True)
class Case:
    """Samples of one a minute, and the minutes at which an alert is not there, is, and is over.

    others: series that mean nothing to any alert; labels: that the alert has from its series.
    """

    sample: str
    values: str
    quiet: int
    fires: int
    over: int
    labels: dict[str, str]
    others: dict[str, str]


def counted(name: str, label: str, value: str, others: tuple[str, ...]) -> Case:
    """A counter whose value becomes 1 in minute 11, beside the others, which stand still."""
    labels = {**WHO, label: value}
    still = {series(name, **WHO, **{label: each}): "3x40" for each in others if each != value}
    return Case(series(name, **labels), "0x10 1x30", 10, 12, 22, labels, still)


def gauge(name: str, holds: int, others: dict[str, str]) -> Case:
    """A gauge that is 0 from minute 6 to 26."""
    fires = 6 + holds
    return Case(series(name, **WHO), "1x5 0x20 1x14", fires - 1, fires, 27, WHO, others)


def file(name: str) -> dict[str, str]:
    return {**ELSEWHERE, "file": name}


CASES = {
    **{
        alert.name: counted("balloontrace_findings_total", "finding", finding, FINDINGS)
        for alert, finding in zip(prometheus.OF_FINDINGS, FINDINGS, strict=True)
    },
    "BalloontraceDown": gauge("up", 5, {series("up", **ELSEWHERE): "0x40"}),
    "BalloontraceNotAttached": gauge("balloontrace_attached", 10, {}),
    "BalloontraceDisagrees": gauge("balloontrace_vmstat_agrees", 5, {}),
    "BalloontraceLostCalls": counted(
        "balloontrace_lost_calls_total", "reason", "ring", tuple(REASONS)
    ),
    # Written each minute until minute 10, and again from minute 31 on.
    "BalloontraceTextfileStale": Case(
        series("node_textfile_mtime_seconds", **file("/var/lib/textfiles/balloontrace.prom")),
        "0+60x10 600x19 1860+60x9",
        15,
        16,
        31,
        file("/var/lib/textfiles/balloontrace.prom"),
        {series("node_textfile_mtime_seconds", **file("/x/notballoontrace.prom")): "0x40"},
    ),
}


def said(alert: Alert, labels: dict[str, str]) -> dict[str, str]:
    """Its annotations, of a series with these labels."""

    def value(match: re.Match[str]) -> str:
        return labels[match[1]]

    texts = alert.annotations.items()
    return {key: re.sub(r"{{ \$labels\.(\w+) }}", value, text) for key, text in texts}


def expected(alert: Alert, case: Case, minute: int, there: bool) -> dict[str, Any]:
    labels = {"severity": alert.severity, **case.labels}
    one = {"exp_labels": labels, "exp_annotations": said(alert, case.labels)}
    return {
        "eval_time": f"{minute}m",
        "alertname": alert.name,
        "exp_alerts": [one] if there else [],
    }


def of_no_other(alert: Alert, minute: int) -> dict[str, Any]:
    """Whatever is on at that time is this alert."""
    query = f'ALERTS{{alertname!="{alert.name}"}}'
    return {"eval_time": f"{minute}m", "expr": query, "exp_samples": []}


def promtool_test(directory: Path, test: dict[str, Any]) -> str:
    """What `promtool test rules` has against the rules; '' is nothing."""
    (directory / "rules.yml").write_text(prometheus.rules())
    file = {"rule_files": ["rules.yml"], "evaluation_interval": "1m", "tests": [test]}
    # JSON is YAML, but for infinity.
    (directory / "test.yml").write_text(json.dumps(file).replace("Infinity", ".inf"))
    command = [str(debians_prometheus() / "usr/bin/promtool"), "test", "rules", "test.yml"]
    done = subprocess.run(command, cwd=directory, capture_output=True, text=True, check=False)
    return "" if done.returncode == 0 else done.stdout + done.stderr


def inputs(of: dict[str, str]) -> list[dict[str, str]]:
    return [{"series": name, "values": values} for name, values in of.items()]


@pytest.mark.parametrize("alert", ALERTS, ids=lambda alert: alert.name)
def test_an_alert_fires_when_it_should_and_resolves(alert: Alert, tmp_path: Path) -> None:
    case = CASES[alert.name]
    moments = {case.quiet: False, case.fires: True, case.over: False}
    test = {
        "interval": "1m",
        "input_series": inputs({case.sample: case.values, **case.others}),
        "alert_rule_test": [expected(alert, case, *moment) for moment in moments.items()],
        "promql_expr_test": [of_no_other(alert, minute) for minute in moments],
    }
    assert promtool_test(tmp_path, test) == ""


def test_what_is_not_known_raises_no_alert(tmp_path: Path) -> None:
    """Samples of a guest that end, or were never there."""
    gone = {series("balloontrace_vmstat_agrees", **WHO): "1x5 _x30", series("up", **WHO): "1x40"}
    quiet = {"eval_time": "30m", "expr": "ALERTS", "exp_samples": []}
    test = {"interval": "1m", "input_series": inputs(gone), "promql_expr_test": [quiet]}
    assert promtool_test(tmp_path, test) == ""


@pytest.mark.parametrize(
    ("name", "samples", "value"),
    [
        (MOVED_PER_PROGRESS.name, {"in": "0+200x20", "out": "0+100x20", "progress": "0+100x20"}, 3),
        (MOVED_PER_PROGRESS.name, {"in": "7x20", "out": "7x20", "progress": "7x20"}, None),
        (MOVED_PER_PROGRESS.name, {"in": "0+1x20", "progress": "0x20"}, float("inf")),
        (NO_PROGRESS.name, {"without": "0+30x20"}, 0.5),
    ],
)
def test_what_is_recorded_is_right(
    name: str, samples: dict[str, str], value: float | None, tmp_path: Path
) -> None:
    names = {
        "in": series("balloontrace_moved_bytes_total", **WHO, direction="in", cause="host"),
        "out": series("balloontrace_moved_bytes_total", **WHO, direction="out", cause="shrinker"),
        "progress": series("balloontrace_progress_bytes_total", **WHO),
        "without": series("balloontrace_no_progress_seconds_total", **WHO),
    }
    found = [] if value is None else [{"labels": series(name, **WHO), "value": value}]
    test = {
        "interval": "1m",
        "input_series": inputs({names[of]: values for of, values in samples.items()}),
        "promql_expr_test": [{"eval_time": "15m", "expr": name, "exp_samples": found}],
    }
    assert promtool_test(tmp_path, test) == ""


def test_promtool_has_nothing_against_the_rules(tmp_path: Path) -> None:
    (tmp_path / "rules.yml").write_text(prometheus.rules())
    command = [str(debians_prometheus() / "usr/bin/promtool"), "check", "rules", "rules.yml"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    count = len(ALERTS) + len(prometheus.RECORDINGS)
    assert f"SUCCESS: {count} rules found" in done.stdout, done.stderr


def test_each_trigger_is_as_severe_as_its_worst_finding() -> None:
    known = every_finding()
    for alert in prometheus.OF_FINDINGS:
        ids = [place.partition("#")[2] for place in alert.docs]
        worst = {known[id].severity for id in ids}
        assert (alert.severity == "critical") == ("high" in worst), alert.name


@pytest.mark.parametrize("alert", ALERTS, ids=lambda alert: alert.name)
def test_what_an_alert_points_to_is_there(alert: Alert) -> None:
    assert alert.docs
    for place in alert.docs:
        name, _, anchor = place.partition("#")
        assert anchor in anchors_of(DOCS / name)


def test_the_guide_has_the_alerts_of_now() -> None:
    guide = prometheus.GUIDE.read_text()
    assert guide == prometheus.with_tables(guide), "run `make docs`"
    assert all(f"| `{alert.name}` |" in guide for alert in ALERTS)
