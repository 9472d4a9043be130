# SPDX-License-Identifier: Apache-2.0
"""Verbs for a Python that has no Typer: parsers of the standard library's argparse."""

from __future__ import annotations

import argparse
import textwrap
from collections.abc import Sequence
from typing import Any, NoReturn

from balloontrace.cli.verbs import VERSION_HELP, Option, Verb, Words
from balloontrace.errors import EXIT_USAGE, UserError

WIDTH = 79


def parser_of_all(prog: str, about: str, version: str, verbs: Sequence[Verb]) -> _Parser:
    """A parser of what comes before a verb; its help lists them."""
    parser = _Parser(
        prog=prog,
        usage=f"{prog} [OPTIONS] COMMAND [ARGS]...",
        description=about,
        epilog="\n".join(["commands:", *map(_line, verbs)]),
    )
    parser.add_argument("--version", action="version", version=version, help=VERSION_HELP)
    parser.add_argument("command", nargs="?", help=argparse.SUPPRESS)
    return parser


def run(verb: Verb, prog: str, arguments: Sequence[str]) -> int | None:
    """Do what the verb does; returns the exit status. Raises UserError."""
    parser = parser_of(verb, prog)
    words: list[str] = []
    if not verb.is_followed and "--" in arguments:
        place = list(arguments).index("--")  # what comes after it are words
        arguments, words = arguments[:place], list(arguments[place + 1 :])
    parse = parser.parse_args if verb.is_followed else parser.parse_intermixed_args
    given: dict[str, Any] = vars(parse(list(arguments)))
    if verb.words:
        given[verb.words.field] = _words(verb, (given[verb.words.field] or []) + words, parser)
    elif words:
        parser.error(f"unexpected argument {words[0]!r}")
    return verb.run(**given)


def parser_of(verb: Verb, prog: str) -> argparse.ArgumentParser:
    """A parser of what comes after the verb."""
    arguments = f" {verb.words.metavar}" if verb.words else ""
    parser = _Parser(
        prog=f"{prog} {verb.name}",
        usage=f"{prog} {verb.name} [OPTIONS]{arguments}",
        description="\n\n".join(textwrap.fill(part, WIDTH) for part in verb.help.split("\n\n")),
    )
    if verb.words:
        _add_words(parser, verb.words, verb.is_followed)
    for option in verb.options:
        _add_option(parser, option)
    return parser


def _line(verb: Verb) -> str:
    """Name and first paragraph, in the columns of argparse's own help."""
    indent = " " * _Formatter.COLUMN
    said = textwrap.fill(
        verb.help.partition("\n\n")[0], WIDTH, initial_indent=indent, subsequent_indent=indent
    )
    return f"  {verb.name}".ljust(_Formatter.COLUMN) + said.lstrip()


def _words(verb: Verb, words: list[str], parser: argparse.ArgumentParser) -> list[str]:
    """Those of `words` that are for the verb, as Click has them."""
    if verb.is_followed and words[:1] == ["--"]:
        words = words[1:]
    if verb.words and verb.words.required and not words:
        parser.error(f"missing argument {verb.words.metavar}")
    return words


def _add_words(parser: argparse.ArgumentParser, words: Words, followed: bool) -> None:
    parser.add_argument(
        words.field,
        nargs=argparse.REMAINDER if followed else "*",
        metavar=words.metavar,
        help=_literal(words.help),
    )


def _add_option(parser: argparse.ArgumentParser, option: Option) -> None:
    said = _literal(option.help)
    if option.shows_default:
        said += f" [default: {option.default}]"
    how: dict[str, Any] = {"dest": option.field, "default": option.default}
    if option.kind is bool:
        how["action"] = "store_true"
    else:
        how["type"] = option.kind
        how["metavar"] = option.metavar or option.kind.__name__.upper()
        if option.several:
            how["action"], how["default"] = "append", []
    shown = argparse.SUPPRESS if option.hidden else said
    parser.add_argument(*option.names, help=shown, **how)


def _literal(text: str) -> str:
    return text.replace("%", "%%")


class _Formatter(argparse.RawDescriptionHelpFormatter):
    """Columns that do not depend on the terminal."""

    COLUMN = 26

    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=self.COLUMN, width=WIDTH)


class _Parser(argparse.ArgumentParser):
    """As Click is about options; what is wrong is a UserError."""

    def __init__(self, **how: Any) -> None:
        super().__init__(formatter_class=_Formatter, allow_abbrev=False, add_help=False, **how)
        self.add_argument("--help", action="help", help="Show this message and exit.")

    def error(self, message: str) -> NoReturn:
        """Raises UserError."""
        raise UserError(message, f"see {self.prog} --help", EXIT_USAGE)
