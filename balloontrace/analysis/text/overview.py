# SPDX-License-Identifier: Apache-2.0
"""Several recordings for a terminal: one line each, then what was found in each."""

from __future__ import annotations

import os
from collections.abc import Mapping

from balloontrace.analysis.report import Report
from balloontrace.analysis.text.head import verdict
from balloontrace.analysis.text.sections import findings
from balloontrace.analysis.text.writer import ABSENT, BAD, GOOD, WIDTH, Page, count, gib, seconds
from balloontrace.errors import UserError


def overview_text(
    reports: Mapping[str, Report | UserError], colour: bool = False, width: int = WIDTH
) -> str:
    """The reports by path, or why there is none, in at most `width` columns."""
    page = Page(colour, width)
    directories = {os.path.dirname(path) for path in reports}
    common = f"{directories.pop()}/" if len(directories) == 1 else ""
    page.table(
        ["<recording", "lasted", "GiB in", "GiB out", "lost", "<vmstat", "<found"],
        [[path.removeprefix(common), *_row(report)] for path, report in reports.items()],
    )
    for path, report in reports.items():
        if isinstance(report, UserError):
            page.heading(path)
            page.line(str(report), BAD)
        elif report.results["findings"].tables["findings"]:
            page.heading(path)
            findings.show(page, report.results["findings"], False)
    return page.text()


def _row(report: Report | UserError) -> list[str]:
    if isinstance(report, UserError):
        return [*[ABSENT] * 5, "cannot be read"]
    recording, totals = report.recording.scalars, report.results["totals"].scalars
    agrees = report.results["reconciliation"].scalars["agrees"]
    found = [finding["id"] for finding in report.results["findings"].tables["findings"]]
    nothing = "nothing" if verdict(report)[1] == GOOD else "nothing, but not all is sure"
    return [
        seconds(recording["duration_s"]),
        gib(totals["inflated_pages"]),
        gib(totals["deflated_pages"]),
        count(recording["lost_events"]),
        {True: "equal", False: "DISAGREES", None: "not known"}[agrees],
        ", ".join(found) or nothing,
    ]
