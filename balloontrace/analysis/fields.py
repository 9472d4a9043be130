# SPDX-License-Identifier: Apache-2.0
"""What a value of a result is: its key, unit and meaning, declared once.

The text of a report, its JSON, the JSON's schema and the table in docs/report-json.md are made from
these declarations.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from enum import Enum
from typing import Any


class Unit(Enum):
    """What a value counts; of each, what the docs call it and its type in JSON."""

    PAGES = "balloon pages", "integer"
    NUMBER = "number", "integer"
    SECONDS = "s", "number"
    MOMENT = "s since attach", "number"
    SHARE = "share of 1", "number"
    RATIO = "ratio", "number"
    RATE = "GiB/s", "number"
    PER_S = "per s", "number"
    BYTES = "bytes", "integer"
    TEXT = "text", "string"
    FLAG = "true or false", "boolean"
    CLOCK = "ISO 8601, UTC", "string"


class Shape(Enum):
    """How many values stand under a key: one, an array, or an object with names of its own, each
    of one value or of an array."""

    ONE, ARRAY, NAMED, NAMED_ARRAYS = range(4)


@dataclass(frozen=True)
class Field:
    """One value. `None` (JSON: null) means that it was not recorded or is not known.

    unit: of a value, or the fields of an object; doc: what it says, for docs and schema; title: the
    head of its column in text, empty if it has none; words: all that a TEXT can be, if that is
    known; never_null: True if it always has a value; may_lack: True if the key itself can be
    missing.
    """

    key: str
    unit: Unit | tuple[Field, ...]
    doc: str = ""
    title: str = ""
    shape: Shape = Shape.ONE
    words: tuple[str, ...] = ()
    never_null: bool = False
    may_lack: bool = False


@dataclass(frozen=True)
class Table:
    """Rows of one kind. of: what its rows are, in the plural: `and 3 more tasks`; span: the fields
    that say from when to when a row is, which a timeline can be zoomed to."""

    name: str
    fields: tuple[Field, ...]
    of: str = "rows"
    doc: str = ""
    span: tuple[str, str] | None = None


def never_null(*fields: Field) -> tuple[Field, ...]:
    """The same fields, which always have a value."""
    return tuple(replace(field, never_null=True) for field in fields)


def json_schema(field: Field) -> dict[str, Any]:
    """What JSON Schema (2020-12) says of the value of `field`."""
    unit = field.unit
    value = object_schema(unit) if isinstance(unit, tuple) else _scalar(field, unit)
    if field.shape in (Shape.ARRAY, Shape.NAMED_ARRAYS):
        value = {"type": "array", "items": value}
    if field.shape in (Shape.NAMED, Shape.NAMED_ARRAYS):
        value = {"type": "object", "additionalProperties": value}
    if not field.never_null:
        value["type"] = [value["type"], "null"]
        if "enum" in value:
            value["enum"] = [*value["enum"], None]
    if said := "; ".join(filter(None, (field.doc, unit_of(field)))):
        value["description"] = said
    return value


def unit_of(field: Field) -> str:
    """The unit of a value, or what kind of value it is."""
    return field.unit.value[0] if isinstance(field.unit, Unit) else ""


def object_schema(fields: tuple[Field, ...]) -> dict[str, Any]:
    """An object of these fields. Other keys may be there: later versions add some."""
    required = [field.key for field in fields if not field.may_lack]
    return {
        "type": "object",
        "properties": properties_of(fields),
        "required": required,
    }


def properties_of(fields: tuple[Field, ...]) -> dict[str, Any]:
    """The schemas of these fields, by key."""
    return {field.key: json_schema(field) for field in fields}


def _scalar(field: Field, unit: Unit) -> dict[str, Any]:
    value: dict[str, Any] = {"type": unit.value[1]}
    return {**value, "enum": list(field.words)} if field.words else value


_MARKS = {Shape.ONE: "", Shape.ARRAY: "[]", Shape.NAMED: "{}", Shape.NAMED_ARRAYS: "{}[]"}


def walk(fields: tuple[Field, ...], path: str = "") -> Iterator[tuple[str, Field]]:
    """Every field and those within it, with its path: `episodes[].no_progress[].start_s`."""
    for field in fields:
        here = f"{path}{field.key}{_MARKS[field.shape]}"
        yield here, field
        if isinstance(field.unit, tuple):
            yield from walk(field.unit, f"{here}.")
