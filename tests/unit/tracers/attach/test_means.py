# SPDX-License-Identifier: Apache-2.0
"""Programs are loaded by several threads, each once; whose refusal it is, is said."""

from __future__ import annotations

import threading
import time
from collections import Counter
from typing import Any, NoReturn

import pytest

from balloontrace.tracers.attach import kernel
from balloontrace.tracers.attach.means import Held, Loading, Refused, Wanted
from balloontrace.tracers.machine import bpf_calls, symbols

NUMBERS = range(40)
WANTED = {number: Wanted(f"function_{number}", b"", str(number)) for number in NUMBERS}


@pytest.fixture(params=[1, 4])
def loads(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often each program was loaded, on so many CPUs. The kernel refuses those above 29; the
    others' descriptors are their numbers."""
    counted: Counter[str] = Counter()

    def load(_code: bytes, name: str, *_: Any) -> int:
        counted[name] += 1
        if int(name) >= 30:
            raise OSError(22, "Invalid argument")
        return int(name)

    monkeypatch.setattr(bpf_calls, "load_program", load)
    monkeypatch.setattr("os.sched_getaffinity", lambda _: range(request.param))
    return counted


class Interrupted(list[int]):
    """Whoever appends to it is interrupted by all others."""

    def append(self, one: int) -> None:
        super().append(one)
        time.sleep(0.001)


def test_each_is_loaded_once_and_held(loads: Counter[str]) -> None:
    held = Held([], Interrupted())
    wanted = {number: WANTED[number] for number in range(30)}
    with Loading(wanted, held) as loaded:
        descriptors = [loaded[number] for number in wanted]
    assert descriptors == list(wanted) == sorted(held.programs)
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


def test_threads_that_are_refused_are_done_without(
    monkeypatch: pytest.MonkeyPatch, loads: Counter[str]
) -> None:
    def refuse(_: threading.Thread) -> NoReturn:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    with Loading({1: WANTED[1]}, Held([], [])) as loaded:
        assert loaded[1] == 1
    assert loads == {"1": 1}


def test_what_could_not_be_looked_for_is_not_absent(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> NoReturn:
        raise MemoryError("no more")

    monkeypatch.setattr(symbols, "find_functions", fail)
    here = kernel.Kernel()
    with pytest.raises(MemoryError, match="no more"):
        here.symbols()
    with pytest.raises(MemoryError, match="no more"):
        here.layout()
