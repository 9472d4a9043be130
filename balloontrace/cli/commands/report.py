# SPDX-License-Identifier: Apache-2.0
"""`balloontrace report`: the analyses of one recording."""

from __future__ import annotations

from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, List, Optional

import typer

from balloontrace.analysis import dependencies
from balloontrace.cli import output, pictures
from balloontrace.cli.allocator import give_back_large_arrays
from balloontrace.cli.options import COLOR, HOST, SINCE, UNTIL
from balloontrace.errors import EXIT_FAIL_ON, EXIT_FAILURE, EXIT_USAGE, UserError

if TYPE_CHECKING:
    from balloontrace.analysis.report import Report


class FailOn(StrEnum):
    """What can make the exit code EXIT_FAIL_ON."""

    FINDING = "finding"
    LOSS = "loss"
    DISAGREE = "disagree"


def command(
    files: List[Path] = typer.Argument(
        ..., metavar="FILE...", help="Recordings (.btrace); - is stdin."
    ),
    as_json: bool = typer.Option(False, "--json", help="One JSON object instead of text."),
    html: Optional[Path] = typer.Option(
        None, metavar="OUT", help="Write one page with tables and a timeline instead of text."
    ),
    svg: Optional[Path] = typer.Option(
        None, metavar="OUT", help="Write the timeline alone; a PNG if OUT ends with .png."
    ),
    force: bool = typer.Option(False, "-f", "--force", help="Overwrite an earlier OUT."),
    verbose: bool = typer.Option(
        False, "--verbose", "-v", help="All sections and rows, and what the recorder cost."
    ),
    sections: List[str] = typer.Option(
        [], "--section", metavar="NAME", help="Only this section; may be repeated."
    ),
    since: Optional[str] = SINCE,
    until: Optional[str] = UNTIL,
    host: Optional[Path] = HOST,
    fail_on: List[FailOn] = typer.Option(
        [],
        "--fail-on",
        help="Exit with 5 if something was found, events are missing, or the totals disagree with "
        "/proc/vmstat; may be repeated.",
    ),
    color: output.Color = COLOR,
) -> None:
    """Say what the balloon did in a recording, who did it, and whether the numbers are whole.

    Of several recordings, a table with a line for each, then what was found in them.
    """
    dependencies.require("report")
    give_back_large_arrays()
    drawing = pictures.check(html, svg, [*files, *([host] if host else [])], force)
    from balloontrace.analysis.json import report_json
    from balloontrace.analysis.report import report_of
    from balloontrace.cli.window import read

    if len(files) > 1:
        if drawing or sections or verbose or since or until or host:
            raise UserError(
                "--html, --svg, --section, --since, --until, --host and -v are for one recording",
                "name one",
                EXIT_USAGE,
            )
        _overview([str(file) for file in files], as_json, color, fail_on)
        return
    file = files[0]
    if as_json and not drawing:
        with output.working(f"reading {file}"):
            report = report_of(read(file, since, until, host))
        output.result(report_json(report))
        _fail([report], fail_on)
        return
    from balloontrace.analysis.text.report import first_screen, report_text
    from balloontrace.analysis.text.writer import WIDTH
    from balloontrace.analysis.timeline.picture import picture_of
    from balloontrace.analysis.timeline.terminal import timeline

    with output.working(f"reading {file}"):
        pictured = picture_of(read(file, since, until, host))
    if drawing:
        from balloontrace.analysis.html.report import report_html
        from balloontrace.analysis.timeline.matplotlib import figure
        from balloontrace.analysis.timeline.series import alone

        with output.working(f"drawing {file}"):
            pictures.write(html, force, lambda _: report_html(pictured).encode())
            pictures.write(svg, force, lambda kind: figure(alone(pictured), kind))
    if as_json:
        output.result(report_json(pictured.report))
    elif not drawing:
        colour, width = output.wants_colour(color), output.width() or WIDTH
        draw = partial(timeline, course=pictured.timeline, blocks=output.beyond_ascii())
        if sections:
            text = report_text(pictured.report, colour, True, None, sections, width)
        elif verbose:
            text = report_text(pictured.report, colour, True, draw, None, width)
        else:
            text = first_screen(pictured.report, colour, draw, width)
        output.paged(text)
    _fail([pictured.report], fail_on)


def _overview(paths: List[str], as_json: bool, color: output.Color, fail_on: List[FailOn]) -> None:
    """Print what several recordings say. One that cannot be read does not stop it, and is the exit
    code in the end."""
    from balloontrace.analysis.json import overview_json
    from balloontrace.analysis.report import build
    from balloontrace.analysis.text.overview import overview_text
    from balloontrace.analysis.text.writer import WIDTH

    reports: dict[str, Report | UserError] = {}
    for path in paths:
        try:
            with output.working(f"reading {path}"):
                reports[path] = build(path)
        except UserError as error:
            reports[path] = error
    if as_json:
        output.result(overview_json(reports))
    else:
        width = output.width() or WIDTH
        output.paged(overview_text(reports, output.wants_colour(color), width))
    if any(isinstance(report, UserError) for report in reports.values()):
        raise typer.Exit(EXIT_FAILURE)
    _fail([report for report in reports.values() if not isinstance(report, UserError)], fail_on)


def _fail(reports: List[Report], fail_on: List[FailOn]) -> None:
    """End with EXIT_FAIL_ON if one of the reports is one of these."""
    for report in reports:
        recording = report.recording.scalars
        reconciled = report.results["reconciliation"].scalars
        lacks = not recording["complete"] or bool(recording["lost_events"])
        met = {
            FailOn.FINDING: bool(report.results["findings"].tables["findings"]),
            FailOn.LOSS: lacks or reconciled["sums_agree"] is False,
            FailOn.DISAGREE: reconciled["agrees"] is False,
        }
        if any(met[what] for what in fail_on):
            raise typer.Exit(EXIT_FAIL_ON)
