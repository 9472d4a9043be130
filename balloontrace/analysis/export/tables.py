# SPDX-License-Identifier: Apache-2.0
"""A recording as tables of Arrow: one per kind of event, one per source of samples.

Columns are those of events.py and of the recording's own header, which goes first: its layout may
have fields that this version does not know. What was not visible, and the duration of a call that
had not returned, is null. Nothing is derived; numbers that stand for names stand as names.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from balloontrace.analysis.export.columns import (
    DECLARED,
    Column,
    column_of,
    is_named,
    is_used,
    names_in,
)
from balloontrace.analysis.export.facts import kinds_of
from balloontrace.analysis.questions.delays import DELAYS
from balloontrace.analysis.trace.marks import marks_of, takes_marks
from balloontrace.analysis.trace.trace import Trace, section
from balloontrace.errors import UserError
from balloontrace.escape import visible
from balloontrace.events import OPEN_DURATION, UNKNOWN_PAGES

ROWS_AT_ONCE = 1 << 17
"""Rows of one batch: what is held of a table at a time, and a row group of Parquet."""

Text = Callable[[str], str]
"""Makes a string from the guest fit for the format."""

_LEFT_OUT = ("ring_header", "kind", "reserved")
_PLAIN_NAME = re.compile(r"[a-z][a-z0-9_]{0,39}")
_INT64 = range(-(2**63), 2**63)


@dataclass(frozen=True)
class Table:
    """One table. rows: how many; batches: makes them, at most ROWS_AT_ONCE rows each."""

    name: str
    doc: str
    columns: tuple[Column, ...]
    schema: pa.Schema
    rows: int
    batches: Callable[[], Iterator[pa.RecordBatch]]


def tables_of(trace: Trace, text: Text = visible) -> list[Table]:
    """All tables of a recording: a kind that was recorded has one even if it never happened."""
    found: dict[str, Table] = {}
    for table in _samples(trace, text):
        found[table.name] = table
    for kind in kinds_of(trace):
        number = trace.number("kinds", kind)
        if trace.recorded(kind) or bool((trace.records["kind"] == number).any()):
            # The name becomes that of a file, and comes from the guest.
            plain = _PLAIN_NAME.fullmatch(kind) and kind not in found
            name = kind if plain else f"kind_{number}"
            found[name] = _events(trace, kind, name, text)
    return list(found.values())


def chosen(tables: list[Table], names: list[str]) -> list[Table]:
    """The tables called so; all if none is named. Raises UserError."""
    by_name = {table.name: table for table in tables}
    for name in names:
        if name not in by_name:
            raise UserError(
                f"the recording has no table {visible(name)}", f"it has: {', '.join(by_name)}"
            )
    return [by_name[name] for name in dict.fromkeys(names)] if names else tables


def _events(trace: Trace, kind: str, name: str, text: Text) -> Table:
    """The table of one kind of event, in order of return as they were recorded."""
    records = trace.records
    rows = np.flatnonzero(records["kind"] == trace.number("kinds", kind))
    fields = [field for field in records.dtype.names or () if _holds(records.dtype, kind, field)]
    found = (column_of(trace, kind, field) for field in fields)
    columns = tuple(column._replace(name=text(column.name)) for column in found)
    text_of = [is_named(field) or records.dtype[field].kind == "S" for field in fields]
    types = [pa.string() if is_text else pa.int64() for is_text in text_of]
    schema = pa.schema([(c.name, of_type) for c, of_type in zip(columns, types, strict=True)])

    def batches() -> Iterator[pa.RecordBatch]:
        for begin in range(0, len(rows), ROWS_AT_ONCE):
            chunk = records[rows[begin : begin + ROWS_AT_ONCE]]
            arrays = [_array(trace, chunk, field, text) for field in fields]
            yield pa.record_batch(arrays, schema=schema)

    doc = DECLARED[kind].doc if kind in DECLARED else ""
    return Table(name, doc, columns, schema, len(rows), batches)


def _holds(layout: np.dtype[Any], kind: str, field: str) -> bool:
    """Whether a table of this kind has this field."""
    return field not in _LEFT_OUT and layout[field].kind in "uiS" and is_used(kind, field)


def _array(trace: Trace, chunk: npt.NDArray[np.void], field: str, text: Text) -> pa.Array:
    """One column of some events."""
    values = chunk[field]
    if values.dtype.kind == "S":
        return _texts(values, text)
    if is_named(field):
        numbers, places = np.unique(values, return_inverse=True)
        names = [text(names_in(trace, field, int(number))) for number in numbers]
        return pa.array(names, pa.string()).take(pa.array(places))
    unknown = np.zeros(len(values), dtype=bool)
    if field == "duration_ns":
        unknown = values == OPEN_DURATION
    elif field in ("asked", "done"):
        unknown = values == UNKNOWN_PAGES
    return pa.array(values.astype(np.int64), mask=unknown)


def _texts(values: npt.NDArray[np.bytes_], text: Text) -> pa.Array:
    """Strings of bytes as text: few different ones, so each is decoded once."""
    width = pa.binary(values.dtype.itemsize)
    buffer = pa.py_buffer(np.ascontiguousarray(values))
    encoded = pa.Array.from_buffers(width, len(values), [None, buffer]).dictionary_encode()
    # What stands behind the first NUL is left over from a longer name.
    names = [
        text(value.split(b"\0")[0].decode("utf-8", "surrogateescape"))
        for value in encoded.dictionary.to_pylist()
    ]
    return pa.array(names, pa.string()).take(encoded.indices)


def _samples(trace: Trace, text: Text) -> Iterator[Table]:
    """The tables of the slow sources; none of a source that the recording does not have."""
    moment = Column("t_ns", "ns", "CLOCK_MONOTONIC when the source was read")
    for source, (doc, unit, flat) in _SOURCES.items():
        read = [
            {**flat(sample[source]), "t_ns": sample["t_ns"]}
            for sample in trace.every_sample
            if "t_ns" in sample and isinstance(sample.get(source), dict) and sample[source]
        ]
        if read:
            names = list(dict.fromkeys(name for row in read for name in row if name != "t_ns"))
            columns = (moment, *(Column(text(name), unit(name), "") for name in names))
            yield _table(source, doc, columns, ["t_ns", *names], read, ())
    yield from _delays(trace, moment, text)
    yield from _driver(trace, moment, text)
    yield from _marks(trace, moment, text)


def _delays(trace: Trace, moment: Column, text: Text) -> Iterator[Table]:
    """What each task had waited for, as the kernel counts it from the task's start."""
    read = [
        {"t_ns": sample["t_ns"], "tid": int(tid), **_delay(task, text)}
        for sample in trace.every_sample
        if "t_ns" in sample
        for tid, task in section(sample, "delays").items()
        if isinstance(task, dict)
    ]
    if read:
        columns = [
            moment,
            Column("tid", "", "thread"),
            Column("comm", "", "name of the thread: chosen by the guest, not to be trusted"),
            Column("task_start_ns", "ns", "CLOCK_MONOTONIC when the task began, about"),
        ]
        for delay in DELAYS:
            columns.append(Column(f"{delay}_count", "", f"{delay} delays since the task began"))
            columns.append(Column(f"{delay}_ns", "ns", "and what they took"))
        names = [column.name for column in columns]
        doc = "delays of tasks (taskstats), totals since each began"
        yield _table("delays", doc, tuple(columns), names, read, ("comm",))


