# SPDX-License-Identifier: Apache-2.0
"""What was found, for a terminal."""

from __future__ import annotations

from balloontrace.analysis.base import Result
from balloontrace.analysis.text.writer import BAD, WARN, Page


def show(page: Page, result: Result, verbose: bool) -> None:
    """Each finding with its evidence and remedy, and what was looked for."""
    for row in result.tables["findings"]:
        page.line(f"{row['title']} [{row['id']}, {row['severity']}]", BAD)
        page.line(row["summary"])
        page.line(f"Certainty: {row['certainty']}: {row['certainty_because']}.")
        page.line(f"Remedy: {row['remedy']}")
    if not result.tables["findings"] and result.scalars["checked"]:
        page.line(f"none of those looked for: {', '.join(result.scalars['checked'])}")
    together: dict[str, list[str]] = {}
    for name, lacking in result.scalars["unchecked"].items():
        together.setdefault(", ".join(lacking), []).append(name)
    for lacking, names in together.items():
        page.line(f"could not look for {', '.join(names)}: not recorded: {lacking}", WARN)
