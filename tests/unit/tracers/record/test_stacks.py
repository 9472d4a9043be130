# SPDX-License-Identifier: Apache-2.0
"""What /proc tells of tasks, and where it does not tell it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from balloontrace.tracers.attach.state import OpenCall
from balloontrace.tracers.machine import namespaces
from balloontrace.tracers.record import stacks
from balloontrace.tracers.record.accounting import believed

NOBODY = 1 << 22
"""No task has that id."""


def test_a_task_that_is_gone_is_in_no_call(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(stacks, "_shows_every_task", lambda: True)
    assert stacks.of_tasks([NOBODY, os.getpid()]).keys() == {os.getpid()}


@pytest.mark.parametrize("hidden", ["by a namespace", "by hidepid"])
def test_where_tasks_are_hidden_none_is_taken_for_gone(
    monkeypatch: pytest.MonkeyPatch, hidden: str
) -> None:
    monkeypatch.setattr(namespaces, "is_initial", lambda: hidden == "by hidepid")
    if hidden == "by hidepid":
        monkeypatch.setattr(stacks, "_KTHREADD", NOBODY)
    seen = stacks.of_tasks([NOBODY])
    assert seen == {NOBODY: ""}
    call = OpenCall("ack", "ack", NOBODY, 1, b"")
    assert believed([call], seen, {"ack": ["tell_host"]}) == [call]
