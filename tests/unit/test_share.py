# SPDX-License-Identifier: Apache-2.0
"""Manual pages and completions: made of what is declared, and the shells understand them."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tools import command_lines
from tools.share import SHARE, files

PROGRAMS = ("balloontrace", "balloontrace-record")


def test_what_is_kept_is_what_is_declared() -> None:
    kept = {
        str(path.relative_to(SHARE)): path.read_text()
        for path in SHARE.glob("**/*")
        if path.is_file()
    }
    assert kept == files(), "run `make docs`"


LINES = {
    (line.program, command.words): command
    for line in (command_lines.balloontrace(), command_lines.balloontrace_record())
    for command in line.commands
}


@pytest.mark.parametrize(
    "words", [words for program, words in LINES if program == PROGRAMS[0]], ids=" ".join
)
def test_what_is_read_from_typer_is_in_its_help(words: tuple[str, ...]) -> None:
    command = LINES["balloontrace", words]
    asked = [sys.executable, "-m", "balloontrace", *words, "--help"]
    said = subprocess.run(asked, capture_output=True, text=True, check=True).stdout
    for option in command.options:
        assert all(name in said for name in option.names)
    assert said.count(" --") >= len(command.options)


@pytest.mark.parametrize("program", PROGRAMS)
def test_a_page_names_every_option(program: str) -> None:
    page = (SHARE / f"man/man1/{program}.1").read_text().replace("\\-", "-")
    for (whose, words), command in LINES.items():
        if whose == program:
            _, _, section = page.partition(f"\n.SS {' '.join(words)} ")
            section = section.partition("\n.SS ")[0]
            for option in command.options:
                assert all(f"\\fB{name}\\fR" in section for name in option.names), words


def completed(typed: str) -> list[str]:
    """What bash offers at the end of a line."""
    words = typed.split(" ")
    program = words[0]
    script = SHARE / "bash-completion/completions" / program
    code = (
        'compopt() { echo "no files"; }\n'
        'source "$1"; shift; COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1))\n'
        f"_{program.replace('-', '_')}\n"
        'printf "%s\\n" "${COMPREPLY[@]}"\n'
    )
    command = ["bash", "-uc", code, "bash", str(script), *words]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return said.split("\n")


FILES = [""]
NOTHING = ["no files", ""]


@pytest.mark.parametrize(
    ("typed", "offered"),
    [
        ("balloontrace re", ["record", "report"]),
        ("balloontrace-record r", ["record"]),
        ("balloontrace-record report --j", NOTHING),
        ("balloontrace --v", ["--version"]),
        ("balloontrace lab ", ["list", "build", "box", "run", "shell", "--help"]),
        ("balloontrace lab run --o", ["--out"]),
        ("balloontrace lab --k", NOTHING),
        ("balloontrace record --ri", ["--ring", "--ring-kib"]),
        ("balloontrace record --rung", NOTHING),  # hidden
        ("balloontrace record -o x --s", ["--sync", "--strict"]),
        ("balloontrace record -o ", FILES),
        ("balloontrace record -d ", NOTHING),
        ("balloontrace record -- ls --s", FILES),
        ("balloontrace report ", FILES),
        ("balloontrace report x.btrace --color ", ["auto", "always", "never"]),
        ("balloontrace report --color = al", ["always"]),
        ("balloontrace report --color =", ["auto", "always", "never"]),
        ("balloontrace doctor ", ["--json", "--help"]),
    ],
)
def test_bash_offers_what_fits(typed: str, offered: list[str]) -> None:
    assert [each for each in completed(typed) if each] == [each for each in offered if each]
    assert (completed(typed)[0] == "no files") == (offered == NOTHING)


def shell(name: str) -> str:
    """Where it is; `tools/setup packages` installs it."""
    path = shutil.which(name)
    if path is None:
        pytest.skip(f"there is no {name} here")
    return path


@pytest.mark.parametrize(
    ("typed", "offered"),
    [
        ("balloontrace re", ["record", "report"]),
        ("balloontrace-record r", ["record"]),
        ("balloontrace lab r", ["run"]),
        ("balloontrace report --color ", ["always", "auto", "never"]),
        ("balloontrace lab run --o", ["--out"]),
        ("balloontrace doctor --j", ["--json"]),
        ("balloontrace doctor --ring", []),
    ],
)
def test_fish_offers_what_fits(typed: str, offered: list[str]) -> None:
    script = SHARE / "fish/vendor_completions.d" / f"{typed.split()[0]}.fish"
    code = f"source {script}; complete -C '{typed}'"
    command = [shell("fish"), "--no-config", "-c", code]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert sorted(line.partition("\t")[0] for line in said.splitlines()) == offered


@pytest.mark.parametrize("program", PROGRAMS)
def test_zsh_takes_the_script(program: str) -> None:
    script = SHARE / "zsh/site-functions" / f"_{program}"
    subprocess.run([shell("zsh"), "-n", script], check=True)


def test_the_wheel_brings_what_belongs_to_its_program() -> None:
    pyproject = (Path(__file__).parents[2] / "pyproject.toml").read_text()
    for name in files():
        if "balloontrace-record" not in name:
            assert f'"share/{name}"' in pyproject, name
