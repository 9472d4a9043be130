# SPDX-License-Identifier: Apache-2.0
"""How long calls took, for a terminal: percentiles and histograms."""

from __future__ import annotations

from typing import Any

from balloontrace.analysis.base import Result
from balloontrace.analysis.questions.latencies import PERCENTILES
from balloontrace.analysis.text.writer import WARN, Page, count, seconds


def show(page: Page, result: Result, verbose: bool) -> None:
    """Percentiles of what happened; verbose: of all that was recorded, and histograms."""
    rows = result.tables["latencies"]
    shown = [row for row in rows if row["calls"] or (verbose and row["calls"] is not None)]
    if shown:
        page.table(
            ["<call", "calls", "shortest", *(f"p{p}" for p in PERCENTILES), "longest"],
            [_row(row) for row in shown],
        )
    else:
        page.line("no call was seen from entry to return")
    for row in rows:
        if row["open"]:
            page.line(
                f"{_name(row)}: {row['open']:,} had not returned at the end, the longest after "
                f"{seconds(row['open_longest_s'])}: in no column above",
                WARN,
            )
        if row["unseen"]:
            page.line(
                f"{_name(row)}: {row['unseen']:,} more, whose begin or return was not seen: in no "
                "column above",
                WARN,
            )
    if verbose:
        for row in shown:
            _histogram(page, row)


def _name(row: dict[str, Any]) -> str:
    """A call, or a phase of it."""
    return row["call"] if row["phase"] is None else f"{row['call']}: {TITLES[row['phase']]}"


def _row(row: dict[str, Any]) -> list[str]:
    columns = ("min_s", *(f"p{p}_s" for p in PERCENTILES), "max_s")
    return [_name(row), count(row["calls"]), *(seconds(row[column]) for column in columns)]


def _histogram(page: Page, row: dict[str, Any]) -> None:
    """The buckets of a row, with their bounds in whole microseconds."""
    if row["histogram"]:
        page.histogram(
            _name(row),
            "us",
            [
                (bucket["from_us"], bucket["below_us"] - 1, bucket["calls"])
                for bucket in row["histogram"]
            ],
        )


TITLES = {
    "host_ack": "host ack",
    "sleep": "sleep",
    "reclaim": "direct reclaim",
    "compact": "compaction",
    "rest": "the rest",
}
"""Phases in words."""
