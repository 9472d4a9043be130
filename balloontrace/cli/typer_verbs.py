# SPDX-License-Identifier: Apache-2.0
"""A verb as a Typer command."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, List, Optional

import typer

from balloontrace.cli.verbs import Option, Verb, Words


def add(app: typer.Typer, verb: Verb) -> None:
    """Give `app` the verb."""
    settings = {"allow_interspersed_args": not verb.is_followed}
    app.command(verb.name, help=verb.help, context_settings=settings)(_command(verb))


def _command(verb: Verb) -> Callable[..., None]:
    """A function with the signature from which Typer reads what a command takes."""

    def command(**given: Any) -> None:
        if status := verb.run(**given):
            raise typer.Exit(status)

    parameters = [_option(option) for option in verb.options]
    if verb.words:
        parameters.insert(0, _argument(verb.words))
    command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    command.__annotations__ = {each.name: each.annotation for each in parameters}
    return command


def _option(option: Option) -> inspect.Parameter:
    default = [] if option.several else option.default
    kind: Any = List[option.kind] if option.several else option.kind  # type: ignore[name-defined]
    declared = typer.Option(
        default,
        *option.names,
        metavar=option.metavar,
        help=option.help,
        hidden=option.hidden,
        show_default=option.shows_default,
    )
    return _parameter(option.field, declared, Optional[kind] if default is None else kind)


def _argument(words: Words) -> inspect.Parameter:
    declared = typer.Argument(
        ... if words.required else None, metavar=words.metavar, help=words.help
    )
    return _parameter(words.field, declared, List[str] if words.required else Optional[List[str]])


def _parameter(name: str, default: Any, annotation: Any) -> inspect.Parameter:
    kind = inspect.Parameter.KEYWORD_ONLY
    return inspect.Parameter(name, kind, default=default, annotation=annotation)
