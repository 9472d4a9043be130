# SPDX-License-Identifier: Apache-2.0
"""recording.json: what is in a directory of tables, for formats that cannot say it themselves."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from balloontrace.analysis.export.columns import Column
from balloontrace.analysis.export.facts import facts
from balloontrace.analysis.export.tables import Table
from balloontrace.analysis.trace.trace import Trace
from balloontrace.destination import MARK


def describe(
    trace: Trace, directory: Path, tables: list[Table], name: Callable[[Column], str]
) -> None:
    """Write the facts of the recording and the meaning of every column, called `name`."""
    content = facts(trace) | {
        "tables": {
            table.name: {
                "doc": table.doc,
                "rows": table.rows,
                "columns": {
                    name(column): {"unit": column.unit, "doc": column.doc}
                    for column in table.columns
                },
            }
            for table in tables
        }
    }
    with open(directory / MARK, "x") as file:
        json.dump(content, file, indent=1)
        file.write("\n")
