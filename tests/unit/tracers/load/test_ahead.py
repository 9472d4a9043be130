# SPDX-License-Identifier: Apache-2.0
"""The loader that is begun before the command line is understood: told, or gone."""

from __future__ import annotations

import os
from typing import Any, NoReturn

import pytest

from balloontrace.errors import UserError
from balloontrace.tracers.attach.forced import Forced
from balloontrace.tracers.attach.handover import receive
from balloontrace.tracers.load import ahead, loader


@pytest.fixture(autouse=True)
def no_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    """A child says what it was told, instead of loading it."""

    def load(*told: Any) -> NoReturn:
        raise UserError(repr(told))

    monkeypatch.setattr(ahead, "identity", lambda: 0)
    monkeypatch.setattr(loader, "load", load)
    monkeypatch.setattr(ahead, "_begun", [])


@pytest.mark.parametrize("verb", ["record", "watch"], ids=["begun before", "forked when wanted"])
def test_it_is_told_all_that_was_asked(verb: str) -> None:
    ahead.begin(verb, ["-o", "X"])
    assert len(ahead._begun) == (verb == "record")
    pid, channel = ahead.start(4096, Forced({"fill": 2}, "kprobe"), keep=False, silent=True)
    with pytest.raises(UserError) as caught:
        receive(channel)
    tried = {"rungs": {"fill": 2}, "means": "kprobe", "compiled": False}
    assert caught.value.message == repr((None, 4096, tried, False, True))
    assert os.waitpid(pid, 0) == (pid, 0)
    channel.close()
    assert ahead._begun == []


def test_nobody_tells_it_and_it_is_gone_without_a_word(capfd: pytest.CaptureFixture[str]) -> None:
    ahead.begin("record", ["--no-such-option"])
    ((pid, channel, told),) = ahead._begun
    os.close(told)
    assert os.waitpid(pid, 0) == (pid, 0)
    assert channel.recv(1) == b""
    channel.close()
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("verb", "argument"), [("record", "--counters"), ("record", "--help"), ("doctor", "--json")]
)
def test_where_nothing_is_loaded_none_is_begun(verb: str, argument: str) -> None:
    ahead.begin(verb, [argument])
    assert ahead._begun == []


def test_one_that_has_failed_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> NoReturn:
        raise OSError("no memory for it")

    monkeypatch.setattr(ahead, "identity", fail)
    ahead.begin("record", [])
    ((pid, _, _),) = ahead._begun
    os.waitpid(pid, 0)  # nobody reads what it is to be told
    _, channel = ahead.start(4096, Forced())
    with pytest.raises(UserError, match="the loader failed: OSError: no memory for it"):
        receive(channel)
    channel.close()
