# SPDX-License-Identifier: Apache-2.0
"""JSON of a report and of a comparison: the contract of docs/report.md."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from balloontrace.analysis.base import Result
from balloontrace.analysis.report import Report
from balloontrace.errors import UserError
from balloontrace.escape import plain

SCHEMA = 1

ORDER = (
    *(
        "guest",
        "totals",
        "reconciliation",
        "episodes",
        "periods",
        "causes",
        "cost",
        "phases",
        "latencies",
    ),
    *("oom", "free_pages", "driver", "findings", "marks"),
)


def report_json(report: Report) -> str:
    """One object: facts of the recording at the top level, then one key per result.

    A result that is one table is a list of rows, any other an object; one that was not recorded
    is null and named in `not_recorded`.
    """
    return _dump(_report(report))


def _report(report: Report) -> dict[str, Any]:
    head = report.recording.scalars
    out: dict[str, Any] = {"schema": SCHEMA, **head}
    results = report.results
    for name in sorted(results, key=_place):
        result = results[name]
        out[name] = None if result.missing else _content(result)
    findings = results["findings"].scalars
    out["findings_checked"] = findings["checked"]
    out["findings_unchecked"] = findings["unchecked"]
    out["not_recorded"] = {name: r.missing for name, r in results.items() if r.missing}
    out["notes"] = {name: r.notes for name, r in results.items() if r.notes}
    out["seams"] = report.recording.tables["seams"]
    return out


def overview_json(reports: Mapping[str, Report | UserError]) -> str:
    """An array of reports; of what cannot be read, an object with `path` and `error`."""
    return _dump(
        [
            {"schema": SCHEMA, "path": path, "error": str(report)}
            if isinstance(report, UserError)
            else _report(report)
            for path, report in reports.items()
        ]
    )


def compare_json(comparison: Result) -> str:
    """One object with the rows and the two sides they are from."""
    sides = {side["side"]: side for side in comparison.tables["sides"]}
    rows = comparison.tables["rows"]
    return _dump({"schema": SCHEMA, **comparison.scalars, **sides, "rows": rows})


def _place(name: str) -> int:
    """Where a result stands among the keys: the contract's order, then all others."""
    return ORDER.index(name) if name in ORDER else len(ORDER)


def _content(result: Result) -> Any:
    """A result's answer without its notes."""
    if list(result.tables) == [result.name]:
        return result.tables[result.name]
    return {**result.scalars, **result.tables}


def _dump(content: Any) -> str:
    return json.dumps(plain(content), indent=2, allow_nan=False)
