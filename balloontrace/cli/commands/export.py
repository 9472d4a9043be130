# SPDX-License-Identifier: Apache-2.0
"""`balloontrace export`: a recording for other tools."""

from __future__ import annotations

import os
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Callable, List, Optional

import typer

from balloontrace.analysis import dependencies
from balloontrace.cli import output
from balloontrace.cli.options import HOST, SINCE, UNTIL
from balloontrace.errors import EXIT_USAGE, UserError
from balloontrace.recording.host_lines import named_as

if TYPE_CHECKING:
    from balloontrace.analysis.trace.trace import Trace


class Format(StrEnum):
    """What can be written."""

    PERFETTO = "perfetto"
    PARQUET = "parquet"
    CSV = "csv"


_PACKAGES = {Format.PERFETTO: "perfetto", Format.PARQUET: "pyarrow", Format.CSV: "pyarrow"}


def command(
    file: Path = typer.Argument(..., metavar="FILE", help="A recording (.btrace)."),
    form: Format = typer.Option(..., "--format", help="What to write."),
    out: Path = typer.Option(
        ...,
        "-o",
        "--output",
        metavar="OUT",
        help="A file for Perfetto, a directory for Parquet and CSV; - is stdout (Perfetto, or CSV "
        "of one --kind).",
    ),
    kinds: List[str] = typer.Option(
        [], "--kind", metavar="NAME", help="Only this table (Parquet, CSV); may be repeated."
    ),
    since: Optional[str] = SINCE,
    until: Optional[str] = UNTIL,
    host: Optional[Path] = HOST,
    force: bool = typer.Option(False, "-f", "--force", help="Overwrite an earlier export."),
) -> None:
    """Write all that is in a recording in a format that other tools read."""
    dependencies.require("export", ("msgspec", "numpy", "pandas", _PACKAGES[form]), "export")
    view = host or named_as(file)
    _refuse([file, view] if view else [file], form, out, kinds)
    from balloontrace.cli.window import read

    read_it = partial(read, file, since, until, host)
    with output.working(f"exporting {file}"):
        if str(out) == "-":
            trace, said = _to_stdout(read_it, form, kinds)
        elif form is Format.PERFETTO:
            trace, said = _to_file(read_it, out, force)
        else:
            trace, said = _to_directory(read_it, form, out, kinds, force)
    for line in _reservations(trace, file):
        output.status(f"balloontrace: {line}")
    output.status(f"wrote {'to stdout' if str(out) == '-' else out}: {said}")


def _refuse(inputs: List[Path], form: Format, out: Path, kinds: List[str]) -> None:
    """Raise UserError for what cannot be meant. inputs: the recording, and the host's view."""
    if form is Format.PERFETTO and kinds:
        raise UserError("--kind is for tables: parquet and csv", "leave it out", EXIT_USAGE)
    if str(out) == "-" and form is Format.PARQUET:
        raise UserError("parquet is a directory of files", "name it with -o", EXIT_USAGE)
    if str(out) == "-" and form is Format.CSV and len(kinds) != 1:
        raise UserError(
            "stdout takes one table", "name it with --kind, or a directory with -o", EXIT_USAGE
        )
    if out.exists() and any(read.exists() and os.path.samefile(read, out) for read in inputs):
        raise UserError(
            f"{out} is a recording that is read itself", "name another with -o", EXIT_USAGE
        )


def _to_stdout(read: Callable[[], Trace], form: Format, kinds: List[str]) -> tuple[Trace, str]:
    with output.binary(text=form is Format.CSV) as stdout:
        trace = read()
        if form is Format.PERFETTO:
            from balloontrace.analysis.export import perfetto

            return trace, f"{perfetto.write(trace, stdout):,} packets"
        from balloontrace.analysis.export import csv

        return trace, f"{csv.write_one(trace, stdout, kinds[0]).rows:,} rows"


def _to_file(read: Callable[[], Trace], out: Path, force: bool) -> tuple[Trace, str]:
    from balloontrace.analysis.export import perfetto
    from balloontrace.destination import new_file

    with new_file(out, force) as place:
        trace = read()
        return trace, f"{perfetto.write(trace, place):,} packets; open it in ui.perfetto.dev"


def _to_directory(
    read: Callable[[], Trace], form: Format, out: Path, kinds: List[str], force: bool
) -> tuple[Trace, str]:
    from balloontrace.analysis.export import csv, parquet
    from balloontrace.destination import new_directory

    with new_directory(out, force) as place:
        trace = read()
        write = csv.write if form is Format.CSV else parquet.write
        tables = write(trace, place, kinds)
    return trace, f"{len(tables)} tables, {sum(table.rows for table in tables):,} rows"


def _reservations(trace: Trace, file: Path) -> List[str]:
    """What the reader must know: the export is as incomplete as the recording."""
    from balloontrace.analysis.export.facts import facts

    known = facts(trace)
    lines = []
    if known["incomplete_because"]:
        whys = "; ".join(known["incomplete_because"])
        lines.append(f"{file} is not complete ({whys}): exported what can be read")
    if known["not_recorded"]:
        lines.append(f"not recorded, so not in the export: {'; '.join(known['not_recorded'])}")
    return lines
