# SPDX-License-Identifier: Apache-2.0
"""Published figures beside those of a recording, for a terminal."""

from __future__ import annotations

from balloontrace.analysis.base import Result
from balloontrace.analysis.text.writer import DIM, Page, number


def show(page: Page, result: Result, verbose: bool) -> None:
    """What others measured on other machines: to compare methods, not machines."""
    rows = result.tables["published"]
    sources = list(dict.fromkeys(row["source"] for row in rows))
    page.table(
        ["<figure", "here", "<published", "<source"],
        [
            [
                row["what"],
                number(row["here"], 2, f" {row['unit']}"),
                row["published"],
                f"[{sources.index(row['source']) + 1}]",
            ]
            for row in rows
        ],
    )
    for place, source in enumerate(sources, start=1):
        page.line(f"[{place}] {source.title} ({source.where}): {source.how}", DIM)
