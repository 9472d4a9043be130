# SPDX-License-Identifier: Apache-2.0
"""What a verb is called, takes and says of itself, declared once for both command lines.

`balloontrace` makes a Typer command of it (typer_verbs.py), the one file for guests, which have no
Typer, an argparse parser (argparse_verbs.py). This file knows neither of them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, Optional

VERSION_HELP = "Print the version and exit."
"""Of --version, which comes before any verb."""


class Option(NamedTuple):
    """An option.

    field: the keyword by which the verb's function takes it; names: as they are typed; kind: str,
    int, or bool for one without a value; shows_default: whether the help says it; several: it may
    be given more than once, and is a list.
    """

    field: str
    names: tuple[str, ...]
    help: str = ""
    kind: type = str
    default: Any = None
    metavar: str | None = None
    shows_default: bool = False
    hidden: bool = False
    several: bool = False


class Words(NamedTuple):
    """The arguments that are no options, as a list. metavar: for people."""

    field: str
    metavar: str
    help: str
    required: bool


class Verb(NamedTuple):
    """A verb.

    help: paragraphs, the first of which says it in a line; run: takes every field as a keyword, and
    returns the exit status or None for 0; words: None, it takes options only; is_followed: with the
    first word that is no option the rest belongs to a command, options and all.
    """

    name: str
    help: str
    run: Callable[..., Optional[int]]
    options: tuple[Option, ...]
    words: Words | None = None
    is_followed: bool = False
