# SPDX-License-Identifier: Apache-2.0
"""The Typer root: every verb, and the one place where a UserError becomes a line and a status."""

from __future__ import annotations

import os
import sys

import typer

from balloontrace import __version__
from balloontrace.cli import output
from balloontrace.cli.commands import compare, doctor, export, lab, mark, record, report
from balloontrace.errors import EXIT_FAILURE, UserError

app = typer.Typer(
    name="balloontrace",
    help="Trace the memory balloon of a Linux guest, and say what is wrong with it.",
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
)
app.command("record", context_settings={"allow_interspersed_args": False})(record.command)
app.command("mark")(mark.command)
app.command("report")(report.command)
app.command("compare")(compare.command)
app.command("export")(export.command)
app.command("doctor")(doctor.command)
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
        help="Print the version and exit.",
        callback=_print_version,
        is_eager=True,
    ),
) -> None:
    """Trace the memory balloon of a Linux guest, and say what is wrong with it."""


def main() -> None:
    """Run the command line. A user's error is one line on stderr; a closed pipe is the end."""
    try:
        app()
    except UserError as error:
        output.status(f"balloontrace: {error}")
        sys.exit(error.exit_code)
    except BrokenPipeError:
        # Whoever read our output has seen enough. Python would complain once more at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(EXIT_FAILURE)
