# SPDX-License-Identifier: Apache-2.0
"""Size and target at the end, and what moved under targets that had been reached."""

from __future__ import annotations

from typing import Any

from balloontrace.analysis.base import Result
from balloontrace.analysis.questions.periods import Periods
from balloontrace.analysis.text.rows import write_table
from balloontrace.analysis.text.writer import Page, mib


def show(page: Page, result: Result, verbose: bool) -> None:
    """Both, those that moved most first."""
    facts, (table,) = result.scalars, Periods.section.tables
    size, target = (_pages_and_mib(facts[key]) for key in ("size_pages", "target_pages"))
    if "begin_size_pages" in facts:
        begun = (_pages_and_mib(facts[f"begin_{key}_pages"]) for key in ("size", "target"))
        page.line("at the beginning: {} in the balloon, target {}".format(*begun))
    page.line(f"at the end: {size} in the balloon, target {target}")
    rows = sorted(result.tables["after"], key=_moved, reverse=True)
    write_table(page, table, rows, verbose)


def _moved(row: dict[str, Any]) -> int:
    return int(row["inflated_pages"] + row["deflated_pages"])


def _pages_and_mib(pages: int | None) -> str:
    if pages is None:
        return "not seen"
    return f"{pages:,} pages ({mib(pages)} MiB)"
