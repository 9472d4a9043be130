# SPDX-License-Identifier: Apache-2.0
"""balloontrace doctor: what would be recorded here and how, and what is missing."""

from __future__ import annotations

import typer

from balloontrace.cli import output
from balloontrace.errors import EXIT_UNSUPPORTED


def command(
    as_json: bool = typer.Option(False, "--json", help="One JSON object instead of text."),
) -> None:
    """Say what `record` would attach here and how, and what is missing.

    Compiles, attaches and detaches everything once. Changes nothing. Exits with 3 if `record` will
    not work.
    """
    from balloontrace.cli import doctor_text
    from balloontrace.tracers.doctor.diagnose import diagnose

    found = diagnose()
    output.result(doctor_text.as_json(found) if as_json else doctor_text.as_text(found))
    if not found.works:
        raise typer.Exit(EXIT_UNSUPPORTED)
