# SPDX-License-Identifier: Apache-2.0
"""A recording as Parquet: one file per table, units and meaning in the schema's metadata."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from balloontrace.analysis.export.description import describe
from balloontrace.analysis.export.facts import facts
from balloontrace.analysis.export.tables import Table, chosen, tables_of
from balloontrace.analysis.trace.trace import Trace

PREFIX = "balloontrace."
"""Of every key in the metadata of a file: the facts of the recording, strings plain, all else JSON.
Fields have `unit` and `doc`."""


def write(trace: Trace, directory: Path, kinds: list[str]) -> list[Table]:
    """Write the tables called `kinds` (all if none is named) into `directory`; returns them.

    Raises UserError for a name that is none, OSError if the directory takes no more.
    """
    tables = chosen(tables_of(trace), kinds)
    known = {key: _text(value) for key, value in facts(trace).items()}
    for table in tables:
        about = {"table": table.name, "doc": table.doc, **known}
        with pq.ParquetWriter(
            directory / f"{table.name}.parquet", _schema(table, about), compression="zstd"
        ) as writer:
            for batch in table.batches():
                writer.write_table(pa.Table.from_batches([batch], schema=table.schema))
    describe(trace, directory, tables, lambda column: column.name)
    return tables


def _schema(table: Table, about: dict[str, str]) -> pa.Schema:
    """The table's schema with what each field means, and the recording."""
    fields = [
        field.with_metadata({"unit": column.unit, "doc": column.doc})
        for field, column in zip(table.schema, table.columns, strict=True)
    ]
    return pa.schema(fields, {PREFIX + key: value for key, value in about.items()})


def _text(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value)
