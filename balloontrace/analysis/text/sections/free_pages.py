# SPDX-License-Identifier: Apache-2.0
"""Free page reporting and hinting, for a terminal."""

from __future__ import annotations

from typing import Any

from balloontrace.analysis.base import Result
from balloontrace.analysis.questions.free_pages import FreePages
from balloontrace.analysis.text.rows import write_table
from balloontrace.analysis.text.writer import (
    WARN,
    Page,
    count,
    number,
    percent,
    seconds,
    times,
)


def show(page: Page, result: Result, verbose: bool) -> None:
    """Free page reporting and hinting, what of them was recorded."""
    reporting, hinting = result.scalars["reporting"], result.scalars["hinting"]
    if reporting is not None:
        _reporting(page, reporting)
    if hinting is not None:
        page.line(
            f"hinting: {_calls(hinting['calls'])}, {count(hinting['lent_pages'])} pages lent, "
            f"{count(hinting['returned_pages'])} taken back, {seconds(hinting['total_s'])}"
        )
        (table,) = FreePages.section.tables
        write_table(page, table, result.tables["hint_runs"], verbose)


def _reporting(page: Page, facts: dict[str, Any]) -> None:
    """What reporting did, how long it took, and what of it has not ended."""
    page.line(
        f"reporting: {_calls(facts['calls'])}, {count(facts['pages'])} pages "
        f"reported, {seconds(facts['total_s'])} ({percent(facts['share'])} of the time)"
        + (f", refused {times(facts['refused'])}" if facts["refused"] else "")
    )
    if facts["worker_runs"]:
        blocks = "" if facts["order"] is None else f", for blocks of order {facts['order']} and up"
        page.line(
            f"the kernel's worker looked for free blocks {times(facts['worker_runs'])}{blocks}: "
            f"{seconds(facts['worker_s'])}, reports included"
        )
    if facts["longest_s"] is not None:
        page.line(
            f"a report: {count(facts['pages_per_call'])} pages in the mean, median "
            f"{seconds(facts['median_s'])}, longest {seconds(facts['longest_s'])} "
            f"(at {number(facts['longest_at_s'], 1)} s)"
        )
    if facts["open"]:
        one = "a report" if facts["open"] == 1 else f"{count(facts['open'])} reports"
        page.line(
            f"{one} of {count(facts['open_pages'])} pages had not returned at the end: begun at "
            f"{number(facts['open_at_s'], 1)} s, open for {seconds(facts['open_s'])}",
            WARN,
        )


def _calls(calls: int) -> str:
    return "1 call" if calls == 1 else f"{calls:,} calls"