def _delay(task: dict[str, Any], text: Text) -> dict[str, Any]:
    row = {"comm": text(str(task.get("comm"))), "task_start_ns": task.get("start_ns")}
    for delay in DELAYS:
        count, took = task.get(delay) or (None, None)
        row |= {f"{delay}_count": count, f"{delay}_ns": took}
    return row


def _driver(trace: Trace, moment: Column, text: Text) -> Iterator[Table]:
    """When the recorder noticed that the driver went or came."""
    read = [
        {"t_ns": c["t_ns"]}
        | {name: text(str(c[name])) if name in c else None for name in ("state", "why")}
        for c in trace.driver_changes
        if trace.contains(c["t_ns"])
    ]
    if read:
        states = "absent (from the start), gone, attached, or untraceable"
        columns = (moment, Column("state", "", states), Column("why", "", "of untraceable"))
        doc = "each time the driver went or came, when the recorder noticed"
        yield _table("driver", doc, columns, ["t_ns", "state", "why"], read, ("state", "why"))


def _marks(trace: Trace, moment: Column, text: Text) -> Iterator[Table]:
    """What people said in the guest."""
    read = [{"t_ns": at_ns, "text": text(said)} for at_ns, said in marks_of(trace)]
    if read or takes_marks(trace):
        doc = "words of people in the guest (balloontrace mark), when they were sent"
        columns = (moment, Column("text", "", "what was said: not to be trusted"))
        yield _table("marks", doc, columns, ["t_ns", "text"], read, ("text",))


def _table(
    name: str,
    doc: str,
    columns: tuple[Column, ...],
    keys: list[str],
    rows: list[dict[str, Any]],
    texts: tuple[str, ...],
) -> Table:
    """A table of rows in memory. keys: of each column in a row; texts: which hold strings."""
    types = [pa.string() if key in texts else pa.int64() for key in keys]
    schema = pa.schema([(c.name, kind) for c, kind in zip(columns, types, strict=True)])

    def batches() -> Iterator[pa.RecordBatch]:
        for begin in range(0, len(rows), ROWS_AT_ONCE):
            some = rows[begin : begin + ROWS_AT_ONCE]
            arrays = [
                pa.array([_whole(row.get(key), key in texts) for row in some], kind)
                for key, kind in zip(keys, types, strict=True)
            ]
            yield pa.record_batch(arrays, schema=schema)

    return Table(name, doc, columns, schema, len(rows), batches)


def _whole(value: Any, is_text: bool) -> Any:
    """`value` if it is what its column holds, else null."""
    if is_text:
        return value
    return value if type(value) is int and value in _INT64 else None


def _flat(resources: dict[str, Any]) -> dict[str, Any]:
    """{"memory": {"some_us": 1}} as {"memory_some_us": 1}."""
    return {
        f"{resource}_{share}": total
        for resource, shares in resources.items()
        if isinstance(shares, dict)
        for share, total in shares.items()
    }


_Source = tuple[str, Callable[[str], str], Callable[[dict[str, Any]], dict[str, Any]]]
_SOURCES: dict[str, _Source] = {
    "vmstat": (
        "chosen counters of /proc/vmstat as the kernel gives them",
        lambda name: "kernel pages" if name.startswith("nr_") else "",
        dict,
    ),
    "meminfo": ("chosen fields of /proc/meminfo", lambda _: "bytes", dict),
    "psi": ("pressure stall information: totals since boot", lambda _: "us", _flat),
}
