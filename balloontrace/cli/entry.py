# SPDX-License-Identifier: Apache-2.0
"""Where the command line begins.

What is done in guests is parsed by the standard library, as in the one file for guests: in a slow
guest importing Typer takes longer than loading the programs. Both parsers are made of the same
declarations, and take and refuse the same. Help, completion and all other verbs are Typer's.
"""

from __future__ import annotations

import os
import sys

_NAME = "balloontrace"
IN_GUESTS = ("record", "mark", "watch", "live", "doctor")
"""The verbs of the one file."""

_COMPLETING = "_BALLOONTRACE_COMPLETE"
"""Click's: set by a shell that asks for completions."""


def main() -> None:
    """Run the command line."""
    verb, *arguments = sys.argv[1:] or [""]
    if verb not in IN_GUESTS or "--help" in arguments or _COMPLETING in os.environ:
        from balloontrace.cli import app

        app.main()
        return
    from balloontrace.cli.bundled import run
    from balloontrace.cli.outcome import exit_status

    sys.exit(exit_status(lambda: run(verb, _NAME, arguments)))
