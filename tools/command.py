# SPDX-License-Identifier: Apache-2.0
"""What programs that make runs have in common: words on stderr, budgets, one line for an error."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import NoReturn

from balloontrace.errors import UserError
from balloontrace.lab import boots


def progress(text: str) -> None:
    """Say what takes long."""
    print(text, file=sys.stderr, flush=True)


def budget(what: str, holds: bool) -> bool:
    """Print one budget line."""
    print(f"  {'holds ' if holds else 'MISSED'}  {what}")
    return holds


def run(name: str, main: Callable[[], int]) -> NoReturn:
    """Exit with what main returns, or with what its UserError says in one line.

    Guests that the emulator killed are named at the end.
    """
    try:
        with boots.told(progress):
            status = main()
    except UserError as error:
        progress(f"{name}: {error}")
        status = error.exit_code
    sys.exit(status)
