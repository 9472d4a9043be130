# SPDX-License-Identifier: Apache-2.0
"""Values and rows in words, by what their fields declare."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from balloontrace.analysis.fields import Field, Table, Unit
from balloontrace.analysis.text.writer import (
    ABSENT,
    DIM,
    Page,
    count,
    number,
    percent,
    seconds,
)

SHOWN_ROWS = 10
"""Rows of a table without -v; the rest is counted, and all of them are in --json."""

SHOWN_CHARACTERS = 32
"""Of the name of a control group: twelve tell a container's id from others."""


def write_table(page: Page, table: Table, rows: Sequence[dict[str, Any]], verbose: bool) -> None:
    """The columns that have a title; the first rows, verbose: all."""
    columns = [field for field in table.fields if field.title]
    shown = rows if verbose else rows[:SHOWN_ROWS]
    if shown:
        page.table(
            [f"<{field.title}" if is_words(field) else field.title for field in columns],
            [[said(field, row[field.key]) for field in columns] for row in shown],
            gap=2 if len(columns) < 10 else 1,
            spans=[(row[table.span[0]], row[table.span[1]]) for row in shown] if table.span else (),
        )
    more(page, len(rows) - len(shown), table.of)


def more(page: Page, hidden: int, of: str) -> None:
    """How many rows are not shown."""
    if hidden > 0:
        page.line(f"and {count(hidden)} more {of} (-v shows all)", DIM)


def is_words(field: Field) -> bool:
    """Whether a column is aligned left."""
    return field.unit in (Unit.TEXT, Unit.FLAG, Unit.CLOCK)


def said(field: Field, value: Any) -> str:
    """A value of `field` in words."""
    if value is None:
        return ABSENT
    if isinstance(value, list):
        return ", ".join(map(str, value)) or "none"
    if isinstance(value, dict):
        return ", ".join(f"{key} {inner}" for key, inner in value.items()) or "none"
    match field.unit:
        case Unit.PAGES | Unit.NUMBER:
            return count(value)
        case Unit.SECONDS:
            return seconds(value)
        case Unit.MOMENT | Unit.PER_S:
            return number(value, 1)
        case Unit.SHARE:
            return percent(value)
        case Unit.RATIO | Unit.RATE:
            return number(value, 3)
        case Unit.BYTES:
            return f"{value / 2**20:,.1f} MiB"
        case Unit.FLAG:
            return "yes" if value else "no"
    return str(value)


def in_groups(paths: list[str]) -> str:
    """Where the tasks ran: the last part of the path, if it is one; else how many."""
    if len(paths) > 1:
        return f" (in {len(paths)} control groups)"
    return f" ({paths[0].rpartition('/')[2][:SHOWN_CHARACTERS]})" if paths else ""
