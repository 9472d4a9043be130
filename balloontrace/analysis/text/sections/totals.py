# SPDX-License-Identifier: Apache-2.0
"""Pages and GiB in, out, net and migrated, for a terminal."""

from __future__ import annotations

from balloontrace.analysis.base import Result
from balloontrace.analysis.fields import Unit
from balloontrace.analysis.questions.totals import Totals
from balloontrace.analysis.text.writer import Page, count, gib, number


def show(page: Page, result: Result, verbose: bool) -> None:
    """Pages and GiB in, out, net and migrated, and how much of it was undone."""
    shown = [field for field in Totals.section.fields if field.title]
    moved = [result.scalars[field.key] for field in shown if field.unit is Unit.PAGES]
    ratios = [result.scalars[field.key] for field in shown if field.unit is Unit.RATIO]
    page.table(
        ["<", *(field.title for field in shown)],
        [
            ["pages", *map(count, moved), *(number(ratio, 3) for ratio in ratios)],
            ["GiB", *map(gib, moved), *("" for _ in ratios)],
        ],
    )
