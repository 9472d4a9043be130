# SPDX-License-Identifier: Apache-2.0
"""Datasets whose answers are known, written with nothing but the schema."""

from __future__ import annotations

import json
from collections.abc import Iterable
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from balloontrace.fleet import schema
from balloontrace.fleet.schema import TABLES

DAY = date(2026, 11, 27)
CHECKED = ["host-slow", "churn"]

Row = dict[str, Any]


def of(source: str, **more: Any) -> Row:
    """What every row has, and what tells of a file."""
    file = {"size_bytes": 1, "version": "1", "analysed_by": "0.1.0"}
    return {"source": source, "batch": "b", "day": DAY, **file, **more}


def guest(source: str, **more: Any) -> Row:
    """A recording in order, of which nothing is wrong; all that is not named is not known."""
    known = {"features": [], "duration_s": 60.0, "complete": True, "lost_events": 0}
    verdict = {"agrees": True, "is_balloon": False, "verdict": "no", "findings": 0}
    return of(source, **{**known, **verdict, "checked": CHECKED, **more})


def finding(source: str, name: str, **more: Any) -> Row:
    said = {"severity": "high", "certainty": "high", "summary": "s", "evidence": "{}"}
    return of(source, **{"id": name, "blames_balloon": True, **said, **more})


def episode(source: str, **more: Any) -> Row:
    known = {"number": 1, "start_s": 0.0, "end_s": 1.0, "direction": "inflate"}
    return of(source, **{**known, "outcome": "reached", "events_missing": False, **more})


def failure(source: str, kind: str, reason: str) -> Row:
    return of(source, kind=kind, reason=reason)


def dataset(directory: Path, **tables: Iterable[Row]) -> Path:
    """Write the tables as parts of one batch; all sources of guests and failures were read."""
    directory.mkdir(parents=True)
    (directory / "fleet.json").write_text(json.dumps({"schema": schema.VERSION}))
    rows = {name: list(tables.get(name, ())) for name in TABLES}
    rows["input"] = [
        row | {"outcome": schema.READ, "read_at": datetime(2026, 11, 28, tzinfo=UTC)}
        for row in (*rows["guest"], *rows["failure"])
        if row["batch"] == "b"
    ]
    parts = []
    for name, of_table in rows.items():
        for day in sorted({row["day"] for row in of_table}):
            partition = "" if name == "input" else f"day={day}/"
            some = [row for row in of_table if row["day"] == day or not partition]
            part = f"{name}/{partition}b.parquet"
            parts.append(part)
            made = schema.arrow(TABLES[name])
            extra = {f"{schema.PREFIX}parts": json.dumps(parts)}
            table = pa.Table.from_pylist(some, made).replace_schema_metadata(
                {**made.metadata, **extra}
            )
            (directory / part).parent.mkdir(parents=True, exist_ok=True)
            pq.write_table(table, directory / part)
    return directory
