# SPDX-License-Identifier: Apache-2.0
"""balloontrace doctor: what would be recorded here and how, and what is missing."""

from __future__ import annotations

from balloontrace.cli import output
from balloontrace.cli.verbs import Option, Verb
from balloontrace.errors import EXIT_UNSUPPORTED


def run(as_json: bool) -> int:
    """Say it; returns the exit status."""
    from balloontrace.cli import doctor_text
    from balloontrace.tracers.doctor.diagnose import diagnose

    found = diagnose()
    output.result(doctor_text.as_json(found) if as_json else doctor_text.as_text(found))
    return 0 if found.works else EXIT_UNSUPPORTED


VERB = Verb(
    "doctor",
    "Say what `record` would attach here and how, and what is missing.\n\n"
    "Loads, attaches and detaches everything once. Changes nothing. Exits with 3 if `record` will "
    "not work.",
    run,
    (Option("as_json", ("--json",), "One JSON object instead of text.", bool, False),),
)
