# SPDX-License-Identifier: Apache-2.0
"""Pages and GiB in, out, net and migrated, for a terminal."""

from __future__ import annotations

from balloontrace.analysis.base import Result
from balloontrace.analysis.questions.totals import Totals
from balloontrace.analysis.text.writer import Page, count, gib, number


def show(page: Page, result: Result, verbose: bool) -> None:
    """Pages and GiB in, out, net and migrated."""
    moved = [field for field in Totals.section.fields if field.title]
    values = [result.scalars[field.key] for field in moved]
    page.table(
        ["<", *(field.title for field in moved), "churn ratio"],
        [
            ["pages", *map(count, values), number(result.scalars["churn_ratio"], 3)],
            ["GiB", *map(gib, values), ""],
        ],
    )
