# SPDX-License-Identifier: Apache-2.0
"""What both command lines take, as data: manual pages and completions are made from it.

Most commands are declared to Typer, and read from there; those that guests need, too, as Verbs.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from enum import Enum
from pathlib import Path
from typing import Any, NamedTuple, get_args, get_origin, get_type_hints

import typer
from typer.models import ArgumentInfo, OptionInfo

from balloontrace.cli import app, bundled
from balloontrace.cli.verbs import VERSION_HELP, Option, Verb

HELP = Option("help", ("--help",), "Show this message and exit.", bool)
"""Every command has it."""


_KINDS = {str: "TEXT", int: "INTEGER", Path: "PATH"}
"""What the help of Typer calls values."""


class Argument(NamedTuple):
    """What is no option. metavar: for people; is_file: the name of a file; several: any number."""

    metavar: str
    help: str
    is_file: bool
    several: bool


class Command(NamedTuple):
    """words: what is typed for it, such as ("lab", "run"); help: as of Verb; is_followed: what
    comes after its options is another command."""

    words: tuple[str, ...]
    help: str
    options: tuple[Option, ...]
    arguments: tuple[Argument, ...]
    is_followed: bool = False

    @property
    def name(self) -> str:
        """As it is typed."""
        return " ".join(self.words)

    @property
    def summary(self) -> str:
        """The first paragraph of its help."""
        return self.help.partition("\n\n")[0]


class Group(NamedTuple):
    """Words that come before those of commands."""

    words: tuple[str, ...]
    summary: str


class CommandLine(NamedTuple):
    """A program. options: those that come before a command."""

    program: str
    about: str
    options: tuple[Option, ...]
    commands: tuple[Command, ...]
    groups: tuple[Group, ...] = ()


def takes_file(option: Option) -> bool:
    """Whether its value is the name of a file."""
    return option.kind is Path or option.metavar == "FILE"


def choices(option: Option) -> tuple[str, ...]:
    """The values it takes, if they are few."""
    return tuple(each.value for each in option.kind) if issubclass(option.kind, Enum) else ()


def value_of(option: Option) -> str:
    """What stands for its value; empty if it takes none."""
    if option.kind is bool:
        return ""
    return option.metavar or "|".join(choices(option)) or _KINDS[option.kind]


def balloontrace() -> CommandLine:
    """The whole package's."""
    root = app.app
    completion = (
        Option("install", ("--install-completion",), "Install completion for this shell.", bool),
        Option("show", ("--show-completion",), "Print what that would install.", bool),
    )
    groups = [((name,), instance) for name, instance in _groups(root)]
    return CommandLine(
        "balloontrace",
        str(root.info.help),
        (_version(), *completion),
        tuple(_commands(root)),
        tuple(Group(words, str(instance.info.help)) for words, instance in groups),
    )


def balloontrace_record() -> CommandLine:
    """That of the one file for guests, and of the package with its content."""
    about = "Trace the memory balloon of a Linux guest."
    commands = tuple(_declared(bundled.verb_of(name)) for name in bundled.VERBS)
    return CommandLine("balloontrace-record", about, (_version(),), commands)


def _version() -> Option:
    return Option("version", ("--version",), VERSION_HELP, bool)


def _groups(root: typer.Typer) -> Iterator[tuple[str, typer.Typer]]:
    for group in root.registered_groups:
        if group.typer_instance is not None:
            yield str(group.name), group.typer_instance


def _commands(root: typer.Typer, before: tuple[str, ...] = ()) -> Iterator[Command]:
    declared = {name: bundled.verb_of(name) for name in bundled.VERBS}
    for info in root.registered_commands:
        name = str(info.name)
        if not before and name in declared:
            yield _declared(declared[name])
        elif info.callback is not None:
            yield _of_typer((*before, name), info.callback)
    for name, instance in _groups(root):
        yield from _commands(instance, (*before, name))


def _declared(verb: Verb) -> Command:
    shown = tuple(option for option in verb.options if not option.hidden)
    words = verb.words
    arguments = (Argument(words.metavar, words.help, verb.is_followed, True),) if words else ()
    return Command((verb.name,), verb.help, shown, arguments, verb.is_followed)


def _of_typer(words: tuple[str, ...], callback: Callable[..., Any]) -> Command:
    kinds = get_type_hints(callback)
    options, arguments = [], []
    for name, parameter in inspect.signature(callback).parameters.items():
        kind, several = _kind(kinds[name])
        declared = parameter.default
        if isinstance(declared, OptionInfo) and not declared.hidden:
            options.append(_option(name, declared, kind, several))
        elif isinstance(declared, ArgumentInfo):
            metavar = declared.metavar or name.upper()
            arguments.append(Argument(metavar, declared.help or "", kind is Path, several))
    paragraphs = (inspect.getdoc(callback) or "").split("\n\n")
    said = "\n\n".join(" ".join(paragraph.split()) for paragraph in paragraphs)
    return Command(words, said, tuple(options), tuple(arguments))


def _kind(annotation: Any) -> tuple[type, bool]:
    """(type of a value, whether there may be several) of List[X], Optional[X] and X."""
    inner = [each for each in get_args(annotation) if each is not type(None)]
    return (inner[0], get_origin(annotation) is list) if inner else (annotation, False)


def _option(field: str, declared: OptionInfo, kind: type, several: bool) -> Option:
    default = declared.default
    if isinstance(declared.show_default, str):
        default = declared.show_default
    shown = declared.show_default and default not in (None, ..., False) and not several
    return Option(
        field,
        tuple(declared.param_decls or (f"--{field.replace('_', '-')}",)),
        declared.help or "",
        kind,
        default.value if isinstance(default, Enum) else default,
        declared.metavar,
        bool(shown),
        several=several,
    )
