# SPDX-License-Identifier: Apache-2.0
"""The only place that prints: data on stdout, everything said about it on stderr."""

from __future__ import annotations

import contextlib
import locale
import os
import shutil
import sys
import time
from collections.abc import Iterator
from enum import Enum
from typing import IO, TYPE_CHECKING, TextIO

from balloontrace.errors import EXIT_USAGE, UserError
from balloontrace.escape import visible

if TYPE_CHECKING:
    import threading


def result(text: str) -> None:
    """Print data on stdout, with a newline; what its encoding lacks is escaped.

    Raises UserError if stdout is closed or takes no more.
    """
    stdout = _stdout()
    with _failures():
        print(_shown(text), file=stdout, flush=True)


def paged(text: str) -> None:
    """Print data as `result` does, through a pager if it is longer than the terminal."""
    terminal = sys.stdout is not None and sys.stdout.isatty()
    if terminal and text.count("\n") >= shutil.get_terminal_size().lines:
        import pydoc  # not for `record`, which prints no pages

        os.environ.setdefault("LESS", "-R")  # colours stay colours
        pydoc.pager(_shown(text))
    else:
        result(text)


def status(text: str) -> None:
    """Print a banner, a warning or progress on stderr, with a newline, if that is there."""
    if sys.stderr is not None:
        try:
            print(text, file=sys.stderr, flush=True)
        except OSError:
            _drop_what_is_buffered(sys.stderr)


PATIENCE_S = 1.0
"""So long a terminal may stay silent."""


@contextlib.contextmanager
def working(what: str) -> Iterator[None]:
    """If the block takes longer than PATIENCE_S, say on a terminal at stderr what is being done and
    for how long, once a second; gone when it is done."""
    if sys.stderr is None or not sys.stderr.isatty():
        yield
        return
    import threading  # not for `record`

    done = threading.Event()
    thread = threading.Thread(target=_tell_until, args=(done, visible(what)), daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def _tell_until(done: threading.Event, what: str) -> None:
    began = time.monotonic()
    while not done.wait(PATIENCE_S):
        line = f"{what}, {time.monotonic() - began:.0f} s"
        print(f"\r{line[: shutil.get_terminal_size().columns - 1]}", end="", file=sys.stderr)
        sys.stderr.flush()
    if time.monotonic() - began > PATIENCE_S:
        print("\r\x1b[K", end="", file=sys.stderr, flush=True)


@contextlib.contextmanager
def binary(text: bool) -> Iterator[IO[bytes]]:
    """Stdout for data in bytes; text: whether a terminal can show it. Raises UserError if not, or
    if stdout is closed or takes no more."""
    stdout = _stdout()
    if not text and stdout.isatty():
        raise UserError("this is not for a terminal", "redirect stdout, or use -o OUT", EXIT_USAGE)
    with _failures():
        yield stdout.buffer
        stdout.buffer.flush()


def beyond_ascii() -> bool:
    """Whether stdout takes any character."""
    return sys.stdout is not None and _encoding() == "utf-8"


class Color(str, Enum):  # noqa: UP042 - Python 3.9, in guests, has no StrEnum
    """When to use colours."""

    AUTO = "auto"
    ALWAYS = "always"
    NEVER = "never"


LEAST_WIDTH, MOST_WIDTH = 60, 200


def width() -> int | None:
    """Columns of the terminal that stdout is; None if it is none."""
    if sys.stdout is None or not sys.stdout.isatty():
        return None
    return min(MOST_WIDTH, max(LEAST_WIDTH, shutil.get_terminal_size().columns))


def wants_colour(when: Color = Color.AUTO) -> bool:
    """Whether to use colours; `auto`: if stdout is a terminal that shows them and nobody said
    NO_COLOR."""
    if when is not Color.AUTO:
        return when is Color.ALWAYS
    capable = os.environ.get("TERM", "dumb") != "dumb"
    terminal = sys.stdout is not None and sys.stdout.isatty()
    return terminal and capable and not os.environ.get("NO_COLOR")


def _stdout() -> TextIO:
    if sys.stdout is None:
        raise UserError("cannot write to stdout: it is closed", "redirect it to a file", EXIT_USAGE)
    return sys.stdout


def _shown(text: str) -> str:
    encoding = _encoding()
    return text.encode(encoding, "backslashreplace").decode(encoding)


def _encoding() -> str:
    """What the terminal, or whoever reads stdout, takes: what was asked of Python, else the
    locale's. With LC_ALL=C Python writes UTF-8 all the same (PEP 540), which such a terminal does
    not show."""
    asked = "PYTHONIOENCODING" in os.environ or "PYTHONUTF8" in os.environ
    encoding = sys.stdout.encoding or "ascii"
    if not asked and locale.nl_langinfo(locale.CODESET).lower() in (
        "ansi_x3.4-1968",
        "us-ascii",
        "ascii",
    ):
        encoding = "ascii"
    return "utf-8" if encoding.lower().replace("-", "") == "utf8" else encoding


@contextlib.contextmanager
def _failures() -> Iterator[None]:
    """What stdout does not take, as UserError; that its reader has gone is no failure of ours."""
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        _drop_what_is_buffered(sys.stdout)
        raise UserError(f"cannot write to stdout: {error.strerror or error}") from None


def _drop_what_is_buffered(stream: TextIO) -> None:
    """Python tries once more at exit, and complains then."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
