# SPDX-License-Identifier: Apache-2.0
"""The command line of the one file for guests (balloontrace/bundle.py). Standard library only."""

from __future__ import annotations

import os
import sys
from typing import Optional

from balloontrace import __version__
from balloontrace.cli import argparse_verbs
from balloontrace.cli.commands import doctor, live, mark, record, watch
from balloontrace.cli.outcome import exit_status
from balloontrace.errors import EXIT_USAGE, UserError

VERBS = (record.VERB, mark.VERB, watch.VERB, live.VERB, doctor.VERB)

ABOUT = "Trace the memory balloon of a Linux guest: the one file that records."


def main() -> None:
    """Run the command line."""
    sys.exit(exit_status(lambda: _run(os.path.basename(sys.argv[0]), sys.argv[1:])))


def _run(prog: str, arguments: list[str]) -> Optional[int]:
    """Run what the arguments say; returns the exit status. Raises UserError."""
    name = arguments[0] if arguments else ""
    for verb in VERBS:
        if verb.name == name:
            return argparse_verbs.run(verb, prog, arguments[1:])
    if name and not name.startswith("-"):
        known = ", ".join(verb.name for verb in VERBS)
        raise UserError(f"no such command: {name!r}", f"this file has {known}", EXIT_USAGE)
    parser = argparse_verbs.parser_of_all(prog, ABOUT, f"balloontrace {__version__}", VERBS)
    parser.parse_args(arguments)
    parser.print_help()  # nothing was asked for
    return EXIT_USAGE
