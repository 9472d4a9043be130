"""The only place that prints: data on stdout, everything said about it on stderr."""

from __future__ import annotations

import sys


def result(text: str) -> None:
    """Print data on stdout, with a newline."""
    print(text, flush=True)


def status(text: str) -> None:
    """Print a banner, a warning or progress on stderr, with a newline."""
    print(text, file=sys.stderr, flush=True)
