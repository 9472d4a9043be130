# SPDX-License-Identifier: Apache-2.0
"""Completion scripts for bash, zsh and fish: they know the options, and start no Python."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Iterator, Sequence

from balloontrace.cli.verbs import Option
from tools.command_lines import HELP, Command, CommandLine, choices, takes_file, value_of

_WRITTEN = "# Written by `make docs`."


def bash(line: CommandLine) -> str:
    """The script for bash 4 and newer; bash-completion is not needed."""
    function = _identifier(line.program)
    names = [name for name, *_ in _levels(line)]
    offered = "\n".join(
        f"        {shlex.quote(name)}) words={shlex.quote(_offered(options, below))} ;;"
        for name, options, below in _levels(line)
    )
    with_files = [c.name for c in line.commands if any(a.is_file for a in c.arguments)]
    return f"""\
{_WRITTEN}

{function}() {{
    local current=${{COMP_WORDS[COMP_CWORD]}} previous=${{COMP_WORDS[COMP_CWORD - 1]}}
    local command="" at words
    COMPREPLY=()
    for ((at = 1; at < COMP_CWORD; at++)); do
        case "$command${{command:+ }}${{COMP_WORDS[at]}}" in
        {_patterns(filter(None, names))}) command+=${{command:+ }}${{COMP_WORDS[at]}} ;;
        *) break ;;
        esac
    done
    for ((; at < COMP_CWORD; at++)); do
        [[ ${{COMP_WORDS[at]}} == -- ]] && return
    done
    [[ $previous == = ]] && previous=${{COMP_WORDS[COMP_CWORD - 2]}}
    [[ $current == = ]] && current=
    case "$command $previous" in
{_bash_values(line)}
    *)
        case "$command" in
{offered}
        esac
        if [[ $current != -* ]]; then
            case "$command" in
            {_patterns(with_files)}) return ;;
            esac
        fi
        ;;
    esac
    mapfile -t COMPREPLY < <(compgen -W "$words" -- "$current")
    [[ ${{COMPREPLY[*]}} ]] || compopt +o default
}}
complete -o default -F {function} {line.program}
"""


def _bash_values(line: CommandLine) -> str:
    """What follows an option that takes a value: its choices, a file's name, anything."""
    files: list[str] = []
    anything: list[str] = []
    lines = []
    for command in line.commands:
        for option in filter(value_of, command.options):
            named = [f"{command.name} {name}" for name in option.names]
            if choices(option):
                words = shlex.quote(" ".join(choices(option)))
                lines.append(f"    {_patterns(named)}) words={words} ;;")
            else:
                (files if takes_file(option) else anything).extend(named)
    lines += [f"    {_patterns(files)}) return ;;"] if files else []
    lines += [f"    {_patterns(anything)}) words= ;;"] if anything else []
    return "\n".join(lines)


def zsh(line: CommandLine) -> str:
    """The script for zsh."""
    functions = [_zsh_level(line, ())]
    functions += [_zsh_level(line, group.words) for group in line.groups]
    name = _identifier(line.program)
    return "\n".join([f"#compdef {line.program}", _WRITTEN, "", *functions, f'{name} "$@"']) + "\n"


def _zsh_level(line: CommandLine, words: tuple[str, ...]) -> str:
    """The function for a group of commands, or for all."""
    commands = [c for c in line.commands if c.words[:-1] == words]
    below = [group for group in line.groups if group.words[:-1] == words]
    below = [group for group in below if group.words != words]
    described = [(c.words[-1], c.summary) for c in commands]
    described += [(group.words[-1], group.summary) for group in below]
    options = (*(() if words else line.options), HELP)
    name = _identifier(line.program, words)
    cases = [f"    {c.words[-1]}) _arguments {_zsh_arguments(c)} ;;" for c in commands]
    cases += [f"    {g.words[-1]}) {_identifier(line.program, g.words)} ;;" for g in below]
    listed = " ".join(_quoted(f"{word}:{_zsh_said(said)}") for word, said in described)
    return "\n".join([
        f"{name}() {{",
        "  local curcontext=$curcontext state line",
        "  local -a commands",
        f"  _arguments -C {' '.join(map(_zsh_option, options))} '1: :->command' '*:: :->rest'",
        "  case $state in",
        "  command)",
        f"    commands=({listed})",
        "    _describe command commands ;;",
        "  rest)",
        "    case $line[1] in",
        *cases,
        "    esac ;;",
        "  esac",
        "}",
    ])  # fmt: skip


