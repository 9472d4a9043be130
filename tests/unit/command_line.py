# SPDX-License-Identifier: Apache-2.0
"""The command line within a test: it prints where the test captures, and raises what it raises."""

from __future__ import annotations

from pathlib import Path

import typer.main

from balloontrace.cli.app import app


def balloontrace(*arguments: str | Path) -> None:
    """Run a verb. Raises UserError."""
    typer.main.get_command(app).main([*map(str, arguments)], standalone_mode=False)
