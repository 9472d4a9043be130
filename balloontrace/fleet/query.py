# SPDX-License-Identifier: Apache-2.0
"""SQL over a dataset, by DuckDB: it reads, and nothing but the dataset."""

from __future__ import annotations

import csv
import glob
import io
import json
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import date, datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any, NamedTuple

from balloontrace.analysis.export.csv import no_formula
from balloontrace.errors import EXIT_USAGE, UserError
from balloontrace.escape import visible
from balloontrace.fleet.dataset import Dataset, views

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection, Statement

_CLOSED: dict[str, str | bool | int | float | list[str]] = {
    "autoinstall_known_extensions": False,
    "autoload_known_extensions": False,
    "python_enable_replacements": False,  # a name is a table, never a variable of this program
    "temp_directory": "",
}

_ONLY_THE_DATASET = (
    "SET TimeZone = 'UTC'",
    "SET allowed_directories = [{directory}]",
    "SET enable_external_access = false",
    "SET lock_configuration = true",
)

_REASON_CHARS = 300


class Answer(NamedTuple):
    """columns: their names, each once; rows: Python's values."""

    columns: list[str]
    rows: list[tuple[Any, ...]]


def query(dataset: Dataset, sql: str) -> Answer:
    """What one SELECT says of the tables of schema.py. Raises UserError if it is something else, or
    DuckDB does not take it."""
    import duckdb

    try:
        with duckdb.connect(config=_CLOSED) as connection:
            directory = _directory(dataset)
            for setting in _ONLY_THE_DATASET:
                connection.execute(setting.format(directory=directory))
            for view in views(dataset):
                connection.execute(view)
            statements = connection.extract_statements(sql)
            # Not EXPLAIN: with ANALYZE it does what it explains, also if that writes.
            if [statement.type for statement in statements] != [duckdb.StatementType.SELECT]:
                raise UserError(
                    "query takes one SELECT, and nothing that writes or changes anything",
                    "the tables: " + ", ".join(_names(dataset)),
                    EXIT_USAGE,
                )
            return _interruptible(connection, statements[0])
    except duckdb.IOException as error:
        raise UserError(_reason(error)) from None
    except duckdb.Error as error:
        raise UserError(_reason(error), "", EXIT_USAGE) from None


def _interruptible(connection: DuckDBPyConnection, statement: Statement) -> Answer:
    """What a statement says, by a thread: DuckDB leaves Ctrl-C waiting until it is done."""

    def work() -> Answer:
        done = connection.execute(statement)
        columns = [str(column[0]) for column in done.description or ()]
        return Answer(_each_once(columns), done.fetchall())

    with ThreadPoolExecutor(1) as thread:
        answer = thread.submit(work)
        try:
            return answer.result()
        except KeyboardInterrupt:
            connection.interrupt()
            raise


def _directory(dataset: Dataset) -> str:
    """Where DuckDB may read, in SQL: the dataset, as it is called, and as patterns name it."""
    name = str(dataset.directory.absolute())
    both = (one.replace("'", "''") for one in (name, glob.escape(name)))
    return ", ".join(f"'{one}/'" for one in both)


def _names(dataset: Dataset) -> list[str]:
    return [view.split()[2] for view in views(dataset)]


def _reason(error: Exception) -> str:
    """The first line of what DuckDB says; the others show the place, which is on the command
    line."""
    said = next((line for line in str(error).splitlines() if line), type(error).__name__)
    return visible(said[:_REASON_CHARS])


def _each_once(names: Iterable[str]) -> list[str]:
    """The names, those that were there already with a number behind them."""
    kept: list[str] = []
    for name in names:
        number, one = 1, name
        while one in kept:
            number += 1
            one = f"{name}_{number}"
        kept.append(one)
    return kept


def as_text(answer: Answer) -> str:
    """Aligned columns, numbers to the right; null is empty."""
    cells = [[_shown(value) for value in row] for row in answer.rows]
    titles = [_harmless(name) for name in answer.columns]
    numbers = [_is_number([row[place] for row in answer.rows]) for place in range(len(titles))]
    widths = [max(map(len, column)) for column in zip(titles, *cells, strict=True)]
    lines = [titles, ["-" * width for width in widths], *cells]
    return "\n".join(_line(line, widths, numbers) for line in lines)


def _line(cells: Sequence[str], widths: Sequence[int], numbers: Sequence[bool]) -> str:
    aligned = [
        cell.rjust(width) if is_number else cell.ljust(width)
        for cell, width, is_number in zip(cells, widths, numbers, strict=True)
    ]
    return "  ".join(aligned).rstrip()


def _is_number(values: Iterable[Any]) -> bool:
    return all(
        value is None or (isinstance(value, (int, float)) and not isinstance(value, bool))
        for value in values
    )


def _shown(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, (list, tuple)):
        return ", ".join(_shown(item) for item in value)
    if isinstance(value, bool):
        return "true" if value else "false"
    return _harmless(_plain(value) if isinstance(value, (date, datetime)) else str(value))


def _harmless(text: str) -> str:
    """Text of a dataset is harmless already, so its backslashes stay; but SQL can make any."""
    return "\\".join(map(visible, text.split("\\")))


def as_json(answer: Answer) -> str:
    """A list with an object for each row."""
    rows = [dict(zip(answer.columns, map(_plain, row), strict=True)) for row in answer.rows]
    return json.dumps(rows, indent=2, allow_nan=False)


def as_csv(answer: Answer) -> str:
    """With a line of names; null is empty."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(answer.columns)
    writer.writerows([[_cell(value) for value in row] for row in answer.rows])
    return out.getvalue().rstrip("\n")


def _cell(value: Any) -> Any:
    """As a spreadsheet takes it: text is no formula there."""
    said = ", ".join(map(_shown, value)) if isinstance(value, (list, tuple)) else _plain(value)
    return no_formula(said) if isinstance(said, str) else "" if said is None else said


def _plain(value: Any) -> Any:
    """As JSON takes it: moments as ISO 8601, what is no number null, the rest as text."""
    if isinstance(value, (float, Decimal)):
        number = float(value)
        return number if abs(number) < float("inf") else None
    if value is None or isinstance(value, (bool, int, str)):
        return value
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    return value.isoformat() if isinstance(value, (date, datetime)) else str(value)