def _zsh_arguments(command: Command) -> str:
    specs = [_zsh_option(option) for option in (*command.options, HELP)]
    for argument in command.arguments:
        action = "_files" if argument.is_file else ""
        if command.is_followed:
            specs.append("'*::command:_normal'")
        else:
            many = "*" if argument.several else ""
            specs.append(_quoted(f"{many}:{_bare(argument.metavar)}:{action}"))
    return " ".join(["-S", *specs])


def _zsh_option(option: Option) -> str:
    said = _zsh_said(option.help)
    value = _bare(value_of(option))
    several = "*" if option.several else ""
    if value:
        few = f"({' '.join(choices(option))})" if choices(option) else ""
        action = few or ("_files" if takes_file(option) else "")
        said, value = f"[{said}]:{value}:{action}", "+"
    else:
        said = f"[{said}]"
    names = [f"{n}{('=' if n.startswith('--') else '+') if value else ''}" for n in option.names]
    if len(names) == 1:
        return _quoted(f"{several}{names[0]}{said}")
    excluded = "" if several else _quoted(f"({' '.join(option.names)})")
    return f"{excluded}{{{','.join(several + name for name in names)}}}{_quoted(said)}"


def _zsh_said(text: str) -> str:
    return re.sub(r"([\[\]:])", r"\\\1", _sentence(text))


def fish(line: CommandLine) -> str:
    """The script for fish."""
    start = f"complete -c {line.program}"
    lines = [f"{start} -f"]
    for words, said in [(c.words, c.summary) for c in line.commands] + [*line.groups]:
        rest = f"-a {words[-1]} -d {_fish(_sentence(said))}"
        lines.append(f"{start} -n {_fish(_fish_before(line, words[:-1]))} {rest}")
    for option in line.options:
        lines.append(f"{start} -n {_fish(_fish_before(line, ()))} {_fish_option(option)}")
    lines.append(f"{start} {_fish_option(HELP)}")
    for command in line.commands:
        within = _fish("; and ".join(f"__fish_seen_subcommand_from {w}" for w in command.words))
        lines += [f"{start} -n {within} {_fish_option(option)}" for option in command.options]
        if any(argument.is_file for argument in command.arguments):
            lines.append(f"{start} -n {within} -F")
    return "\n".join([_WRITTEN, *lines]) + "\n"


def _fish_before(line: CommandLine, words: tuple[str, ...]) -> str:
    """The condition that `words` have been typed, and none of the commands that they lead to."""
    if not words:
        return "__fish_use_subcommand"
    below = " ".join(c.words[-1] for c in line.commands if c.words[:-1] == words)
    seen = "; and ".join(f"__fish_seen_subcommand_from {word}" for word in words)
    return f"{seen}; and not __fish_seen_subcommand_from {below}"


def _fish_option(option: Option) -> str:
    names = [f"-l {n[2:]}" if n.startswith("--") else f"-s {n[1:]}" for n in option.names]
    value = ["-r" if takes_file(option) else "-x"] if value_of(option) else []
    value += ["-F"] if takes_file(option) else []
    value += ["-a", _fish(" ".join(choices(option)))] if choices(option) else []
    return " ".join([*names, *value, "-d", _fish(_sentence(option.help))])


def _levels(line: CommandLine) -> Iterator[tuple[str, Sequence[Option], list[str]]]:
    """(words, options, words that can follow) of the program, each group and each command."""
    for words in ((), *(group.words for group in line.groups)):
        every = [c.words for c in line.commands] + [group.words for group in line.groups]
        below = [each[-1] for each in every if each[:-1] == words and each != words]
        yield " ".join(words), (*(() if words else line.options), HELP), below
    for command in line.commands:
        yield command.name, (*command.options, HELP), []


def _offered(options: Iterable[Option], below: Iterable[str]) -> str:
    return " ".join([*below, *(name for option in options for name in option.names)])


def _patterns(words: Iterable[str]) -> str:
    return " | ".join(map(shlex.quote, words))


def _identifier(program: str, words: tuple[str, ...] = ()) -> str:
    return "_" + "_".join([program.replace("-", "_"), *words])


def _sentence(text: str) -> str:
    """As much of a help as fits beside a word."""
    return re.split(r"\. |; | \(", text)[0].rstrip(".").replace("`", "")


def _bare(metavar: str) -> str:
    return "".join(c for c in metavar if c.isalnum() or c in "|")


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "'\\''") + "'"


def _fish(text: str) -> str:
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"
