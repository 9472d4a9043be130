"""`balloontrace report`: the analyses of one recording."""

from __future__ import annotations

from pathlib import Path

import typer

from balloontrace.analysis import dependencies
from balloontrace.cli import output


def command(
    file: Path = typer.Argument(..., metavar="FILE", help="A recording (.btrace)."),
    as_json: bool = typer.Option(False, "--json", help="One JSON object instead of text."),
    verbose: bool = typer.Option(
        False, "--verbose", "-v", help="All rows, all seams, and what the recorder cost."
    ),
) -> None:
    """Say what the balloon did in a recording, who did it, and whether the numbers are whole."""
    dependencies.require("report")
    from balloontrace.analysis.render.json import report_json
    from balloontrace.analysis.render.page import wants_colour
    from balloontrace.analysis.render.text import report_text
    from balloontrace.analysis.report import build

    report = build(str(file))
    output.result(report_json(report) if as_json else report_text(report, wants_colour(), verbose))
