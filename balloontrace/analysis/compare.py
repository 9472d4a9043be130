# SPDX-License-Identifier: Apache-2.0
"""Recordings of two kinds side by side: the table of the founding experiment (metrics.md).

A side is one run or several of the same experiment. Of several it shows medians, with intervals as
confidence.py defines them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from balloontrace.analysis import confidence
from balloontrace.analysis.base import Result
from balloontrace.analysis.confidence import Interval, Value
from balloontrace.analysis.report import Report


@dataclass(frozen=True)
class Measure:
    """One row of the table.

    unit: `s`, `pages`, `ratio`, `share`, `bytes`, `per_s`, or empty for words; at_least: of which
    inflations `of` is no more than a lower bound; floor: what is less is as good as this when it is
    asked what differs most. A value may be infinite: an inflation that moved pages and gained none.
    """

    name: str
    title: str
    unit: str
    of: Callable[[Report], Any]
    at_least: Callable[[dict[str, Any]], bool] = lambda episode: False
    floor: float = math.inf


def main_inflation(report: Report) -> dict[str, Any] | None:
    """The inflate episode that asked for the most pages, the first of equals; None if none."""
    episodes = report.results["episodes"].tables.get("episodes", [])
    inflations = [row for row in episodes if row["direction"] == "inflate"]
    return max(inflations, key=lambda row: int(row["asked_pages"]), default=None)


def _of_inflation(key: str) -> Callable[[Report], Any]:
    def value(report: Report) -> Any:
        episode = main_inflation(report)
        return episode[key] if episode else None

    return value


def _duration(report: Report) -> float | None:
    episode = main_inflation(report)
    return episode["end_s"] - episode["start_s"] if episode else None


def _amplification(report: Report) -> float | None:
    episode = main_inflation(report)
    if episode is None:
        return None
    if episode["amplification"] is None:
        return math.inf if episode["inflated_pages"] else None
    return float(episode["amplification"])


def _not_reached(episode: dict[str, Any]) -> bool:
    return bool(episode["outcome"] != "reached")


def _events_missing(episode: dict[str, Any]) -> bool:
    return bool(episode["events_missing"])


def _memory(key: str) -> Callable[[Report], Any]:
    return lambda report: report.results["memory"].scalars[key]


def _per_s(*names: str) -> Callable[[Report], Any]:
    """Sum of these of the kernel's counters, per second; None if none was recorded."""

    def value(report: Report) -> float | None:
        rows = report.results["memory"].tables["rates"]
        found = [float(row["per_s"]) for row in rows if row["what"] in names]
        return sum(found) if found else None

    return value


def _total(key: str) -> Callable[[Report], Any]:
    return lambda report: report.results["totals"].scalars[key]


MEASURES = (
    Measure(
        *("inflation_duration_s", "inflation duration", "s", _duration, _not_reached),
        floor=1.0,
    ),
    Measure("outcome", "outcome", "", _of_inflation("outcome")),
    Measure(
        *("longest_no_progress_s", "longest no-progress", "s"),
        *(_of_inflation("longest_no_progress_s"), _events_missing),
        floor=1.0,
    ),
    Measure(
        *("balloon_inflate", "balloon_inflate", "pages", _total("inflated_pages")), floor=25_600
    ),
    Measure(
        *("balloon_deflate", "balloon_deflate", "pages", _total("deflated_pages")), floor=25_600
    ),
    Measure("amplification", "amplification", "ratio", _amplification, _events_missing, floor=1.0),
    Measure("churn_ratio", "churn ratio", "ratio", _of_inflation("churn_ratio"), floor=0.05),
    Measure("size_share", "balloon, of RAM", "share", _memory("size_most_share"), floor=0.01),
    Measure(
        *("available_median_bytes", "MemAvailable, median", "bytes"),
        _memory("available_median_bytes"),
        floor=16 << 20,
    ),
    Measure(
        *("available_least_bytes", "MemAvailable, least", "bytes"),
        _memory("available_least_bytes"),
        floor=16 << 20,
    ),
    Measure(
        *("refaults_per_s", "refaults", "per_s"),
        _per_s("file refaults", "anonymous refaults"),
        floor=10.0,
    ),
    Measure(*("major_faults_per_s", "major faults", "per_s", _per_s("major faults")), floor=10.0),
    Measure("stalls_per_s", "allocation stalls", "per_s", _per_s("allocation stalls"), floor=1.0),
    Measure("psi_some_share", "PSI memory some", "share", _memory("psi_some_share"), floor=0.01),
    Measure("psi_full_share", "PSI memory full", "share", _memory("psi_full_share"), floor=0.01),
)
"""The two counters are the traced totals of the whole recording under the names /proc/vmstat gives
them; the rows from the balloon's share of RAM on are of the section Memory; all else is of the main
inflation."""

