# SPDX-License-Identifier: Apache-2.0
"""The dashboards: Grafana's own types of them, and what Prometheus answers to each query."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from balloontrace.watch.metrics import METRICS
from tests.unit.watch.grafana import schema
from tests.unit.watch.running_prometheus import JOB, Prometheus, running
from tools import dashboard, prometheus

pytestmark = pytest.mark.xdist_group("a prometheus that runs")

DASHBOARDS = {each["uid"]: each for each in (dashboard.guest(), dashboard.fleet())}
TEXTS = {uid: dashboard.text(each) for uid, each in DASHBOARDS.items()}
PANELS = {
    f"{uid}: {panel['title']}, {panel['id']}": panel
    for uid, each in DASHBOARDS.items()
    for panel in each["panels"]
    if panel["type"] != "row"
}
VARIABLES = {
    f"{uid}: {variable['name']}": variable
    for uid, each in DASHBOARDS.items()
    for variable in each["templating"]["list"]
    if variable["type"] == "query"
}
QUERIES = [target["expr"] for panel in PANELS.values() for target in panel["targets"]]


def test_grafanas_types_have_nothing_against_them(tmp_path: Path) -> None:
    assert schema.complaints(TEXTS, tmp_path) == []


def test_grafanas_types_would_say_so(tmp_path: Path) -> None:
    wrong = {
        "option": ('"showHeader"', '"showHeaders"'),
        "field": ('"drawStyle": "line"', '"drawStyle": "lines"'),
        "query": ('"legendFormat"', '"legend"'),
        "enumeration": ('"graphTooltip": 1', '"graphTooltip": 7'),
        "lacking": ('"schemaVersion": 42,', ""),
    }
    spoilt = {name: TEXTS[dashboard.GUEST].replace(*words) for name, words in wrong.items()}
    said = schema.complaints(spoilt, tmp_path)
    assert {name for name in wrong if any(line.startswith(f"{name}.ts") for line in said)} == {
        *wrong
    }


def metrics_in(query: str) -> set[str]:
    """Names of metrics; histograms' without the ends of their series."""
    return {
        re.sub(r"(_seconds)_(bucket|sum|count)$", r"\1", name)
        for name in re.findall(r"\b(?:balloontrace|process)[_:][\w:]+", query)
    }


def test_every_metric_is_shown_and_no_other() -> None:
    shown = set().union(*map(metrics_in, QUERIES))
    declared = {metric.name for metric in METRICS}
    assert declared - shown == set()
    assert shown - declared == {rule.name for rule in prometheus.RECORDINGS}


@pytest.mark.parametrize("uid", DASHBOARDS)
def test_no_panel_lies_on_another(uid: str) -> None:
    taken: set[tuple[int, int]] = set()
    for panel in DASHBOARDS[uid]["panels"]:
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= dashboard.COLUMNS, panel["title"]
        columns = range(place["x"], place["x"] + place["w"])
        cells = {(x, y) for x in columns for y in range(place["y"], place["y"] + place["h"])}
        assert not cells & taken, panel["title"]
        taken |= cells


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    """Prometheus, once it has seen what a rate and each rule need."""
    directory = tmp_path_factory.mktemp("prometheus")
    with running(directory, prometheus.rules()) as one:
        one.wait_for("count(count_over_time(balloontrace_info[1m]) > 8) == 2")
        one.wait_for("count(ALERTS{alertstate='firing',alertname='BalloonDriverGone'}) == 2")
        yield one


def asked(server: Prometheus, text: str) -> str:
    """A query with what Grafana would put for its variables."""
    (instance,) = [one["metric"]["instance"] for one in server.now("balloontrace_attached == 1")]
    values = {"job": JOB, "instance": instance, "__rate_interval": "2s", "__range": "1m"}
    return re.sub(r"\$(\w+)", lambda match: values[match[1]], text)


def answer(server: Prometheus, target: dict[str, Any]) -> list[dict[str, Any]]:
    ask = server.now if target["instant"] else server.lately
    return ask(asked(server, target["expr"]))


def labels_of(target: dict[str, Any]) -> set[str]:
    """Which its series must have: those of its legend, and those it is summed up by."""
    summed = re.match(r"(?:sum|count) by \((.*?)\)", target["expr"])
    by = summed[1].split(", ") if summed else []
    return {*re.findall(r"{{(\w+)}}", target["legendFormat"]), *by}


@pytest.mark.parametrize("panel", PANELS.values(), ids=PANELS)
def test_each_query_is_answered(server: Prometheus, panel: dict[str, Any]) -> None:
    for target in panel["targets"]:
        series = answer(server, target)
        values = [float(text) for one in series for _, text in one["values"]]
        assert any(math.isfinite(value) for value in values), target["expr"]
        for one in series:
            assert one["metric"].keys() >= labels_of(target), target["expr"]
            # A table's row leads to its guest, which takes both.
            assert "instance" not in one["metric"] or "job" in one["metric"]


@pytest.mark.parametrize("variable", VARIABLES.values(), ids=VARIABLES)
def test_each_variable_has_values(server: Prometheus, variable: dict[str, Any]) -> None:
    form = r"label_values\((.*), (\w+)\)"
    match = re.fullmatch(form, variable["query"]["query"])
    assert match
    values = server.ask(f"label/{match[2]}/values", match=asked(server, match[1]))
    assert len(values) == (2 if variable["name"] == "instance" else 1)


@pytest.mark.parametrize("uid", DASHBOARDS)
def test_alerts_are_shown_as_annotations(server: Prometheus, uid: str) -> None:
    (annotation,) = DASHBOARDS[uid]["annotations"]["list"]
    found = server.lately(asked(server, annotation["target"]["expr"]))
    names = {one["metric"]["alertname"] for one in found}
    assert names >= {alert.name for alert in prometheus.OF_FINDINGS}


def test_prometheus_takes_each_rule(server: Prometheus) -> None:
    groups = server.ask("rules")["groups"]
    rules = {rule["name"]: rule for group in groups for rule in group["rules"]}
    alerts = {alert.name for alert in prometheus.ALERTS}
    assert rules.keys() == alerts | {one.name for one in prometheus.RECORDINGS}
    assert {rule["health"] for rule in rules.values()} == {"ok"}
    states = {name: rule.get("state") for name, rule in rules.items()}
    assert {states[alert.name] for alert in prometheus.OF_FINDINGS} == {"firing"}
    held = ("BalloontraceDown", "BalloontraceNotAttached", "BalloontraceDisagrees")
    assert {states[name] for name in held} == {"pending"}
