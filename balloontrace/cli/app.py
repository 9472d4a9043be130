# SPDX-License-Identifier: Apache-2.0
"""The Typer root: every verb."""

from __future__ import annotations

import sys

from balloontrace.cli import plain_typer  # noqa: F401 - before anything else loads Typer

# isort: split
import typer

from balloontrace import __version__
from balloontrace.cli import output, typer_verbs
from balloontrace.cli.commands import (
    bundle,
    compare,
    doctor,
    export,
    fleet,
    host,
    lab,
    live,
    mark,
    record,
    report,
    watch,
)
from balloontrace.cli.outcome import exit_status
from balloontrace.cli.verbs import VERSION_HELP

app = typer.Typer(
    name="balloontrace",
    help="Trace the memory balloon of a Linux guest, and say what is wrong with it.",
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
)
typer_verbs.add(app, record.VERB)
typer_verbs.add(app, mark.VERB)
typer_verbs.add(app, watch.VERB)
typer_verbs.add(app, live.VERB)
app.command("report")(report.command)
app.command("compare")(compare.command)
app.command("export")(export.command)
typer_verbs.add(app, doctor.VERB)
app.command("bundle")(bundle.command)
app.add_typer(fleet.app, name="fleet")
app.add_typer(host.app, name="host")
app.add_typer(lab.app, name="lab")


def _print_version(wanted: bool) -> None:
    if wanted:
        output.result(f"balloontrace {__version__}")
        raise typer.Exit()


@app.callback()
def root(
    version: bool = typer.Option(
        False,
        "--version",
        help=VERSION_HELP,
        callback=_print_version,
        is_eager=True,
    ),
) -> None:
    """Trace the memory balloon of a Linux guest, and say what is wrong with it."""


def main() -> None:
    """Run the command line."""
    sys.exit(exit_status(app))
