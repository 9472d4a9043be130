# SPDX-License-Identifier: Apache-2.0
"""Episodes for a terminal: the worst first, then the spans in which nothing was gained."""

from __future__ import annotations

import math
from typing import Any

from balloontrace.analysis.base import Result
from balloontrace.analysis.text.rows import SHOWN_ROWS
from balloontrace.analysis.text.writer import (
    DIM,
    Page,
    amplified,
    bounded,
    count,
    mib,
    number,
    percent,
    seconds,
)

SHOWN_SPANS = 5
"""No-progress spans without -v, the longest ones."""


def show(page: Page, result: Result, verbose: bool) -> None:
    """One line for each episode, then the spans in which nothing was gained."""
    rows = result.tables["episodes"]
    if not rows:
        page.line("the target did not change")
        return
    shown = list(enumerate(rows, start=1))
    hidden = 0 if verbose else len(rows) - SHOWN_ROWS
    if hidden > 0:
        shown = sorted(shown, key=lambda pair: _badness(pair[1]), reverse=True)[:SHOWN_ROWS]
    page.table(
        [
            "#",
            "start s",
            "took s",
            "<way",
            "target\npages",
            "target\nMiB",
            "<outcome",
            "in",
            "out",
            "amplifi-\ncation",
            "churn\nratio",
            "longest\nno pro-\ngress",
        ],
        [_episode(number_, row) for number_, row in shown],
        gap=1,
        spans=[(row["start_s"], row["end_s"]) for _, row in shown],
    )
    if hidden > 0:
        page.line(f"the worst first; and {count(hidden)} more episodes (-v shows all)", DIM)
    if verbose:
        _costs(page, shown)
    _no_progress(page, result.intervals["no_progress"], verbose)


def _badness(episode: dict[str, Any]) -> tuple[float, float]:
    """What to sort episodes by: how long nothing was gained, then how much was moved for it. In
    one after its target was reached nothing can be gained: all of it counts, if pages went to and
    fro, or the driver slept for want of them."""
    if episode["direction"] is None:
        idle = not episode["churn_ratio"] and not episode["sleeps"]
        return 0.0 if idle else episode["end_s"] - episode["start_s"], 0.0
    ratio = episode["amplification"]
    moved_per_page = (math.inf if episode["inflated_pages"] else 0.0) if ratio is None else ratio
    return episode["longest_no_progress_s"] or 0.0, moved_per_page


def _episode(number_: int, row: dict[str, Any]) -> list[str]:
    return [
        str(number_),
        number(row["start_s"], 1),
        number(row["end_s"] - row["start_s"], 1),
        row["direction"] or row["kind"],
        count(row["target_pages"]),
        mib(row["target_pages"]),
        f"{row['outcome']}, left" if row["left"] and row["direction"] else row["outcome"],
        count(row["inflated_pages"]),
        count(row["deflated_pages"]),
        amplified(row),
        number(row["churn_ratio"], 3),
        bounded(seconds(row["longest_no_progress_s"]), row["events_missing"]),
    ]


def _costs(page: Page, rows: list[tuple[int, dict[str, Any]]]) -> None:
    """What each of these episodes, with its number, moved and gained a second, and cost."""
    page.table(
        [
            "#",
            "GiB/s\nmoved",
            "GiB/s\nnet",
            "busy",
            "of one\nCPU",
            "PSI\nsome",
            "PSI\nfull",
            "PSI\nwatched",
        ],
        [
            [
                str(number_),
                number(row["moved_gib_per_s"], 3),
                number(row["net_gib_per_s"], 3),
                seconds(row["driver_busy_s"]),
                percent(row["driver_busy_share"]),
                *(seconds(row[f"psi_{what}_s"]) for what in ("some", "full", "span")),
            ]
            for number_, row in rows
        ],
        spans=[(row["start_s"], row["end_s"]) for _, row in rows],
    )


def _no_progress(page: Page, spans: list[dict[str, Any]], verbose: bool) -> None:
    """The longest spans without progress, longest first."""
    if not spans:
        return
    ordered = sorted(spans, key=lambda span: float(span["start_s"] - span["end_s"]))
    shown = ordered if verbose else ordered[:SHOWN_SPANS]
    said = [
        f"{seconds(span['end_s'] - span['start_s'])} (#{span['episode']}, "
        f"{span['start_s']:,.1f} to {span['end_s']:,.1f})"
        for span in shown
    ]
    more = len(spans) - len(shown)
    page.line(f"no progress for: {', '.join(said)}" + (f", and {more:,} more" if more else ""))