Runs = Sequence[Report]


def compare(before: Report | Runs, after: Report | Runs) -> Result:
    """Table `rows`: name, title, unit, before, after, ratio = before / after (None if undefined).

    before, after: the value of the only run, or the median of several; of words, the one that all
    runs share, else None. before_at_least, after_at_least: it is a lower bound; *_unbounded: it is
    infinite, and None. *_values: the value of each run, None where there is none. *_interval,
    ratio_interval: low, high, confidence; None if there are too few runs.
    verdict: "differs" or "within noise", where there is a ratio_interval: whether 1 is in it.
    Table `unlike`: see _unlike. Table `sides`: for each side what must be known to trust its
    column, `runs` each by itself.
    Scalars: `differs_most`, the name of the row whose sides differ by the largest factor, None if
    none does by a tenth; the confidence asked for, and how many runs a side must have for each
    interval.
    """
    sides = {
        name: [runs] if isinstance(runs, Report) else list(runs)
        for name, runs in (("before", before), ("after", after))
    }
    both = [_side(name, runs) for name, runs in sides.items()]
    rows = [_row(measure, sides["before"], sides["after"]) for measure in MEASURES]
    return Result(
        "compare",
        {
            "differs_most": _differs_most(rows),
            "confidence": confidence.CONFIDENCE,
            "runs_for_interval": confidence.runs_needed(confidence.CONFIDENCE),
            "runs_for_ratio_interval": confidence.runs_needed(math.sqrt(confidence.CONFIDENCE)),
        },
        {
            "rows": rows,
            "sides": both,
            "unlike": _unlike(*both),
        },
    )


ALIKE = {"machine": 0.0, "page_size": 0.0, "cpus": 0.0, "memory_bytes": 0.05,
         "inflation_target_pages": 0.05}  # fmt: skip
"""What two sides must have in common for a ratio to say something of what differs between them, and
the share by which it may differ: two kernels keep different parts of the same memory."""


def _unlike(before: dict[str, Any], after: dict[str, Any]) -> list[dict[str, Any]]:
    """What is not alike of the two sides: fact, before, after. What is not known, or differs within
    a side (which is said there), is not in it."""
    rows = []
    for fact, share in ALIKE.items():
        pair = before[fact], after[fact]
        if None in pair or pair[0] == pair[1]:
            continue
        if not share or abs(pair[0] - pair[1]) > share * max(pair):
            rows.append({"fact": fact, "before": pair[0], "after": pair[1]})
    return rows


def _row(measure: Measure, before: Runs, after: Runs) -> dict[str, Any]:
    """One measure of all runs."""
    row: dict[str, Any] = {"name": measure.name, "title": measure.title, "unit": measure.unit}
    known = {}
    for side, runs in (("before", before), ("after", after)):
        values = [_value(measure, report) for report in runs]
        known[side] = [value for value in values if value is not None]
        one = _one(measure, values, known[side])
        row |= {
            side: _finite(one.value) if one else None,
            f"{side}_at_least": bool(one and one.at_least),
            f"{side}_unbounded": bool(one and one.value == math.inf),
            f"{side}_values": [_content_of(value) for value in values],
            f"{side}_interval": None,
        }
    row |= {"ratio": None, "ratio_interval": None, "verdict": None}
    if measure.unit:
        row |= {
            "ratio": ratio(row["before"], row["after"]),
            "before_interval": _content(confidence.median_interval(known["before"])),
            "after_interval": _content(confidence.median_interval(known["after"])),
            "ratio_interval": _content(confidence.ratio_interval(known["before"], known["after"])),
        }
        row["verdict"] = _verdict(row["ratio_interval"])
    return row


DIFFERS_BY = 1.1
"""From this factor on two sides differ."""


