# SPDX-License-Identifier: Apache-2.0
"""Dashboards for Grafana: one guest, and many.

They are part of share/ (tools/share.py). Their JSON is that of @grafana/schema, in the version of
tests/unit/watch/grafana/package.json, against which it is tested.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from tools.prometheus import ALERTS, MOVED_PER_PROGRESS, NO_PROGRESS, WINDOW

Json = dict[str, Any]

SCHEMA_VERSION = 42
"""Of the dashboards of Grafana 12 and 13; older ones of Grafana read what they know of it."""

COLUMNS = 24
"""Into which Grafana divides a dashboard."""

GUEST, FLEET = "balloontrace", "balloontrace-fleet"
"""The uids, and names of the files."""

WORST = 20
"""Guests in a table of the worst."""

DATASOURCE = {"type": "prometheus", "uid": "${datasource}"}

BYTES, BYTES_PER_S, SECONDS, SHARE = "bytes", "binBps", "s", "percentunit"
RATE, RATIO, COUNT, DATE = "ops", "none", "short", "dateTimeFromNow"
"""Units, as Grafana names them. Memory is counted in powers of 2."""


@dataclass(frozen=True)
class Query:
    """What a panel asks Prometheus. now: only for the end of the time that is shown, as a table;
    buckets: of a histogram."""

    expr: str
    legend: str = ""
    now: bool = False
    buckets: bool = False


@dataclass(frozen=True)
class Panel:
    """One panel. extra: what its kind has beside what all have."""

    kind: str
    title: str
    description: str
    unit: str
    queries: tuple[Query, ...]
    width: int
    height: int
    options: Json
    custom: Json
    overrides: tuple[Json, ...] = ()
    mappings: tuple[Json, ...] = ()
    transformations: tuple[Json, ...] = ()
    no_value: str = ""


Row = tuple[str, tuple[Panel, ...]]


def _selected(metric: str, *matchers: str) -> str:
    return f"{metric}{{{','.join(matchers)}}}"


THIS, ANY = ('job="$job"', 'instance="$instance"'), ('job=~"$job"',)
"""What is shown: one guest; all guests of some jobs."""


def _here(metric: str) -> str:
    return _selected(metric, *THIS)


def _all(metric: str) -> str:
    return _selected(metric, *ANY)


def _rate(selector: str) -> str:
    return f"rate({selector}[$__rate_interval])"


def _increase(selector: str) -> str:
    return f"increase({selector}[$__rate_interval])"


def _graph(
    title: str,
    description: str,
    unit: str,
    *queries: Query,
    stacked: bool = False,
    bars: bool = False,
    out_below: bool = False,
    most: float | None = None,
) -> Panel:
    """Lines over time. out_below: what is called `out` goes down from 0."""
    custom: Json = {
        "drawStyle": "bars" if bars else "line",
        "fillOpacity": 70 if bars else 20 if stacked else 0,
        "lineWidth": 0 if bars else 1,
        "showPoints": "never",
        "spanNulls": False,
        "stacking": {"group": "A", "mode": "normal" if stacked else "none"},
    }
    if most is not None:
        custom |= {"axisSoftMin": 0, "axisSoftMax": most}
    options = {
        "legend": {"calcs": [], "displayMode": "list", "placement": "bottom", "showLegend": True},
        "tooltip": {"mode": "multi", "sort": "desc"},
    }
    down = {
        "matcher": {"id": "byRegexp", "options": "/^out/"},
        "properties": [{"id": "custom.transform", "value": "negative-Y"}],
    }
    return Panel(
        "timeseries", title, description, unit, queries, 12, 8, options, custom,
        (down,) if out_below else (),
    )  # fmt: skip


def _value(
    title: str, description: str, unit: str, query: Query, mappings: Sequence[Json] = ()
) -> Panel:
    """One number of now."""
    options = {
        "colorMode": "value" if mappings else "none",
        "graphMode": "none",
        "justifyMode": "auto",
        "orientation": "auto",
        "percentChangeColorMode": "standard",
        "reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False},
        "showPercentChange": False,
        "textMode": "auto",
        "wideLayout": True,
    }
    return Panel(
        "stat", title, description, unit, (replace(query, now=True),), 4, 4, options, {},
        mappings=tuple(mappings), no_value="not known",
    )  # fmt: skip


def _heat(title: str, description: str, query: Query) -> Panel:
    """A histogram over time."""
    options = {
        "calculate": False,
        "cellGap": 1,
        "cellValues": {"unit": COUNT},
        "color": {
            "exponent": 0.5, "fill": "dark-orange", "mode": "scheme", "reverse": False,
            "scale": "exponential", "scheme": "Oranges", "steps": 64,
        },
        "exemplars": {"color": "rgba(255,0,255,0.7)"},
        "filterValues": {"le": 1e-9},
        "legend": {"show": True},
        "rowsFrame": {"layout": "auto"},
        "showValue": "never",
        "tooltip": {"mode": "single", "showColorScale": False, "yHistogram": True},
        "yAxis": {"axisPlacement": "left", "reverse": False, "unit": SECONDS},
    }  # fmt: skip
    custom = {"scaleDistribution": {"type": "linear"}}
    query = replace(query, legend="{{le}}", buckets=True)
    return Panel("heatmap", title, description, COUNT, (query,), 12, 8, options, custom)


def _table(title: str, description: str, unit: str, expr: str, called: str) -> Panel:
    """What a query says now, the greatest first. called: the column of values."""
    options = {
        "cellHeight": "sm",
        "frameIndex": 0,
        "showHeader": True,
        "sortBy": [{"desc": True, "displayName": called}],
    }
    custom = {
        "align": "auto",
        "cellOptions": {"type": "auto"},
        "filterable": True,
        "inspect": False,
    }
    columns = {
        "id": "organize",
        "options": {
            "excludeByName": {"Time": True, "__name__": True},
            "indexByName": {},
            "renameByName": {"Value": called},
        },
    }
    guest = {
        "matcher": {"id": "byName", "options": "instance"},
        "properties": [{"id": "links", "value": [_link_to_guest()]}],
    }
    return Panel(
        "table", title, description, unit, (Query(expr, now=True),), 12, 8, options, custom,
        (guest,), transformations=(columns,), no_value="none",
    )  # fmt: skip


def _link_to_guest() -> Json:
    fields = ("job", "instance")
    chosen = "".join(f"&var-{name}=${{__data.fields.{name}}}" for name in fields)
    url = f"/d/{GUEST}?${{__url_time_range}}&var-datasource=${{datasource}}{chosen}"
    return {"title": "This guest", "url": url}


def _yes_or_no(yes: str, no: str) -> tuple[Json, ...]:
    words = {
        "0": {"color": "red", "index": 0, "text": no},
        "1": {"color": "green", "index": 1, "text": yes},
    }
    return ({"options": words, "type": "value"},)


def _quantiles(metric: str, by: str) -> tuple[Query, ...]:
    rates = f"sum by (le, {by}) ({_rate(_here(f'{metric}_bucket'))})"
    return tuple(
        Query(f"histogram_quantile({quantile}, {rates})", f"{{{{{by}}}}} p{quantile * 100:.0f}")
        for quantile in (0.5, 0.99)
    )


def _mean(metric: str, by: str) -> Query:
    total, calls = (f"sum by ({by}) ({_rate(_here(f'{metric}_{of}'))})" for of in ("sum", "count"))
    return Query(f"{total} / ({calls} > 0)", f"{{{{{by}}}}} mean")


ACK, CALL = "balloontrace_host_ack_duration_seconds", "balloontrace_call_duration_seconds"
MOVED, PROGRESS = "balloontrace_moved_bytes_total", "balloontrace_progress_bytes_total"

OF_A_GUEST: tuple[Row, ...] = (
    (
        "Now",
        (
            _value(
                "Driver", "Whether the driver is there and traced.", RATIO,
                Query(_here("balloontrace_attached")), _yes_or_no("traced", "not traced"),
            ),
            _value(
                "Sums and /proc/vmstat", "Whether they agree to the page.", RATIO,
                Query(_here("balloontrace_vmstat_agrees")), _yes_or_no("agree", "differ"),
            ),
            _value(
                "In the balloon", "Memory that the host has.", BYTES,
                Query(_here("balloontrace_size_bytes")),
            ),
            _value(
                "Asked for", "Memory that the host wants in the balloon.", BYTES,
                Query(_here("balloontrace_target_bytes")),
            ),
            replace(
                _table(
                    "Watcher", "Its version, the kernel's release, the means of attachment.", RATIO,
                    _here("balloontrace_info"), "watchers",
                ),
                width=8, height=4,
            ),
        ),
    ),
    (
        "Balloon",
        (
            _graph(
                "Size and target", "What is in the balloon, and what the host wants there.", BYTES,
                Query(_here("balloontrace_size_bytes"), "size"),
                Query(_here("balloontrace_target_bytes"), "target"),
            ),
            _graph(
                "Moved, by cause",
                "Into the balloon, which only the host causes; below 0, out of it, by cause.",
                BYTES_PER_S,
                Query(_rate(_here(MOVED)), "{{direction}}, {{cause}}"),
                stacked=True, out_below=True,
            ),
            _graph(
                "Moved, and progress",
                "What was moved either way, and by how much of it the balloon came closer to its "
                "target than ever under that target.",
                BYTES_PER_S,
                Query(f"sum without (direction, cause) ({_rate(_here(MOVED))})", "moved"),
                Query(_rate(_here(PROGRESS)), "progress"),
            ),
            _graph(
                "Amplification",
                f"{MOVED_PER_PROGRESS.meaning} Over {WINDOW}.",
                RATIO,
                Query(_here(MOVED_PER_PROGRESS.name), "moved / progress"),
            ),
            _graph(
                "Time without progress",
                NO_PROGRESS.meaning,
                SHARE,
                Query(
                    _rate(_here("balloontrace_no_progress_seconds_total")), "without progress"
                ),
                most=1,
            ),
            _graph(
                "Chunks given back, by cause", "Calls that take pages out of the balloon.", RATE,
                Query(_rate(_here("balloontrace_leaks_total")), "{{cause}}"),
            ),
        ),
    ),
    (
        "Calls",
        (
            _graph(
                "The host's acks", "How long the host took to take an array of pages.", SECONDS,
                *_quantiles(ACK, "queue"), _mean(ACK, "queue"),
            ),
            _heat(
                "The host's acks, all queues", "Acks by how long they took.",
                Query(f"sum by (le) ({_increase(_here(f'{ACK}_bucket'))})"),
            ),
            _graph(
                "Durations of calls", "But for acks. The 99th percentile and the mean.", SECONDS,
                _quantiles(CALL, "kind")[-1], _mean(CALL, "kind"),
            ),
            _graph(
                "Calls", "Calls and moments of the driver, by kind of event.", RATE,
                Query(_rate(_here("balloontrace_calls_total")), "{{kind}}"),
            ),
            _graph(
                "Moved by compaction", "Memory of the balloon that compaction moved.", BYTES_PER_S,
                Query(_rate(_here("balloontrace_migrated_bytes_total")), "migrated"),
            ),
        ),
    ),
    (
        "Findings",
        (
            _graph(
                "Findings", "Known pathologies that were seen.", COUNT,
                Query(f"{_increase(_here('balloontrace_findings_total'))} > 0", "{{finding}}"),
                bars=True, stacked=True,
            ),
            _graph(
                "Recordings written", "By what they were written for.", COUNT,
                Query(f"{_increase(_here('balloontrace_dumps_total'))} > 0", "{{finding}}"),
                bars=True, stacked=True,
            ),
        ),
    ),
    (
        "The watcher",
        (
            _graph(
                "Lost calls", "In no recording, or of no known duration there, by reason.", RATE,
                Query(_rate(_here("balloontrace_lost_calls_total")), "{{reason}}"),
            ),
            _graph(
                "Not kept", "Events without room on the disk; recordings beyond an hour's most.",
                COUNT, Query(_increase(_here("balloontrace_unkept_total")), "{{what}}"),
            ),
            _graph(
                "More than in /proc/vmstat",
                "Memory summed up less that of the kernel's counters; 0 is agreement.",
                BYTES,
                Query(_here("balloontrace_vmstat_difference_bytes"), "{{counter}}"),
            ),
            _graph(
                "CPU time", "Of the watcher, as a share of one CPU.", SHARE,
                Query(_rate(_here("process_cpu_seconds_total")), "CPU"),
            ),
            _graph(
                "Memory and disk", "Resident memory, and what the last minutes take on the disk.",
                BYTES,
                Query(_here("process_resident_memory_bytes"), "resident"),
                Query(_here("balloontrace_kept_bytes"), "last minutes, on the disk"),
            ),
            _graph(
                "Reading the metrics", "What the last reading of all of this took.", SECONDS,
                Query(_here("balloontrace_reading_seconds"), "reading"),
            ),
            _value(
                "Watches since", "When the watcher was started.", DATE,
                Query(f"{_here('process_start_time_seconds')} * 1000"),
            ),
        ),
    ),
)  # fmt: skip


def _or_0(count: str) -> str:
    return f"{count} or vector(0)"


_PER_KERNEL = (
    f"sum by (kernel, finding) (increase({_all('balloontrace_findings_total')}[$__range])"
    f" * on (job, instance) group_left (kernel) {_all('balloontrace_info')}) > 0"
)

OF_ALL: tuple[Row, ...] = (
    (
        "Now",
        (
            _value(
                "Guests", "Of which there are metrics.", COUNT,
                Query(_or_0(f"count({_all('balloontrace_info')})")),
            ),
            _value(
                "Do not answer", "Watchers that Prometheus cannot reach.", COUNT,
                Query(_or_0(f"count({_all('up')} == 0)")),
            ),
            _value(
                "Not attached", "Watchers that trace no driver.", COUNT,
                Query(_or_0(f"count({_all('balloontrace_attached')} == 0)")),
            ),
            _value(
                "Disagree", "Watchers whose sums are not those of /proc/vmstat.", COUNT,
                Query(_or_0(f"count({_all('balloontrace_vmstat_agrees')} == 0)")),
            ),
            _value(
                "In balloons", "Memory that the hosts have of these guests.", BYTES,
                Query(f"sum({_all('balloontrace_size_bytes')})"),
            ),
            _value(
                "Asked for", "Memory that the hosts want of them.", BYTES,
                Query(f"sum({_all('balloontrace_target_bytes')})"),
            ),
        ),
    ),
    (
        "Worst guests",
        (
            _table(
                "By amplification",
                f"{MOVED_PER_PROGRESS.meaning} Over the last {WINDOW}.",
                RATIO,
                f"topk({WORST}, {_all(MOVED_PER_PROGRESS.name)})",
                "moved / progress",
            ),
            _table(
                "By time without progress",
                f"{NO_PROGRESS.meaning} Over the last {WINDOW}.",
                SHARE,
                f"topk({WORST}, {_all(NO_PROGRESS.name)} > 0)",
                "without progress",
            ),
            _table(
                "By the host's acks",
                "How long 99 % of the acks took at most, in the time that is shown.",
                SECONDS,
                f"topk({WORST}, histogram_quantile(0.99, sum by (job, instance, le) "
                f"(increase({_all(f'{ACK}_bucket')}[$__range]))) > 0)",
                "p99",
            ),
            _table(
                "By findings",
                "Known pathologies that were seen in the time that is shown.",
                COUNT,
                f"topk({WORST}, sum by (job, instance, finding) "
                f"(increase({_all('balloontrace_findings_total')}[$__range])) > 0)",
                "findings",
            ),
        ),
    ),
    (
        "All guests",
        (
            _graph(
                "Size and target", "Of all balloons together.", BYTES,
                Query(f"sum({_all('balloontrace_size_bytes')})", "size"),
                Query(f"sum({_all('balloontrace_target_bytes')})", "target"),
            ),
            _graph(
                "Moved, by cause", "Into balloons; below 0, out of them, by cause.", BYTES_PER_S,
                Query(
                    f"sum by (direction, cause) ({_rate(_all(MOVED))})", "{{direction}}, {{cause}}"
                ),
                stacked=True, out_below=True,
            ),
            _graph(
                "Findings", "Known pathologies that were seen.", COUNT,
                Query(
                    "sum by (finding) "
                    f"({_increase(_all('balloontrace_findings_total'))}) > 0",
                    "{{finding}}",
                ),
                bars=True, stacked=True,
            ),
            _table(
                "Findings by kernel", "In the time that is shown.", COUNT, _PER_KERNEL, "findings"
            ),
        ),
    ),
    (
        "Watchers",
        (
            _table(
                "Not attached", "Watchers that trace no driver.", RATIO,
                f"{_all('balloontrace_attached')} == 0", "attached",
            ),
            _table(
                "Disagree", "By how much their sums are more than /proc/vmstat.", BYTES,
                f"{_all('balloontrace_vmstat_difference_bytes')} != 0", "difference",
            ),
            _table(
                "Lost calls", "In the time that is shown, by reason.", COUNT,
                f"topk({WORST}, increase({_all('balloontrace_lost_calls_total')}[$__range]) > 0)",
                "calls",
            ),
            _table(
                "Kernels, versions, means", "How many guests have each.", COUNT,
                f"count by (kernel, version, means) ({_all('balloontrace_info')})", "guests",
            ),
        ),
    ),
)  # fmt: skip


def _target(query: Query, number: int) -> Json:
    if query.buckets:
        form = "heatmap"
    else:
        form = "table" if query.now and not query.legend else "time_series"
    return {
        "datasource": DATASOURCE,
        "editorMode": "code",
        "expr": query.expr,
        "format": form,
        "instant": query.now,
        "legendFormat": query.legend or "__auto",
        "range": not query.now,
        "refId": chr(ord("A") + number),
    }


def _panel(panel: Panel, id: int, x: int, y: int) -> Json:
    defaults: Json = {"custom": panel.custom, "unit": panel.unit}
    if panel.mappings:
        defaults["mappings"] = list(panel.mappings)
    if panel.no_value:
        defaults["noValue"] = panel.no_value
    made = {
        "datasource": DATASOURCE,
        "description": panel.description,
        "fieldConfig": {"defaults": defaults, "overrides": list(panel.overrides)},
        "gridPos": {"h": panel.height, "w": panel.width, "x": x, "y": y},
        "id": id,
        "options": panel.options,
        "targets": [_target(query, number) for number, query in enumerate(panel.queries)],
        "title": panel.title,
        "type": panel.kind,
    }
    if panel.transformations:
        made["transformations"] = list(panel.transformations)
    return made


def _placed(rows: Iterable[Row]) -> list[Json]:
    """Rows one below the other, their panels from left to right."""
    made: list[Json] = []
    y = 0
    for title, panels in rows:
        place = {"h": 1, "w": COLUMNS, "x": 0, "y": y}
        head = {"collapsed": False, "gridPos": place, "id": len(made) + 1, "panels": []}
        made.append({**head, "title": title, "type": "row"})
        x, y, height = 0, y + 1, 0
        for panel in panels:
            if x + panel.width > COLUMNS:
                x, y, height = 0, y + height, 0
            made.append(_panel(panel, len(made) + 1, x, y))
            x, height = x + panel.width, max(height, panel.height)
        y += height
    return made


def _variable(name: str, label: str, query: str, **more: object) -> Json:
    """Of values that Prometheus has for a label."""
    return {
        "datasource": DATASOURCE,
        "label": label,
        "name": name,
        "query": {"qryType": 1, "query": query, "refId": f"variable-{name}"},
        "refresh": 2,
        "sort": 1,
        "type": "query",
        **more,
    }


JOBS = "label_values(balloontrace_info, job)"

SOURCE: Json = {
    "label": "Data source",
    "name": "datasource",
    "query": "prometheus",
    "refresh": 1,
    "type": "datasource",
}


def _alerts_shown(matchers: Iterable[str]) -> Json:
    """The times in which an alert of ours was firing."""
    names = "|".join(alert.name for alert in ALERTS)
    fires = _selected("ALERTS", 'alertstate="firing"', f'alertname=~"{names}"', *matchers)
    return {
        "datasource": DATASOURCE,
        "enable": True,
        "iconColor": "red",
        "name": "Alerts",
        "target": {"expr": fires, "refId": "Anno"},
        "titleFormat": "{{alertname}}",
    }


def _dashboard(
    uid: str,
    title: str,
    description: str,
    rows: Iterable[Row],
    shown: Iterable[str],
    variables: Iterable[Json],
) -> Json:
    return {
        "annotations": {"list": [_alerts_shown(shown)]},
        "description": description,
        "editable": True,
        "graphTooltip": 1,
        "links": [_link_to_the_other()],
        "panels": _placed(rows),
        "refresh": "1m",
        "schemaVersion": SCHEMA_VERSION,
        "tags": ["balloontrace"],
        "templating": {"list": [SOURCE, *variables]},
        "time": {"from": "now-3h", "to": "now"},
        "timepicker": {},
        "timezone": "browser",
        "title": title,
        "uid": uid,
    }


def _link_to_the_other() -> Json:
    return {
        "asDropdown": False,
        "icon": "external link",
        "includeVars": False,
        "keepTime": True,
        "tags": ["balloontrace"],
        "targetBlank": False,
        "title": "balloontrace",
        "tooltip": "",
        "type": "dashboards",
    }


def guest() -> Json:
    """The dashboard of one guest."""
    of_job = 'label_values(balloontrace_info{job="$job"}, instance)'
    return _dashboard(
        GUEST,
        "Balloon of a guest",
        "What balloontrace watch tells of one guest's memory balloon.",
        OF_A_GUEST,
        THIS,
        (_variable("job", "Job", JOBS), _variable("instance", "Guest", of_job)),
    )


def fleet() -> Json:
    """The dashboard of all guests."""
    everyone = {"allValue": ".*", "current": {"text": ["All"], "value": ["$__all"]}}
    return _dashboard(
        FLEET,
        "Balloons of all guests",
        "Which guests' memory balloons are worst off, and which watchers.",
        OF_ALL,
        ANY,
        (_variable("job", "Jobs", JOBS, includeAll=True, multi=True, **everyone),),
    )


def text(dashboard: Json) -> str:
    """A dashboard as the file it is."""
    return json.dumps(dashboard, indent=2) + "\n"
