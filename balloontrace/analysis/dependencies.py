# SPDX-License-Identifier: Apache-2.0
"""Which packages the analysis side needs beyond what `record` needs. Standard library only."""

from __future__ import annotations

import importlib.util

from balloontrace.errors import EXIT_UNSUPPORTED, UserError

NEEDED = ("msgspec", "numpy", "pandas", "rich")

DRAWING = ("bokeh", "jinja2", "matplotlib")
"""What pictures need beyond these; the extra `html` brings them."""


def require(verb: str, packages: tuple[str, ...] = NEEDED, extra: str = "analysis") -> None:
    """Raise UserError if one of `packages`, which the command `verb` needs, is not installed.

    extra: that of balloontrace which brings them.
    """
    for package in packages:
        if importlib.util.find_spec(package) is None:
            raise UserError(
                f"{verb} needs {package}, which is not installed here",
                f"pip install 'balloontrace[{extra}]', or copy the recording to a machine that "
                "has it",
                EXIT_UNSUPPORTED,
            )
