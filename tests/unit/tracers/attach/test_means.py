# SPDX-License-Identifier: Apache-2.0
"""Programs are loaded by several threads, each once; whose refusal it is, is said."""

from __future__ import annotations

import itertools
from collections import Counter
from typing import Any, NoReturn

import pytest

from balloontrace.tracers.attach.means import Held, Loading, Refused, Wanted
from balloontrace.tracers.machine import bpf_calls

NUMBERS = range(40)
WANTED = {number: Wanted(f"function_{number}", b"", str(number)) for number in NUMBERS}


@pytest.fixture(params=[1, 4])
def loads(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often each program was loaded, on so many CPUs. The kernel refuses those above 29."""
    counted: Counter[str] = Counter()
    descriptors = itertools.count(1000)

    def load(_code: bytes, name: str, *_: Any) -> int:
        counted[name] += 1
        if int(name) >= 30:
            raise OSError(22, "Invalid argument")
        return next(descriptors)

    monkeypatch.setattr(bpf_calls, "load_program", load)
    monkeypatch.setattr("os.cpu_count", lambda: request.param)
    return counted


def test_each_is_loaded_once_and_held(loads: Counter[str]) -> None:
    held = Held([], [])
    wanted = {number: WANTED[number] for number in range(30)}
    with Loading(wanted, held) as loaded:
        descriptors = [loaded[number] for number in wanted]
    assert sorted(descriptors) == sorted(held.programs)
    assert len(set(descriptors)) == 30
    assert loads == {str(number): 1 for number in range(30)}


def test_a_refusal_is_of_its_function_and_nothing_is_under_way(loads: Counter[str]) -> None:
    held = Held([], [])
    with (
        pytest.raises(Refused) as caught,
        Loading({number: WANTED[number] for number in (33, *range(30))}, held) as loaded,
    ):
        print(loaded[33])
    assert caught.value.reasons == {"function_33": "Invalid argument"}
    there, begun = len(held.programs), sum(loads.values())
    assert begun == there + 1  # every one that was begun is held, and is closed with the others


def test_who_waits_for_a_load_that_fails_otherwise_is_told(
    monkeypatch: pytest.MonkeyPatch, loads: Counter[str]
) -> None:
    def fail(*_: Any) -> NoReturn:
        raise MemoryError("no more")

    monkeypatch.setattr(bpf_calls, "load_program", fail)
    with pytest.raises(MemoryError, match="no more"), Loading(WANTED, Held([], [])) as loaded:
        print(loaded[39])
    assert not loads
