"""`balloontrace compare`: two recordings side by side."""

from __future__ import annotations

from pathlib import Path

import typer

from balloontrace.analysis import dependencies
from balloontrace.cli import output


def command(
    before: Path = typer.Argument(..., metavar="BEFORE", help="A recording (.btrace)."),
    after: Path = typer.Argument(..., metavar="AFTER", help="The recording to compare it with."),
    as_json: bool = typer.Option(False, "--json", help="One JSON object instead of text."),
) -> None:
    """Compare two recordings: the same measures side by side, and the ratio BEFORE / AFTER."""
    dependencies.require("compare")
    from balloontrace.analysis.compare import compare
    from balloontrace.analysis.render.compare_text import compare_text
    from balloontrace.analysis.render.json import compare_json
    from balloontrace.analysis.render.page import wants_colour
    from balloontrace.analysis.report import build

    comparison = compare(build(str(before)), build(str(after)))
    text = compare_json(comparison) if as_json else compare_text(comparison, wants_colour())
    output.result(text)
