"""Two recordings side by side: the table of the founding experiment (metrics.md)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from balloontrace.analysis.base import Result
from balloontrace.analysis.report import Report


@dataclass(frozen=True)
class Measure:
    """One row of the table.

    unit: `s`, `pages`, `ratio`, or empty for words; at_least: an inflation that did not reach its
    target gives no more than a lower bound of this.
    """

    name: str
    title: str
    unit: str
    of: Callable[[Report], Any]
    at_least: bool = False


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


def _reached(report: Report) -> bool:
    episode = main_inflation(report)
    return episode is not None and episode["outcome"] == "reached"


def _total(key: str) -> Callable[[Report], Any]:
    return lambda report: report.results["totals"].scalars[key]


MEASURES = (
    Measure("inflation_duration_s", "inflation duration", "s", _duration, True),
    Measure("outcome", "outcome", "", _of_inflation("outcome")),
    Measure(
        "longest_no_progress_s", "longest no-progress", "s", _of_inflation("longest_no_progress_s")
    ),
    Measure("balloon_inflate", "balloon_inflate", "pages", _total("inflated_pages")),
    Measure("balloon_deflate", "balloon_deflate", "pages", _total("deflated_pages")),
    Measure("amplification", "amplification", "ratio", _of_inflation("amplification")),
    Measure("churn_ratio", "churn ratio", "ratio", _of_inflation("churn_ratio")),
)
"""The two counters are the traced totals of the whole recording under the names /proc/vmstat gives
them; all else is of the main inflation."""


def compare(before: Report, after: Report) -> Result:
    """Table `rows`: name, title, unit, before, after, ratio = before / after (None if undefined).

    before_at_least, after_at_least: the value is a lower bound.
    Table `sides`: for each recording what must be known to trust its column.
    """
    rows = []
    for measure in MEASURES:
        values = measure.of(before), measure.of(after)
        rows.append(
            {
                "name": measure.name,
                "title": measure.title,
                "unit": measure.unit,
                "before": values[0],
                "after": values[1],
                "ratio": ratio(*values) if measure.unit else None,
                "before_at_least": measure.at_least and not _reached(before),
                "after_at_least": measure.at_least and not _reached(after),
            }
        )
    sides = [_side("before", before), _side("after", after)]
    return Result("compare", tables={"rows": rows, "sides": sides})


def ratio(before: float | None, after: float | None) -> float | None:
    """before / after; None if either is not known or after is 0."""
    return None if before is None or not after else before / after


def _side(name: str, report: Report) -> dict[str, Any]:
    """Which recording a column is from, and whether its numbers can be trusted."""
    guest, recording = report.results["guest"].scalars, report.recording.scalars
    reconciliation = report.results["reconciliation"].scalars
    episode = main_inflation(report)
    return {
        "side": name,
        **{key: recording[key] for key in ("path", "duration_s", "complete", "lost_events")},
        **{key: guest[key] for key in ("kernel", "cpus", "memory_bytes", "driver_behaviour")},
        "agrees": reconciliation["agrees"],
        "reconciliation": reconciliation["summary"],
        "inflation_target_pages": episode["target_pages"] if episode else None,
        "findings": [row["id"] for row in report.results["findings"].tables["findings"]],
    }
