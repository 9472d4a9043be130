# SPDX-License-Identifier: Apache-2.0
"""`balloontrace compare`: two recordings, or two kinds of recordings, side by side."""

from __future__ import annotations

from pathlib import Path
from typing import List, Optional

import typer

from balloontrace.analysis import dependencies
from balloontrace.cli import output, pictures
from balloontrace.cli.allocator import give_back_large_arrays
from balloontrace.cli.options import COLOR
from balloontrace.errors import EXIT_USAGE, UserError


def command(
    before: Optional[Path] = typer.Argument(None, metavar="BEFORE", help="A recording (.btrace)."),
    after: Optional[Path] = typer.Argument(
        None, metavar="AFTER", help="The recording to compare it with."
    ),
    before_runs: List[Path] = typer.Option(
        [], "--before", metavar="FILE", help="One of several runs in place of BEFORE; repeat it."
    ),
    after_runs: List[Path] = typer.Option(
        [], "--after", metavar="FILE", help="One of several runs in place of AFTER; repeat it."
    ),
    as_json: bool = typer.Option(False, "--json", help="One JSON object instead of text."),
    html: Optional[Path] = typer.Option(
        None, metavar="OUT", help="Write one page with both timelines on one axis instead of text."
    ),
    svg: Optional[Path] = typer.Option(
        None, metavar="OUT", help="Write both timelines alone; a PNG if OUT ends with .png."
    ),
    force: bool = typer.Option(False, "-f", "--force", help="Overwrite an earlier OUT."),
    color: output.Color = COLOR,
) -> None:
    """Compare recordings: the same measures side by side, and the ratio BEFORE / AFTER.

    Of several runs on a side, medians with confidence intervals.
    """
    dependencies.require("compare")
    give_back_large_arrays()
    sides = _sides(before, after, before_runs, after_runs)
    drawing = pictures.check(html, svg, [*sides[0], *sides[1]], force)
    from balloontrace.analysis.compare import compare
    from balloontrace.analysis.json import compare_json
    from balloontrace.analysis.report import Report, build
    from balloontrace.analysis.text.compare import compare_text

    reports: list[list[Report]] = [[], []]
    if drawing:
        from balloontrace.analysis.html.report import compare_html
        from balloontrace.analysis.timeline.matplotlib import figure
        from balloontrace.analysis.timeline.picture import picture_pair
        from balloontrace.analysis.timeline.series import side_by_side

        # Of several runs the first of each side is drawn.
        with output.working("reading the first of each side"):
            pair = picture_pair(*(str(side[0]) for side in sides))
        reports = [[picture.report] for picture in pair]
    for side, built in zip(sides, reports, strict=True):
        for path in side[len(built) :]:
            with output.working(f"reading {path}"):
                built.append(build(str(path)))
    comparison = compare(*reports)
    if drawing:
        with output.working("drawing"):
            pictures.write(html, force, lambda _: compare_html(comparison, *pair).encode())
            pictures.write(svg, force, lambda kind: figure(side_by_side(*pair), kind))
    if as_json:
        output.result(compare_json(comparison))
    elif not drawing:
        output.paged(compare_text(comparison, output.wants_colour(color)))


def _sides(
    before: Optional[Path], after: Optional[Path], before_runs: List[Path], after_runs: List[Path]
) -> tuple[List[Path], List[Path]]:
    """The recordings of both sides. Raises UserError."""
    if before and after and not before_runs and not after_runs:
        return [before], [after]
    if before is None and after is None and before_runs and after_runs:
        for runs in (before_runs, after_runs):
            if twice := [path for path in set(runs) if runs.count(path) > 1]:
                raise UserError(
                    f"{twice[0]} is given twice on one side", "each run counts once", EXIT_USAGE
                )
        return before_runs, after_runs
    raise UserError(
        "compare takes BEFORE and AFTER, or runs of both sides",
        "for several runs repeat the option: --before A --before B --after C --after D",
        EXIT_USAGE,
    )
