# SPDX-License-Identifier: Apache-2.0
"""What is said of boots at the end of a run."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from balloontrace.lab import boots
from balloontrace.lab.boots import Boot

OOPS = "[ 1.17] Oops: int3: 0000 [#1] PREEMPT SMP NOPTI"


def test_boots_are_counted_and_the_emulators_victims_named() -> None:
    said = boots.summary([Boot("6.1", "tcg", 9.0), Boot("6.12", "tcg", 1.2, OOPS)])
    assert said == [
        "guests booted: 2, killed by the emulator and booted again: 1",
        f"  6.12 after 1.2 s: {OOPS}",
    ]


def test_boots_of_several_processes_are_in_one_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "boots.jsonl"
    monkeypatch.setenv(boots.FILE_VARIABLE, str(path))
    child = os.fork()
    boots.note(Boot("6.1", "tcg", 9.0))
    if child == 0:
        os._exit(0)
    os.waitpid(child, 0)
    assert boots.read(path) == [Boot("6.1", "tcg", 9.0)] * 2


def test_a_run_ends_with_its_victims_and_says_nothing_without(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv(boots.FILE_VARIABLE, raising=False)  # this run's own count
    said: list[str] = []
    with boots.told(said.append):
        boots.note(Boot("6.1", "tcg", 9.0))
    assert said == []
    with pytest.raises(KeyboardInterrupt):
        _interrupted(said)
    assert said[0].startswith("guests booted: 1, killed by the emulator")


def _interrupted(said: list[str]) -> None:
    with boots.told(said.append):
        boots.note(Boot("6.1", "tcg", 1.2, OOPS))
        raise KeyboardInterrupt
