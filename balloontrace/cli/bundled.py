# SPDX-License-Identifier: Apache-2.0
"""The command line of the one file for guests (balloontrace/bundle.py). Standard library only."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Optional

from balloontrace import __version__
from balloontrace.cli.outcome import exit_status
from balloontrace.errors import EXIT_USAGE, UserError
from balloontrace.tracers.load import ahead

if TYPE_CHECKING:
    from collections.abc import Sequence

    from balloontrace.cli.verbs import Verb

VERBS = ("record", "mark", "watch", "live", "doctor")

ABOUT = "Trace the memory balloon of a Linux guest: the one file that records."


def main() -> None:
    """Run the command line."""
    sys.exit(exit_status(lambda: _run(os.path.basename(sys.argv[0]), sys.argv[1:])))


def _run(prog: str, arguments: list[str]) -> Optional[int]:
    """Run what the arguments say; returns the exit status. Raises UserError."""
    name = arguments[0] if arguments else ""
    if name in VERBS:
        return run(name, prog, arguments[1:])
    if name and not name.startswith("-"):
        known = ", ".join(VERBS)
        raise UserError(f"no such command: {name!r}", f"this file has {known}", EXIT_USAGE)
    from balloontrace.cli import argparse_verbs

    verbs = [verb_of(each) for each in VERBS]
    parser = argparse_verbs.parser_of_all(prog, ABOUT, f"balloontrace {__version__}", verbs)
    parser.parse_args(arguments)
    parser.print_help()  # nothing was asked for
    return EXIT_USAGE


def run(name: str, prog: str, arguments: Sequence[str]) -> Optional[int]:
    """Do what one of VERBS does; returns the exit status. Raises UserError."""
    ahead.begin(name, arguments)
    from balloontrace.cli import argparse_verbs

    return argparse_verbs.run(verb_of(name), prog, arguments)


def verb_of(name: str) -> Verb:
    """One of VERBS. The others are not loaded: a recording waits for what its command line takes
    to be compiled."""
    if name == "record":
        from balloontrace.cli.commands.record import VERB
    elif name == "mark":
        from balloontrace.cli.commands.mark import VERB
    elif name == "watch":
        from balloontrace.cli.commands.watch import VERB
    elif name == "live":
        from balloontrace.cli.commands.live import VERB
    else:
        from balloontrace.cli.commands.doctor import VERB
    return VERB
