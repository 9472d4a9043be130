"""`balloontrace compare`: two recordings side by side."""

from __future__ import annotations

from pathlib import Path
from typing import Optional

import typer

from balloontrace.analysis import dependencies
from balloontrace.cli import output, pictures


def command(
    before: Path = typer.Argument(..., metavar="BEFORE", help="A recording (.btrace)."),
    after: Path = typer.Argument(..., metavar="AFTER", help="The recording to compare it with."),
    as_json: bool = typer.Option(False, "--json", help="One JSON object instead of text."),
    html: Optional[Path] = typer.Option(
        None, metavar="OUT", help="Write one page with both timelines on one axis instead of text."
    ),
    svg: Optional[Path] = typer.Option(
        None, metavar="OUT", help="Write both timelines alone; a PNG if OUT ends with .png."
    ),
) -> None:
    """Compare two recordings: the same measures side by side, and the ratio BEFORE / AFTER."""
    dependencies.require("compare")
    drawing = pictures.check(html, svg)
    from balloontrace.analysis.compare import compare
    from balloontrace.analysis.picture import picture_pair
    from balloontrace.analysis.render.compare_text import compare_text
    from balloontrace.analysis.render.json import compare_json
    from balloontrace.analysis.render.page import wants_colour
    from balloontrace.analysis.report import build

    if drawing:
        from balloontrace.analysis.render.figure import figure
        from balloontrace.analysis.render.html import compare_html
        from balloontrace.analysis.render.series import side_by_side

        pair = picture_pair(str(before), str(after))
        comparison = compare(*(picture.report for picture in pair))
        pictures.write(html, lambda _: compare_html(comparison, *pair).encode())
        pictures.write(svg, lambda kind: figure(side_by_side(*pair), kind))
    else:
        comparison = compare(build(str(before)), build(str(after)))
    if as_json:
        output.result(compare_json(comparison))
    elif not drawing:
        output.result(compare_text(comparison, wants_colour()))
