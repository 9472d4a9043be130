# SPDX-License-Identifier: Apache-2.0
"""Manual pages of the command lines, in roff's man macros (man(7))."""

from __future__ import annotations

import re

from balloontrace import __version__, errors
from balloontrace.cli.verbs import Option
from tools.command_lines import HELP, Argument, Command, CommandLine, value_of

_STATUS = {
    0: "It did what it was asked to.",
    errors.EXIT_FAILURE: "Something went wrong.",
    errors.EXIT_USAGE: "The command line was wrong.",
    errors.EXIT_UNSUPPORTED: "This machine cannot do it: no balloon, not root, a package missing.",
    errors.EXIT_EVENTS_LOST: "Events were lost, and --strict was given.",
    errors.EXIT_FAIL_ON: "What --fail-on names was found.",
}


def page(line: CommandLine, others: tuple[str, ...]) -> str:
    """The page of a program. others: programs whose pages are in section 1, too."""
    parts = [
        f'.TH {line.program.upper()} 1 "" "balloontrace {__version__}" "User Commands"',
        ".SH NAME",
        f"{_text(line.program)} \\- {_text(_as_name(line.about))}",
        ".SH SYNOPSIS",
        f".B {_text(line.program)}",
        ".I COMMAND",
        "[OPTIONS] [ARGUMENTS]",
        ".SH OPTIONS",
        *(part for option in (*line.options, HELP) for part in _option(option)),
        "Every command has this one, too.",
        ".SH COMMANDS",
        *(part for command in line.commands for part in _command(command)),
        ".SH EXIT STATUS",
        *(part for status in _statuses(line) for part in (".TP", str(status), _said(status))),
        ".SH SEE ALSO",
        *(f".BR {_text(other)} (1)" for other in others),
    ]
    return "\n".join(['.\\" Written by `make docs`.', *parts]) + "\n"


def _as_name(about: str) -> str:
    """A sentence as whatis(1) has it."""
    return about[0].lower() + about[1:].rstrip(".")


def _statuses(line: CommandLine) -> list[int]:
    names = {name for c in line.commands for option in c.options for name in option.names}
    needs = {errors.EXIT_EVENTS_LOST: "--strict", errors.EXIT_FAIL_ON: "--fail-on"}
    return [status for status in _STATUS if needs.get(status, "--strict") in names]


def _said(status: int) -> str:
    return _lines(_STATUS[status])


def _command(command: Command) -> list[str]:
    synopsis = " ".join([command.name, "[OPTIONS]", *(each.metavar for each in command.arguments)])
    paragraphs = command.help.split("\n\n")
    said = "\n.PP\n".join(_lines(paragraph) for paragraph in paragraphs)
    arguments = [part for each in command.arguments for part in _argument(each)]
    options = [part for option in command.options for part in _option(option)]
    return [f".SS {_text(synopsis)}", said, *arguments, *options]


def _argument(argument: Argument) -> list[str]:
    return [".TP", f".I {_text(argument.metavar)}", _lines(argument.help)] if argument.help else []


def _option(option: Option) -> list[str]:
    value = f" \\fI{_text(value_of(option))}\\fR" if value_of(option) else ""
    names = ", ".join(f"\\fB{_text(name)}\\fR" for name in option.names)
    said = option.help + (f" [default: {option.default}]" if option.shows_default else "")
    return [".TP", names + value, _lines(said)]


def _lines(text: str) -> str:
    """A paragraph: what is in backquotes is bold; no line begins as a request does."""
    shown = re.sub(r"`([^`]*)`", r"\\fB\1\\fR", _text(text))
    return f"\\&{shown}" if shown.startswith((".", "'")) else shown


def _text(text: str) -> str:
    return text.replace("\\", "\\e").replace("-", "\\-")
