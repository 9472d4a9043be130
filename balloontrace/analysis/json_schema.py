# SPDX-License-Identifier: Apache-2.0
"""What `report --json` promises, made from what the sections declare: as JSON Schema for programs
(docs/report.schema.json), and as tables for people (docs/report-json.md).
"""

from __future__ import annotations

import json
from typing import Any

from balloontrace.analysis.base import Section, sections
from balloontrace.analysis.fields import Field, Shape, json_schema, properties_of, unit_of, walk
from balloontrace.analysis.json import ABOUT, SCHEMA

HEAD = """# The JSON of a report

`balloontrace report --json` prints one object, of several recordings an array of them. A value that
was not recorded, or is not known, is `null`. Other keys than these may be there; a reader should
ignore them. None is used for another meaning without raising `schema`. The same as JSON Schema, for
programs: [report.schema.json](report.schema.json). Both are made by `make docs`.
"""


def report_schema() -> dict[str, Any]:
    """JSON Schema (2020-12) of a report."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "balloontrace report --json",
        "type": "object",
        "properties": {"schema": {"const": SCHEMA}, **_properties()},
        "required": ["schema", *_properties()],
    }


def schema_text() -> str:
    """The same as the file that is published."""
    return json.dumps(report_schema(), indent=1) + "\n"


def _properties() -> dict[str, Any]:
    properties: dict[str, Any] = {}
    for section in sections():
        if section.inline:
            properties |= properties_of(section.fields)
        elif section.in_json:
            properties[section.name] = _section(section)
    return properties | properties_of(ABOUT)


def _section(section: Section) -> dict[str, Any]:
    """The value of a section's key; null where it was not recorded."""
    return json_schema(Field(section.name, *_content(section)))


def _content(section: Section) -> tuple[tuple[Field, ...], str, str, Shape]:
    """Fields, doc, title and shape of a section as one value."""
    if section.is_table:
        return section.tables[0].fields, section.doc, "", Shape.ARRAY
    tables = [Field(t.name, t.fields, t.doc, shape=Shape.ARRAY) for t in section.tables]
    return (*section.fields, *tables), section.doc, "", Shape.ONE


def markdown() -> str:
    """docs/report-json.md: a table for each key of the object."""
    lines = [HEAD, *_COLUMNS, f"| `schema` | | {SCHEMA} |"]
    for section in sections():
        if section.inline:
            lines += _rows(section.fields)
    lines += _rows(ABOUT)
    for section in sections():
        if section.in_json and not section.inline:
            fields, doc, _, shape = _content(section)
            mark = "[]" if shape is Shape.ARRAY else ""
            lines += ["", f"## {section.name}{mark}", "", f"{doc[0].upper()}{doc[1:]}.", ""]
            lines += [*_COLUMNS, *_rows(fields)]
    return "\n".join(lines) + "\n"


_COLUMNS = ("| key | unit | content |", "|---|---|---|")


def _rows(fields: tuple[Field, ...]) -> list[str]:
    """A row for each field, and each within it."""
    rows: list[str] = []

    def add(name: str, field: Field) -> None:
        words = ", ".join(f"`{word}`" for word in field.words)
        said = ": ".join(filter(None, (field.doc, words))).replace("|", "\\|")
        rows.append(f"| `{name}` | {unit_of(field)} | {said} |")

    walk(fields, "", add)
    return rows
