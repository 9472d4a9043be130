# SPDX-License-Identifier: Apache-2.0
"""What `report --json` promises, made from what the sections declare: as JSON Schema for programs
(docs/report.schema.json), and as tables for people (docs/report-json.md).
"""

from __future__ import annotations

import json
from dataclasses import replace
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
            properties[section.name] = json_schema(_as_field(section))
    return properties | properties_of(ABOUT)


def _as_field(section: Section) -> Field:
    """A section as one value, which is null where it was not recorded."""
    tables = [Field(t.name, t.fields, t.doc, shape=Shape.ARRAY) for t in section.tables]
    if section.is_table:
        return replace(tables[0], doc=section.doc)
    return Field(section.name, (*section.fields, *tables), section.doc)


def markdown() -> str:
    """docs/report-json.md: a table for each key of the object."""
    lines = [HEAD, *_COLUMNS, f"| `schema` | | {SCHEMA} |"]
    for section in sections():
        if section.inline:
            lines += [_row(*each) for each in walk(section.fields)]
    lines += [_row(*each) for each in walk(ABOUT)]
    for section in sections():
        if section.in_json and not section.inline:
            (name, field), *inner = walk((_as_field(section),))
            within = [(path.removeprefix(f"{name}."), one) for path, one in inner]
            lines += ["", f"## {name}", "", f"{field.doc[0].upper()}{field.doc[1:]}.", ""]
            lines += [*_COLUMNS, *(_row(path, one) for path, one in within)]
    return "\n".join(lines) + "\n"


_COLUMNS = ("| key | unit | content |", "|---|---|---|")


def _row(path: str, field: Field) -> str:
    words = ", ".join(f"`{word}`" for word in field.words)
    said = ": ".join(filter(None, (field.doc, words))).replace("|", "\\|")
    return f"| `{path}` | {unit_of(field)} | {said} |"
