# SPDX-License-Identifier: Apache-2.0
"""JSON of a report and of a comparison: the contract of docs/report.md."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from balloontrace.analysis.base import Result, Section, sections
from balloontrace.analysis.fields import Field, Shape, Unit, never_null
from balloontrace.analysis.report import Report
from balloontrace.errors import UserError
from balloontrace.escape import plain

SCHEMA = 2
"""2: `totals.churn_ratio` is what was undone within episodes; what 1 called so is
`totals.round_trip_ratio`. Episodes have a `kind`: what was done after a target had been reached is
one of its own."""

ABOUT = never_null(
    Field("findings_checked", Unit.TEXT, "ids that were looked for", shape=Shape.ARRAY),
    Field("findings_unchecked", Unit.TEXT, "id -> what was missing", shape=Shape.NAMED_ARRAYS),
    Field(
        "not_recorded",
        Unit.TEXT,
        "section -> event kinds that were missing; that section's key is null",
        shape=Shape.NAMED_ARRAYS,
    ),
    Field("notes", Unit.TEXT, "section -> how to read its numbers", shape=Shape.NAMED_ARRAYS),
)
"""Keys of the JSON's object that are about its other keys."""


def report_json(report: Report) -> str:
    """One object: facts of the recording at the top level, then one key per result.

    A result that is one table is a list of rows, any other an object; one that was not recorded
    is null and named in `not_recorded`.
    """
    return _dump(_report(report))


def _report(report: Report) -> dict[str, Any]:
    results = report.results
    out: dict[str, Any] = {"schema": SCHEMA}
    for section in sections():
        result = results[section.name]
        if section.inline:
            out |= result.scalars
        elif section.in_json:
            out[section.name] = None if result.missing else _content(section, result)
    findings = results["findings"].scalars
    about = (
        findings["checked"],
        findings["unchecked"],
        {name: result.missing for name, result in results.items() if result.missing},
        {name: result.notes for name, result in results.items() if result.notes},
    )
    out |= {field.key: value for field, value in zip(ABOUT, about, strict=True)}
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


def _content(section: Section, result: Result) -> Any:
    """A result's answer without its notes."""
    if section.is_table:
        return result.tables[section.name]
    return {**result.scalars, **result.tables}


def _dump(content: Any) -> str:
    return json.dumps(plain(content), indent=2, allow_nan=False)
