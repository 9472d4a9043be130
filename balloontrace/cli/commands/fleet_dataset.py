# SPDX-License-Identifier: Apache-2.0
"""`balloontrace fleet overview`, `query` and `report`: what a dataset says."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, Dict, List, Optional

import typer

from balloontrace.analysis import dependencies
from balloontrace.cli import output
from balloontrace.cli.commands import report as one_report
from balloontrace.cli.options import COLOR
from balloontrace.destination import new_file, refuse_file
from balloontrace.errors import EXIT_USAGE, UserError
from balloontrace.escape import plain, visible

if TYPE_CHECKING:
    from balloontrace.fleet.changes import Changes
    from balloontrace.fleet.dataset import Dataset
    from balloontrace.fleet.overview import Overview
    from balloontrace.fleet.sources import Source

_DATASET = typer.Argument(..., metavar="DIR", help="A dataset, as fleet PATH... -o DIR makes it.")


def add(app: typer.Typer) -> None:
    """Give `fleet` these commands."""
    for command in (overview, query, report):
        app.command(command.__name__)(command)


def overview(
    directory: Path = _DATASET,
    against: Optional[Path] = typer.Option(
        None, "--against", metavar="DIR", help="An earlier dataset: say what is worse, and better."
    ),
    labels: Optional[Path] = typer.Option(
        None,
        "--labels",
        metavar="FILE",
        help="A CSV file: host_name or boot_id, then labels such as cluster, customer, zone.",
    ),
    as_json: bool = typer.Option(False, "--json", help="One JSON object instead of text."),
    html: Optional[Path] = typer.Option(
        None, metavar="OUT", help="Write one page, which needs no network, instead of text."
    ),
    force: bool = typer.Option(False, "-f", "--force", help="Overwrite an earlier OUT."),
    color: output.Color = COLOR,
) -> None:
    """Say what the recordings of a dataset have in common: findings by kernel, distributions, the
    worst, what could not be read, and how far all this is to be trusted."""
    _require("fleet overview")
    if html:
        _check(html, labels, force)
    from balloontrace.analysis.text.writer import WIDTH
    from balloontrace.fleet.changes import changes_of
    from balloontrace.fleet.dataset import Dataset
    from balloontrace.fleet.labels import read_labels
    from balloontrace.fleet.overview import fleet_of, overview_of
    from balloontrace.fleet.text import overview_text

    given = read_labels(labels) if labels else None
    with output.working(f"reading {directory}"):
        fleet = fleet_of(Dataset.there(directory), given)
        said = overview_of(fleet)
        changes = changes_of(fleet_of(Dataset.there(against)), fleet) if against else None
    if html:
        from balloontrace.fleet.page import overview_html

        content = overview_html(said, changes, str(directory)).encode()
        with new_file(html, force) as place:
            place.write(content)
        output.status(f"wrote {html}, {len(content) / 2**20:,.1f} MiB")
    if as_json:
        output.result(json.dumps(_json(said, changes), indent=2, allow_nan=False))
    elif not html:
        width = output.width() or WIDTH
        colour = output.wants_colour(color)
        output.paged(overview_text(said, changes, str(directory), colour, width))


def _check(html: Path, labels: Optional[Path], force: bool) -> None:
    """Raise UserError, before any work is done, if the page must not be written there."""
    if html.suffix.lower() not in (".html", ".htm"):
        raise UserError(
            f"--html {html} is to be written, and is not called like that",
            "give it a name that ends with .html",
            EXIT_USAGE,
        )
    if labels and html.exists() and labels.exists() and html.samefile(labels):
        raise UserError(f"--html {html} is read as --labels", "name another", EXIT_USAGE)
    refuse_file(html, force)
    dependencies.require("--html", ("jinja2",), "html")


def _json(said: Overview, changes: Optional[Changes]) -> Dict[str, Any]:
    """Both as JSON; an amplification beyond all bounds, for which it has no number, is null."""
    content = dataclasses.asdict(said)
    if changes:
        content["changes"] = dataclasses.asdict(changes)
    return {key: _finite(value) for key, value in content.items()}


def _finite(value: Any) -> Any:
    """Not `plain` alone: texts of a dataset are harmless already, and stay as they are there."""
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    return value if isinstance(value, str) else plain(value)


def query(
    directory: Path = _DATASET,
    sql: str = typer.Argument(
        ..., metavar="SQL", help="One SELECT of guest, episode, finding, failure, input."
    ),
    as_json: bool = typer.Option(False, "--json", help="A JSON list with an object for each row."),
    as_csv: bool = typer.Option(False, "--csv", help="CSV with a line of names."),
) -> None:
    """Ask a dataset in SQL (DuckDB's). It reads, and nothing but the dataset."""
    _require("fleet query", "duckdb")
    if as_json and as_csv:
        raise UserError("--json and --csv are two outputs", "name one", EXIT_USAGE)
    from balloontrace.fleet import query as asked
    from balloontrace.fleet.dataset import Dataset

    with output.working(f"reading {directory}"):
        answer = asked.query(Dataset.there(directory), sql)
    if as_json:
        output.result(asked.as_json(answer))
    elif as_csv:
        output.result(asked.as_csv(answer))
    else:
        output.paged(asked.as_text(answer))


_NAMED = 5
"""Recordings that are named where a name fits several."""


def report(
    directory: Path = _DATASET,
    name: str = typer.Argument(
        ...,
        metavar="NAME",
        help="A recording's source, or the end of it; or the guest's host name or boot id.",
    ),
    as_json: bool = typer.Option(False, "--json", help="One JSON object instead of text."),
    html: Optional[Path] = typer.Option(
        None, metavar="OUT", help="Write one page with tables and a timeline instead of text."
    ),
    force: bool = typer.Option(False, "-f", "--force", help="Overwrite an earlier OUT."),
    verbose: bool = typer.Option(False, "--verbose", "-v", help="All sections and rows."),
    color: output.Color = COLOR,
) -> None:
    """Report one recording of a dataset, read again from where it is."""
    _require("fleet report")
    from balloontrace.fleet import sources
    from balloontrace.fleet.dataset import Dataset

    source = _source(Dataset.there(directory), name)
    try:
        with sources.local(source) as path:
            one_report.command(
                [Path(path)],
                as_json=as_json,
                html=html,
                svg=None,
                force=force,
                verbose=verbose,
                sections=[],
                since=None,
                until=None,
                host=None,
                fail_on=[],
                color=color,
            )
    except sources.Unreachable as error:
        raise UserError(
            f"{source.name}: {error.message}", "read it anew: balloontrace fleet PATH... -o DIR"
        ) from None


def _source(dataset: Dataset, name: str) -> Source:
    """The one recording of that name. Raises UserError if there is none, or there are several."""
    from balloontrace.fleet.sources import Source

    keys = ["source", "size_bytes", "version", "day", "host_name", "boot_id"]
    rows = dataset.table("guest").select(keys).to_pylist()
    fit: List[Dict[str, Any]] = [row for row in rows if row["source"] == name]
    fit = fit or [row for row in rows if row["source"].endswith(f"/{name}")]
    fit = fit or [row for row in rows if name in (row["host_name"], row["boot_id"])]
    shown = visible(name)
    if not fit:
        raise UserError(
            f"no recording of the dataset is called {shown}",
            "its names: fleet query DIR 'SELECT source, host_name, boot_id FROM guest'",
            EXIT_USAGE,
        )
    if len(fit) > 1:
        some = ", ".join(sorted(row["source"] for row in fit)[:_NAMED])
        raise UserError(
            f"{len(fit):,} recordings are called {shown}", f"name one: {some}", EXIT_USAGE
        )
    row = fit[0]
    return Source(row["source"], row["size_bytes"], row["version"], row["day"])


def _require(verb: str, *more: str) -> None:
    dependencies.require(verb, (*dependencies.NEEDED, "pyarrow", *more), "fleet")
