"""Which packages the analysis side needs beyond what `record` needs. Standard library only."""

from __future__ import annotations

import importlib.util

from balloontrace.errors import EXIT_UNSUPPORTED, UserError

NEEDED = ("numpy", "pandas", "rich")

DRAWING = ("matplotlib", "bokeh", "jinja2")
"""Beyond these, what pictures need."""


def require(verb: str) -> None:
    """Raise UserError if a package that the command `verb` needs is not installed."""
    _require(verb, NEEDED, "analysis")


def require_drawing(what: str) -> None:
    """The same for an option that draws: `--html`, `--svg`."""
    _require(what, DRAWING, "html")


def _require(what: str, packages: tuple[str, ...], extra: str) -> None:
    for package in packages:
        if importlib.util.find_spec(package) is None:
            raise UserError(
                f"{what} needs {package}, which is not installed here",
                f"pip install 'balloontrace[{extra}]', or copy the recording to a machine that "
                "has it",
                EXIT_UNSUPPORTED,
            )
