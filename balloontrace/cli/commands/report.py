# SPDX-License-Identifier: Apache-2.0
"""`balloontrace report`: the analyses of one recording."""

from __future__ import annotations

from pathlib import Path
from typing import Optional

import typer

from balloontrace.analysis import dependencies
from balloontrace.cli import output, pictures


def command(
    file: Path = typer.Argument(..., metavar="FILE", help="A recording (.btrace)."),
    as_json: bool = typer.Option(False, "--json", help="One JSON object instead of text."),
    html: Optional[Path] = typer.Option(
        None, metavar="OUT", help="Write one page with tables and a timeline instead of text."
    ),
    svg: Optional[Path] = typer.Option(
        None, metavar="OUT", help="Write the timeline alone; a PNG if OUT ends with .png."
    ),
    force: bool = typer.Option(False, "-f", "--force", help="Overwrite an earlier OUT."),
    verbose: bool = typer.Option(
        False, "--verbose", "-v", help="All rows, all seams, and what the recorder cost."
    ),
) -> None:
    """Say what the balloon did in a recording, who did it, and whether the numbers are whole."""
    dependencies.require("report")
    drawing = pictures.check(html, svg, [file], force)
    from balloontrace.analysis.render.json import report_json
    from balloontrace.analysis.report import build

    if as_json and not drawing:
        output.result(report_json(build(str(file))))
        return
    from balloontrace.analysis.picture import picture
    from balloontrace.analysis.render.text import report_text

    pictured = picture(str(file))
    if drawing:
        from balloontrace.analysis.render.figure import figure
        from balloontrace.analysis.render.html import report_html
        from balloontrace.analysis.render.series import alone

        pictures.write(html, force, lambda _: report_html(pictured).encode())
        pictures.write(svg, force, lambda kind: figure(alone(pictured), kind))
    if as_json:
        output.result(report_json(pictured.report))
    elif not drawing:
        course, colour = pictured.timeline, output.wants_colour()
        blocks = output.beyond_ascii()
        output.result(report_text(pictured.report, colour, verbose, course, blocks))
