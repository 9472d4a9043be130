# SPDX-License-Identifier: Apache-2.0
"""A dataset: a directory of Parquet parts, each there whole or not at all (schema.py).

The parts of a batch count from the moment its part of `input` is there, which names them all.
Whatever else lies about is of a run that was killed: the next one removes it.
"""

from __future__ import annotations

import contextlib
import fcntl
import glob
import json
import os
import re
import time
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from balloontrace.errors import EXIT_USAGE, UserError
from balloontrace.fleet import schema
from balloontrace.fleet.batches import Batch
from balloontrace.fleet.schema import INPUT, PREFIX, READ, TABLES, Table
from balloontrace.fleet.sources import Source

if TYPE_CHECKING:
    import pyarrow as pa

Row = dict[str, Any]

MARK = "fleet.json"
"""In every dataset, with the version of its schema: what has none is none."""

_LOCK = ".lock"
_PARTS = f"{PREFIX}parts".encode()
_DAY = "day="


class Dataset:
    """directory: where it is, for every worker: on a cluster, a file system that all have."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    @staticmethod
    def made(directory: Path) -> Dataset:
        """The dataset there, a new one if there is nothing. Raises UserError if something else is,
        or it cannot be written."""
        try:
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            inside = [name for name in os.listdir(directory) if name != _LOCK]
            if inside and MARK not in inside:
                raise UserError(
                    f"{directory} holds something else than a dataset", "name another", EXIT_USAGE
                )
            if not inside:
                content = json.dumps({"schema": schema.VERSION})
                _put(directory / MARK, lambda path: path.write_text(content))
        except OSError as error:
            raise UserError(f"cannot write {directory}: {error.strerror}") from None
        return Dataset.there(directory)

    @staticmethod
    def there(directory: Path) -> Dataset:
        """The dataset there. Raises UserError if there is none, or one of another version."""
        try:
            said = json.loads((directory / MARK).read_bytes())
            version = said["schema"]
        except OSError as error:
            raise UserError(
                f"{directory} is no dataset: {error.strerror}",
                "make one: balloontrace fleet PATH... -o DIR",
                EXIT_USAGE,
            ) from None
        except (ValueError, KeyError, TypeError):
            raise UserError(f"{directory / MARK} cannot be read", "", EXIT_USAGE) from None
        if version != schema.VERSION:
            raise UserError(
                f"{directory} has schema {version}, this is {schema.VERSION}",
                "make a new one",
                EXIT_USAGE,
            )
        return Dataset(directory)

    @contextlib.contextmanager
    def alone(self) -> Iterator[None]:
        """A time in which no other run writes here; what killed ones left is gone, before it and
        after it. Raises UserError if one runs."""
        with contextlib.ExitStack() as held:
            try:
                lock = held.enter_context(open(self.directory / _LOCK, "w"))
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise UserError(f"another run is writing {self.directory}", "let it end") from None
            except OSError as error:
                raise UserError(f"cannot write {self.directory}: {error.strerror}") from None
            self._sweep()
            try:
                yield
            finally:
                self._sweep()

    # Writing, by workers

    def write(self, batch: Batch, rows: Mapping[str, list[Row]], outcomes: list[str]) -> None:
        """Write the parts of a batch. rows: by table, without `input`; outcomes: of each source,
        READ or a kind of failure. Raises OSError if the disk takes no more."""
        self._forget(batch)
        parts = []
        for name, of_table in rows.items():
            by_day: dict[str, list[Row]] = {}
            for row in of_table:
                by_day.setdefault(row["day"].isoformat(), []).append(row | {"batch": batch.name})
            for day, of_day in sorted(by_day.items()):
                part = f"{name}/{_DAY}{day}/{batch.name}.parquet"
                self._write(TABLES[name], part, of_day, [])
                parts.append(part)
        read_at = datetime.now(UTC)
        inputs = [
            of_file(source, batch) | {"outcome": outcome, "read_at": read_at}
            for source, outcome in zip(batch.sources, outcomes, strict=True)
        ]
        self._write(INPUT, f"{INPUT.name}/{batch.name}.parquet", inputs, parts)

    def _forget(self, batch: Batch) -> None:
        """If this batch was read before, and failed: what was said of it counts no more."""
        before = self.directory / INPUT.name / f"{batch.name}.parquet"
        if before.exists():
            parts = _parts_of(before)
            before.unlink(missing_ok=True)  # first: what it does not name counts for nothing
            for part in parts:
                (self.directory / part).unlink(missing_ok=True)

    def _write(self, table: Table, part: str, rows: list[Row], parts: list[str]) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        made = schema.arrow(table)
        made = made.with_metadata({**made.metadata, _PARTS: json.dumps(parts).encode()})
        rows = sorted(rows, key=lambda row: str(row["source"]))  # stable: findings keep their order
        columns = [[row.get(name) for row in rows] for name in made.names]
        arrays = [pa.array(c, field.type) for c, field in zip(columns, made, strict=True)]
        content = pa.Table.from_arrays(arrays, schema=made)
        path = self.directory / part
        path.parent.mkdir(parents=True, exist_ok=True)
        _put(path, lambda beside: pq.write_table(content, beside, compression="zstd"))

    # Reading

    def done(self, failures_again: bool = False) -> set[tuple[str, int, str, str]]:
        """(source, size in bytes, version, analysed_by) of what need not be read again.

        failures_again: whether that is only what did not fail.
        """
        inputs = self.rows(INPUT)
        keys = ("source", "size_bytes", "version", "analysed_by")
        columns = [inputs[key].to_pylist() for key in keys]
        outcomes = inputs["outcome"].to_pylist()
        of_each = zip(zip(*columns, strict=True), outcomes, strict=True)
        return {
            found
            for found, outcome in of_each
            if outcome == READ or (outcome != "source" and not failures_again)
        }

    def table(self, name: str) -> pa.Table:
        """The rows of a table that count: of each source those of the last batch that read it."""
        import pyarrow as pa

        rows = self.rows(TABLES[name])
        inputs = self.rows(INPUT).sort_by("read_at")
        pairs = zip(inputs["source"].to_pylist(), inputs["batch"].to_pylist(), strict=True)
        last = dict(pairs)
        here = zip(rows["source"].to_pylist(), rows["batch"].to_pylist(), strict=True)
        counts = pa.array([last.get(source) == batch for source, batch in here], pa.bool_())
        return rows.filter(counts)

    def rows(self, table: Table) -> pa.Table:
        """All rows of a table, also those of sources that were read again since. Raises UserError
        if a part cannot be read."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        made = schema.arrow(table)
        found = [made.empty_table()]
        for path in self.parts(table):
            with _as_a_part(path):
                found.append(pq.ParquetFile(path).read().select(made.names).cast(made))
        return pa.concat_tables(found)

    def parts(self, table: Table) -> list[Path]:
        """The files of a table. Raises UserError where a directory cannot be read: a pattern would
        pass over it."""
        top = self.directory / table.name
        try:
            days = (path for path in top.iterdir() if path.name.startswith(_DAY))
            directories = [top] if table is INPUT else list(days)
            return sorted(
                path
                for directory in directories
                for path in directory.iterdir()
                if path.suffix == ".parquet" and not path.name.startswith(".")
            )
        except FileNotFoundError:  # nothing was written yet
            return []
        except OSError as error:
            raise UserError(f"cannot read {error.filename}: {error.strerror}") from None

    def _sweep(self) -> None:
        """Remove what belongs to no batch that was finished. Raises UserError."""
        kept = set()
        try:
            for path in self.parts(INPUT):
                parts = _parts_of(path)
                if all((self.directory / part).exists() for part in parts):
                    kept |= set(parts)
                else:  # a worker that outlived its run wrote it after the next had swept
                    path.unlink(missing_ok=True)
            for name in TABLES:
                for path in (self.directory / name).glob("**/*.parquet*"):
                    part = str(path.relative_to(self.directory))
                    half = _TEMPORARY.fullmatch(path.name)
                    if half or (name != INPUT.name and part not in kept):
                        path.unlink(missing_ok=True)
        except OSError as error:
            raise UserError(f"cannot write {self.directory}: {error.strerror}") from None


