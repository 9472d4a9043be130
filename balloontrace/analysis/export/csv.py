# SPDX-License-Identifier: Apache-2.0
"""A recording as CSV: one file per table, the unit in each column's name.

Quoting is RFC 4180's; lines end in a newline alone, as Unix tools expect. Null is an empty field
without quotes. Strings are made harmless to spreadsheets, which take a cell that begins with one of
a few characters for a formula (OWASP, "CSV Injection"): an apostrophe is put before those, and
before an apostrophe, so that different names stay different.
"""

from __future__ import annotations

from pathlib import Path
from typing import IO

import pyarrow as pa
from pyarrow import csv

from balloontrace.analysis.export.description import describe
from balloontrace.analysis.export.tables import Table, chosen, tables_of
from balloontrace.analysis.trace.trace import Trace
from balloontrace.escape import visible

_BEGINS_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠")
_OPTIONS = csv.WriteOptions(include_header=True, quoting_style="needed")


def write(trace: Trace, directory: Path, kinds: list[str]) -> list[Table]:
    """Write the tables called `kinds` (all if none is named) into `directory`; returns them.

    Raises UserError for a name that is none, OSError if the directory takes no more.
    """
    tables = chosen(tables_of(trace, harmless), kinds)
    for table in tables:
        with open(directory / f"{table.name}.csv", "xb") as file:
            _write(table, file)
    describe(trace, directory, tables, lambda column: column.with_unit)
    return tables


def write_one(trace: Trace, file: IO[bytes], kind: str) -> Table:
    """Write the table called `kind` to `file`; returns it. Raises as `write` does."""
    (table,) = chosen(tables_of(trace, harmless), [kind])
    _write(table, file)
    return table


def harmless(text: str) -> str:
    """`text` visible, and no spreadsheet's formula."""
    return no_formula(visible(text))


def no_formula(text: str) -> str:
    """`text` with an apostrophe before it, if a spreadsheet would take it for a formula."""
    return f"'{text}" if text.startswith(("'", *_BEGINS_FORMULA)) else text


def _write(table: Table, file: IO[bytes]) -> None:
    names = [column.with_unit for column in table.columns]
    schema = pa.schema([field.with_name(n) for field, n in zip(table.schema, names, strict=True)])
    with csv.CSVWriter(file, schema, write_options=_OPTIONS) as writer:
        for batch in table.batches():
            writer.write_batch(pa.record_batch(batch.columns, schema=schema))
