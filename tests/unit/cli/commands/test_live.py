# SPDX-License-Identifier: Apache-2.0
"""The command line of `live`: what does not go together is said before anything is begun."""

from __future__ import annotations

from pathlib import Path
from typing import NoReturn

import pytest

from balloontrace.cli.commands import live
from balloontrace.errors import EXIT_USAGE, UserError
from tests.unit.command_line import balloontrace


def no_recorder() -> NoReturn:
    pytest.fail("a recorder was begun")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--plain", "--json"], "do not go together"),
        (["-d", "soon"], "is not a duration"),
        (["one.btrace", "two.btrace"], "looks at one guest"),
    ],
)
def test_what_makes_no_sense_is_said(
    arguments: list[str], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live, "_recorder", no_recorder)
    with pytest.raises(UserError, match=said) as refused:
        balloontrace("live", *arguments)
    assert refused.value.exit_code == EXIT_USAGE


def test_what_is_there_is_not_saved_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "_recorder", no_recorder)
    there = tmp_path / "there.btrace"
    there.write_bytes(b"mine")
    with pytest.raises(UserError, match="exists"):
        balloontrace("live", "--save", there)
    assert there.read_bytes() == b"mine"


def test_a_recorder_is_one_of_this_very_program(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    command = [*live._recorder(), "--ring-kib", "3"]
    monkeypatch.setattr(live, "_recorder", lambda: command)
    status = live.run(source=None, plain=False, json=True, save=None, duration="30s", host=None)
    assert status == EXIT_USAGE
    assert "--ring-kib must be a power of two" in capfd.readouterr().err
