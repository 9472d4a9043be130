# SPDX-License-Identifier: Apache-2.0
"""One declaration of options, two command lines: Typer's and argparse's say and take the same."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import typer
import typer.main

from balloontrace.cli import argparse_verbs, typer_verbs
from balloontrace.cli.bundled import VERBS, verb_of
from balloontrace.cli.commands import mark, record
from balloontrace.cli.entry import IN_GUESTS
from balloontrace.cli.verbs import Verb
from balloontrace.errors import EXIT_USAGE

Run = Callable[[Verb, Sequence[str]], Any]


def by_typer(verb: Verb, arguments: Sequence[str]) -> Any:
    app = typer.Typer(pretty_exceptions_enable=False)
    typer_verbs.add(app, verb)
    return typer.main.get_command(app).main([*arguments], standalone_mode=False)


def by_argparse(verb: Verb, arguments: Sequence[str]) -> Any:
    return argparse_verbs.run(verb, "balloontrace", arguments)


def words_of(text: str) -> str:
    """Without boxes and line ends."""
    return " ".join(re.sub(r"[^\x00-\x7f]", " ", text).split())


def options_in(text: str) -> set[str]:
    """The long names with which lines begin."""
    lines = (re.sub(r"[^\x00-\x7f]", " ", line).strip() for line in text.splitlines())
    found = (re.search(r"--[a-z][a-z-]*", line) for line in lines if line.startswith("-"))
    return {match[0] for match in found if match}


def typers_help(verb: Verb) -> str:
    command = [sys.executable, "-m", "balloontrace", verb.name, "--help"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def argparses_help(verb: Verb) -> str:
    return argparse_verbs.parser_of(verb, "balloontrace").format_help()


@pytest.mark.parametrize("help_of", [typers_help, argparses_help])
@pytest.mark.parametrize("verb", [verb_of(name) for name in VERBS], ids=VERBS)
def test_the_help_says_what_is_declared(verb: Verb, help_of: Callable[[Verb], str]) -> None:
    text = help_of(verb)
    shown = [option for option in verb.options if not option.hidden]
    assert options_in(text) == {option.names[-1] for option in shown} | {"--help"}
    said = words_of(text)
    for option in shown:
        assert option.help in said
        assert all(re.search(rf"(?<!\S){name}[ ,]", said) for name in option.names)
        assert (f"[default: {option.default}]" in said) == option.shows_default
    for paragraph in verb.help.split("\n\n"):
        assert paragraph in said
    if verb.words:
        assert verb.words.help in said
        assert verb.words.metavar in said


def taken(run: Run, verb: Verb, arguments: Sequence[str]) -> dict[str, Any]:
    """What the verb's function is given."""
    given: dict[str, Any] = {}
    run(verb._replace(run=given.update), arguments)
    return {field: given[field] or None for field in sorted(given)}


@pytest.mark.parametrize(
    ("verb", "arguments", "expected"),
    [
        (record.VERB, [], {"argv": None, "ring_kib": 1024, "rung": None, "path": None}),
        (record.VERB, ["-o", "-", "-d", "5s"], {"path": "-", "duration": "5s", "force": None}),
        (record.VERB, ["-fd5s", "--output=x"], {"force": True, "duration": "5s", "path": "x"}),
        (record.VERB, ["--ring-kib", "64"], {"ring_kib": 64}),
        (record.VERB, ["--rung", "fill=1", "--rung", "ack=2"], {"rung": ["fill=1", "ack=2"]}),
        (record.VERB, ["--", "ls", "-l"], {"argv": ["ls", "-l"]}),
        (record.VERB, ["ls", "-f"], {"argv": ["ls", "-f"], "force": None}),
        (record.VERB, ["-f", "ls", "--", "-d"], {"argv": ["ls", "--", "-d"], "force": True}),
        (record.VERB, ["-f", "--", "ls", "--", "x"], {"argv": ["ls", "--", "x"]}),
        (record.VERB, ["--", "--", "x"], {"argv": ["--", "x"]}),
        (mark.VERB, ["a", "--pid", "5", "b"], {"words": ["a", "b"], "pid": 5}),
        (mark.VERB, ["a", "--", "--pid", "5"], {"words": ["a", "--pid", "5"], "pid": None}),
        (mark.VERB, ["--", "-x"], {"words": ["-x"]}),
    ],
)
def test_both_take_the_same(verb: Verb, arguments: list[str], expected: dict[str, Any]) -> None:
    given = taken(by_typer, verb, arguments)
    assert given.items() >= expected.items()
    assert taken(by_argparse, verb, arguments) == given


@pytest.mark.parametrize("run", [by_typer, by_argparse])
@pytest.mark.parametrize(
    ("verb", "arguments"),
    [
        (record.VERB, ["--no-such-option"]),
        (record.VERB, ["--forc"]),
        (record.VERB, ["--ring-kib", "much"]),
        (record.VERB, ["--force=1"]),
        (record.VERB, ["-o"]),
        (mark.VERB, []),
        (mark.VERB, ["--pid", "5"]),
    ],
)
def test_both_refuse_the_same(run: Run, verb: Verb, arguments: list[str]) -> None:
    with pytest.raises(Exception, match=r".") as caught:
        taken(run, verb, arguments)
    assert getattr(caught.value, "exit_code", None) == EXIT_USAGE
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("run", [by_typer, by_argparse])
def test_the_status_is_what_the_verb_returns(run: Run) -> None:
    assert run(record.VERB._replace(run=lambda **_: 3), []) == 3
    assert not run(record.VERB._replace(run=lambda **_: None), [])


def test_what_begins_without_typer_is_what_the_one_file_has() -> None:
    assert VERBS == IN_GUESTS


@pytest.mark.parametrize(
    ("arguments", "status", "has_typer"),
    [
        (["record", "-d", "soon"], EXIT_USAGE, False),
        (["mark"], EXIT_USAGE, False),
        (["record", "--help"], 0, True),
        (["report", "--no-such-option"], EXIT_USAGE, True),
        ([], EXIT_USAGE, True),
    ],
)
def test_what_is_done_in_guests_does_without_typer(
    arguments: list[str], status: int, has_typer: bool
) -> None:
    command = [sys.executable, "-X", "importtime", "-m", "balloontrace", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == status
    assert any(line.endswith(" typer") for line in done.stderr.splitlines()) is has_typer