def _differs_most(rows: list[dict[str, Any]]) -> str | None:
    """What is small on both sides differs little, by whatever factor; what is within noise, or a
    lower bound on both, not at all."""
    best, name = math.log(DIFFERS_BY), None
    for measure, row in zip(MEASURES, rows, strict=True):
        pair = [math.inf if row[f"{side}_unbounded"] else row[side] for side in ("before", "after")]
        bounds = row["before_at_least"] and row["after_at_least"]
        if not measure.unit or None in pair or bounds or row["verdict"] == "within noise":
            continue
        before, after = (max(value, measure.floor) for value in pair)
        factor = abs(math.log(before / after)) if before != after else 0.0
        if factor > best:
            best, name = factor, measure.name
    return name


def _verdict(interval: dict[str, Any] | None) -> str | None:
    """What the interval of the ratio says of the two sides; None without one."""
    if interval is None:
        return None
    below = interval["high"] is not None and interval["high"] < 1
    return "differs" if interval["low"] > 1 or below else "within noise"


def _value(measure: Measure, report: Report) -> Value | None:
    """The measure of one run; None if it has none. Of words, the value is a string."""
    value = measure.of(report)
    if value is None:
        return None
    episode = main_inflation(report)
    return Value(value, episode is not None and measure.at_least(episode))


def _one(measure: Measure, values: list[Value | None], known: list[Value]) -> Value | None:
    """What stands for a side."""
    if len(values) == 1:
        return values[0]
    if not known:
        return None
    if measure.unit:
        return confidence.median(known)
    return known[0] if all(value == known[0] for value in values) else None


def _finite(value: Any) -> Any:
    return None if value == math.inf else value


def _content_of(value: Value | None) -> dict[str, Any] | None:
    """One run's value; null and `unbounded` for one that is infinite."""
    if value is None:
        return None
    return asdict(value) | {"value": _finite(value.value), "unbounded": value.value == math.inf}


def _content(interval: Interval | None) -> dict[str, Any] | None:
    if interval is None or interval.low == math.inf:
        return None
    return asdict(interval) | {"high": _finite(interval.high)}


def ratio(before: float | None, after: float | None) -> float | None:
    """before / after; None if either is not known or after is 0."""
    return None if before is None or not after else before / after


FACTS = (
    *("kernel", "machine", "page_size", "cpus", "memory_bytes", "driver_behaviour"),
    "inflation_target_pages",
)
"""What the runs of a side have in common if they are of one experiment."""

OF_ONE_RUN = ("path", "duration_s", "reconciliation")
"""What only a side with one run has as a whole."""


def _side(name: str, reports: Runs) -> dict[str, Any]:
    """A column: each run, and what is so of all of them. A fact that differs is None, and named in
    `differs`."""
    runs = [_run(report) for report in reports]
    lost = [run["lost_events"] for run in runs]
    agrees = [run["agrees"] for run in runs]
    findings = [finding for run in runs for finding in run["findings"]]
    return {
        "side": name,
        **{key: runs[0][key] if len(runs) == 1 else None for key in OF_ONE_RUN},
        "complete": all(run["complete"] for run in runs),
        "lost_events": None if None in lost else sum(lost),
        **{key: _common(runs, key) for key in FACTS},
        "differs": [key for key in FACTS if any(run[key] != runs[0][key] for run in runs)],
        "agrees": False if False in agrees else None if None in agrees else True,
        "findings": list(dict.fromkeys(findings)),
        "runs": runs,
    }


def _common(runs: list[dict[str, Any]], key: str) -> Any:
    return runs[0][key] if all(run[key] == runs[0][key] for run in runs) else None


def _run(report: Report) -> dict[str, Any]:
    """Which recording, and whether its numbers can be trusted."""
    guest, recording = report.results["guest"].scalars, report.recording.scalars
    reconciliation = report.results["reconciliation"].scalars
    episode = main_inflation(report)
    return {
        **{key: recording[key] for key in ("path", "duration_s", "complete", "lost_events")},
        **{key: guest[key] for key in FACTS if key in guest},
        "memory_bytes": report.results["memory"].scalars["ram_bytes"] or guest["memory_bytes"],
        "agrees": reconciliation["agrees"],
        "reconciliation": reconciliation["summary"],
        "inflation_target_pages": episode["target_pages"] if episode else None,
        "findings": [row["id"] for row in report.results["findings"].tables["findings"]],
    }