@contextlib.contextmanager
def _as_a_part(path: Path) -> Iterator[None]:
    """Raises UserError for what cannot be read as a part of a dataset."""
    import pyarrow as pa

    try:
        yield
    except (OSError, pa.ArrowException, KeyError, ValueError, TypeError) as error:
        raise UserError(
            f"{path} cannot be read: {' '.join(str(error).split())}",
            "remove it: the next run reads its recordings anew",
        ) from None


def _parts_of(path: Path) -> list[str]:
    """The parts that one of `input` names. Raises UserError."""
    import pyarrow.parquet as pq

    with _as_a_part(path):
        parts: list[str] = json.loads((pq.read_schema(path).metadata or {})[_PARTS])
        return parts


_TEMPORARY = re.compile(r"\..*\.parquet\.[\d-]+")


def _put(path: Path, write: Callable[[Path], object]) -> None:
    """Have a file written beside its place, and then moved there."""
    beside = path.with_name(f".{path.name}.{os.getpid()}-{time.time_ns()}")
    try:
        write(beside)
        descriptor = os.open(beside, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        os.replace(beside, path)
    finally:
        beside.unlink(missing_ok=True)


def of_file(source: Source, batch: Batch) -> Row:
    """What rows of `guest`, `failure` and `input` say of the file."""
    return {
        "source": source.name,
        "batch": batch.name,
        "size_bytes": source.size_bytes,
        "version": source.version,
        "analysed_by": batch.analysed_by,
    }


def failed(source: Source, batch: Batch, kind: str, reason: str) -> Row:
    """The row of `failure` of a source."""
    about = {"day": source.written, "kind": kind, "reason": reason}
    return {**of_file(source, batch), **about}


_SQL_TYPES = {
    "string": "VARCHAR",
    "int64": "BIGINT",
    "double": "DOUBLE",
    "bool": "BOOLEAN",
    "date32[day]": "DATE",
    "timestamp[ms, UTC]": "TIMESTAMPTZ",
    "list<string>": "VARCHAR[]",
}


def views(dataset: Dataset) -> list[str]:
    """SQL (DuckDB's) that makes a view of the name of each table, with the rows that count."""
    directory = glob.escape(str(dataset.directory.absolute())).replace("'", "''")
    quoted = {name: f"{directory}/{name}" for name in TABLES}
    # Of our own words, but for the directory, which is quoted.
    last = (
        "SELECT source, arg_max(batch, read_at) AS batch "  # noqa: S608
        f"FROM read_parquet('{quoted[INPUT.name]}/*.parquet') GROUP BY source"
    )
    said = []
    for table in TABLES.values():
        if dataset.parts(table):
            pattern = "*.parquet" if table is INPUT else f"{_DAY}*/*.parquet"
            parts = f"read_parquet('{quoted[table.name]}/{pattern}', hive_partitioning = false)"
            content = f"SELECT * FROM {parts} SEMI JOIN ({last}) USING (source, batch)"  # noqa: S608
        else:
            nothing = (f"NULL::{_SQL_TYPES[c.kind]} AS {c.name}" for c in table.columns)
            content = f"SELECT {', '.join(nothing)} WHERE false"
        said.append(f"CREATE VIEW {table.name} AS {content}")
    return said
