"""`balloontrace compare`: two recordings, or two kinds of recordings, side by side."""

from __future__ import annotations

from pathlib import Path
from typing import List, Optional

import typer

from balloontrace.analysis import dependencies
from balloontrace.cli import output
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
) -> None:
    """Compare recordings: the same measures side by side, and the ratio BEFORE / AFTER.

    Of several runs on a side, medians with confidence intervals.
    """
    dependencies.require("compare")
    from balloontrace.analysis.compare import compare
    from balloontrace.analysis.render.compare_text import compare_text
    from balloontrace.analysis.render.json import compare_json
    from balloontrace.analysis.render.page import wants_colour
    from balloontrace.analysis.report import build

    sides = _sides(before, after, before_runs, after_runs)
    comparison = compare(*([build(str(path)) for path in side] for side in sides))
    text = compare_json(comparison) if as_json else compare_text(comparison, wants_colour())
    output.result(text)


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
