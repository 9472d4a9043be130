# SPDX-License-Identifier: Apache-2.0
"""Where the time of fills and leaks went, for a terminal."""

from __future__ import annotations

from typing import Any

from balloontrace.analysis.base import Result
from balloontrace.analysis.text.writer import Page, count, number, percent, seconds, times


def show(page: Page, result: Result, verbose: bool) -> None:
    """Where the time of fills and leaks went."""
    rows = [_phase(kind, row) for kind, row in result.scalars.items() if row is not None]
    if rows:
        columns = ["<call", "calls", "total", "per call", "host ack", "share", "the rest", "GiB/s"]
        page.table(columns, rows)
    if result.scalars["fill"] is not None:
        _allocation(page, result.scalars["fill"], verbose)


def _phase(kind: str, row: dict[str, Any]) -> list[str]:
    return [
        kind,
        count(row["calls"]),
        seconds(row["total_s"]),
        seconds(row["total_s"] / row["calls"] if row["calls"] else None),
        seconds(row["host_ack_s"]),
        percent(row["host_ack_share"]),
        seconds(row["rest_s"]),
        number(row["gib_per_s"], 3),
    ]


def _allocation(page: Page, fill: dict[str, Any], verbose: bool) -> None:
    """What the fills' allocations did: only what happened, verbose: all that was recorded."""
    freed = fill["reclaimed_pages"]
    said = {
        "Out of puff": ("sleeps", "sleep_s", ""),
        "direct reclaim": ("reclaims", "reclaim_s", f", {count(freed)} pages reclaimed"),
        "compaction": ("compactions", "compact_s", ""),
    }
    shown = [
        f"{title}: {times(fill[calls])}, {seconds(fill[time])}"
        f" ({percent(fill[time] / fill['total_s'] if fill['total_s'] else None)} of all fills)"
        f"{more}"
        for title, (calls, time, more) in said.items()
        if fill[calls] or (verbose and fill[calls] is not None)
    ]
    if fill["kswapd_wakes"] or (verbose and fill["kswapd_wakes"] is not None):
        shown.append(f"kswapd woken: {times(fill['kswapd_wakes'])}")
    for line in shown:
        page.line(line)
