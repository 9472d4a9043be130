# SPDX-License-Identifier: Apache-2.0
"""What somebody in the guest said meanwhile, for a terminal."""

from __future__ import annotations

from balloontrace.analysis.base import Result
from balloontrace.analysis.text.writer import ABSENT, DIM, Page, number

SHOWN = 20
"""Marks without -v, the first ones."""


def any_there(result: Result) -> bool:
    """Whether anybody said anything."""
    return bool(result.tables.get("marks"))


def marks(page: Page, result: Result, verbose: bool) -> None:
    """Each mark with its time."""
    rows = result.tables["marks"]
    if not rows:
        page.line("nobody marked anything")
        return
    shown = rows if verbose else rows[:SHOWN]
    cells = [[number(row["at_s"], 3), row["at"] or ABSENT, row["text"]] for row in shown]
    page.table(["at s", "<wall clock", "<mark"], cells)
    if hidden := len(rows) - len(shown):
        page.line(f"and {hidden:,} more marks (-v shows all)", DIM)
