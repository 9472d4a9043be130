"""Which packages the analysis side needs beyond what `record` needs. Standard library only."""

from __future__ import annotations

import importlib.util

from balloontrace.errors import EXIT_UNSUPPORTED, UserError

NEEDED = ("numpy", "pandas", "rich")


def require(verb: str) -> None:
    """Raise UserError if a package that the command `verb` needs is not installed."""
    for package in NEEDED:
        if importlib.util.find_spec(package) is None:
            raise UserError(
                f"{verb} needs {package}, which is not installed here",
                "pip install 'balloontrace[analysis]', or copy the recording to a machine that "
                "has it",
                EXIT_UNSUPPORTED,
            )
