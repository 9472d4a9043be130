# SPDX-License-Identifier: Apache-2.0
"""The only place that prints: data on stdout, everything said about it on stderr."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from typing import IO

from balloontrace.errors import EXIT_USAGE, UserError


def result(text: str) -> None:
    """Print data on stdout, with a newline."""
    print(text, flush=True)


def status(text: str) -> None:
    """Print a banner, a warning or progress on stderr, with a newline."""
    print(text, file=sys.stderr, flush=True)


@contextlib.contextmanager
def binary(text: bool) -> Iterator[IO[bytes]]:
    """Stdout for data in bytes; text: whether a terminal can show it. Raises UserError if not."""
    if not text and sys.stdout.isatty():
        raise UserError("this is not for a terminal", "redirect stdout, or use -o OUT", EXIT_USAGE)
    yield sys.stdout.buffer
    sys.stdout.buffer.flush()
