# SPDX-License-Identifier: Apache-2.0
"""Who took pages out of the balloon, for a terminal."""

from __future__ import annotations

from typing import Any

from balloontrace.analysis.base import Result
from balloontrace.analysis.text.rows import SHOWN_ROWS, in_groups, more
from balloontrace.analysis.text.writer import Page, count, percent, seconds
from balloontrace.analysis.trace.causes import actor_name


def show(page: Page, result: Result, verbose: bool) -> None:
    """Who took pages out of the balloon."""
    rows = result.tables["causes"]
    if not rows:
        seen = " while it was traced" if result.notes else ""
        page.line(f"nothing was taken out of the balloon{seen}")
        return
    total = sum(row["pages"] for row in rows)
    own = [row for row in rows if row["actor_kind"] == "recorder"]
    others = [row for row in rows if row["actor_kind"] != "recorder"]
    shown = others if verbose else others[:SHOWN_ROWS]
    if shown:
        page.table(
            ["<cause", "<by", "pages out", "share", "calls", "in calls"],
            [_cause(row, total) for row in shown],
        )
    more(page, len(others) - len(shown), "causes")
    for row in own:
        cause, who, pages, share, calls, busy = _cause(row, total)
        page.line(
            f"apart, by {who} ({cause}): {pages} pages out, {share}, in {calls} calls, {busy}"
        )


def _cause(row: dict[str, Any], total: int) -> list[str]:
    """One cause; total: pages that were taken out in all."""
    return [
        row["cause"],
        actor_name(row) + in_groups(row["cgroups"]),
        count(row["pages"]),
        percent(row["pages"] / total if total else None),
        count(row["calls"]),
        seconds(row["busy_s"]),
    ]
