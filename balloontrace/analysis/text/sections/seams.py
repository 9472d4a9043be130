# SPDX-License-Identifier: Apache-2.0
"""What could not be traced, or only with a loss, for a terminal."""

from __future__ import annotations

from balloontrace.analysis.base import Result
from balloontrace.analysis.text.writer import DIM, WARN, Page, count


def show(page: Page, result: Result, verbose: bool) -> None:
    """The seams that lose something; verbose: all."""
    every = result.tables["seams"]
    if not every:
        return
    rows = [row for row in every if verbose or row["negotiated"]]
    shown = [row for row in rows if verbose or row["rung"] is None or row["loses"]]
    if shown:
        cells = [
            [
                row["seam"],
                row["rung"] or "not attached",
                row["loses"] or row["why_not"],
                count(row["events"]),
            ]
            for row in shown
        ]
        page.table(["<seam", "<traced by", "<loses, or why not", "events"], cells)
    else:
        page.line(f"all {len(rows)} attached, none loses anything")
    for row in every:
        for change in row["later"]:
            now, was = (change[key] or "not attached" for key in ("rung", "was"))
            said = f"from {change['from_s']:,.1f} s on {row['seam']}: {now}, before that {was}"
            if loses := change["loses"] or (change["rung"] is None and change["why_not"]):
                said += f" ({'loses ' if change['loses'] else ''}{loses})"
            page.line(said, WARN)
    idle = [row["seam"] for row in every if not row["negotiated"]]
    if idle and not verbose:
        page.line(f"nothing to trace, its feature is not negotiated: {', '.join(idle)}", DIM)
