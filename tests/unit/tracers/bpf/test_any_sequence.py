# SPDX-License-Identifier: Apache-2.0
"""Whatever tasks call, in whatever order, and whichever returns are never seen: every call is
accounted for, every page is told of, and every leak has its cause."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from balloontrace.events import CAUSES, KINDS, UNKNOWN_PAGES
from tests.unit.tracers.bpf.driver import Driver
from tests.unit.tracers.bpf.programs import HINTING, STOCK, Programs


class Call(NamedTuple):
    """One call of a task: what it makes within, its pages, and whether its return is seen."""

    name: str
    inner: tuple[Call, ...] = ()
    pages: int = 0
    returns: bool = True


PAGES = st.integers(1, 256)
SEEN = st.sampled_from([True, True, True, False])


def _calls(name: str, *inner: st.SearchStrategy[Call]) -> st.SearchStrategy[Call]:
    within = st.lists(st.one_of(inner), max_size=3).map(tuple) if inner else st.just(())
    return st.builds(Call, st.just(name), within, PAGES, SEEN)


DEFLATE = _calls("deflate")
LEAK = st.builds(
    lambda pages, ack, leak: Call("leak", (Call("deflate", (), pages, ack),), pages, leak),
    PAGES, SEEN, SEEN,
)  # fmt: skip
SCAN = _calls("scan", LEAK)
MIGRATE = _calls("migrate", _calls("inflate"), DEFLATE)
OUT_OF_MEMORY = _calls("out_of_memory", _calls("oom", LEAK), _calls("oom_kill", _calls("victim")))
RECLAIM = _calls("reclaim", _calls("count"), SCAN)
ALLOCATE = (RECLAIM, _calls("compact", MIGRATE), OUT_OF_MEMORY)
WORKER = _calls("worker", _calls("config"), _calls("inflate"), LEAK, _calls("sleep"), *ALLOCATE)
TOP = st.one_of(
    WORKER,
    SCAN,
    _calls("count"),
    OUT_OF_MEMORY,
    MIGRATE,
    _calls("remove", LEAK),
    _calls("freeze", LEAK),
    _calls("bind", SCAN),
    _calls("restore", SCAN),
    _calls("report"),
    _calls("hint"),
    _calls("exit"),
)
TASKS = st.lists(st.lists(TOP, max_size=5), min_size=1, max_size=3)

Step = Callable[[], None]


class Model:
    """What truly happens, beside what the programs see."""

    def __init__(self, layout: dict[str, int]) -> None:
        self.programs = Programs(layout)
        self.driver = Driver(self.programs)
        self.leaked = self.filled = 0
        self.causes: dict[int, str] = {}
        """What a leak was asked for, unlike that of all others -> its cause."""

    def steps(self, call: Call, outer: tuple[str, ...] = ()) -> Iterator[Step]:
        """Entry, what is within, return."""
        if call.name == "exit":
            yield lambda: self.programs.tracepoint("task_exit")
            return
        yield lambda: self._enter(call, outer)
        for inner in call.inner:
            yield from self.steps(inner, (*outer, call.name))
        if call.returns and call.name != "victim":
            yield lambda: self.driver.leave(_probed(call.name), _result(call))

    def _enter(self, call: Call, outer: tuple[str, ...]) -> None:
        driver, memory = self.driver, self.programs.memory
        if call.name in ("inflate", "deflate"):
            self._move(call, outer)
            driver.begin_ack(call.name, call.pages)
        elif call.name == "leak":
            asked = 1000 + len(self.causes)
            callers = [cause for cause, within in CAUSES if within in outer]
            self.causes[asked] = callers[0] if callers else "unknown"
            driver.begin_leak(asked)
        elif call.name == "worker":
            driver.run_worker()
        elif call.name == "scan":
            driver.begin_scan(call.pages)
        elif call.name == "config":
            driver.enter("config", 0, 0, memory(call.pages), 4)
        elif call.name == "hint":
            driver.enter("hint", driver.hint_work)
        elif call.name == "oom":
            driver.begin_oom()
        else:
            driver.enter(call.name, memory(0), memory(0, 0), 0, 0)

    def _move(self, call: Call, outer: tuple[str, ...]) -> None:
        if "migrate" in outer:
            return
        if call.name == "deflate":
            self.leaked += call.pages
        else:
            self.filled += call.pages

    def told(self, kind: str) -> int:
        """Pages of `kind` that events tell of, and those that are known to be lost or open."""
        programs = self.programs
        opened = sum(_done(call.event) for call in programs.open_calls() if call.kind == kind)
        written = sum(event.done for event in programs.events(kind))
        return written + programs.counters()[kind]["lost_pages"] + opened


def _probed(name: str) -> str:
    return "ack" if name in ("inflate", "deflate") else name


def _result(call: Call) -> int:
    return call.pages if call.name in ("leak", "scan", "reclaim") else 0


def _done(event: bytes) -> int:
    return int.from_bytes(event[28:32], "little")


def _interleaved(
    data: st.DataObject, model: Model, tasks: list[list[Call]]
) -> Iterator[tuple[int, Step]]:
    waiting = {
        tid: (step for call in calls for step in model.steps(call))
        for tid, calls in enumerate(tasks, 1)
    }
    while waiting:
        tid = data.draw(st.sampled_from(sorted(waiting)))
        step = next(waiting[tid], None)
        if step is None:
            del waiting[tid]
        else:
            yield tid, step


def assert_sums_are_of_events_and_losses(programs: Programs) -> None:
    """The sums of each kind tell of as many calls and pages as its events and losses do."""
    for kind, counts in programs.counters().items():
        told = programs.events(kind)
        missed = sum("missed" in event.flags for event in told)
        rows = [row for name, row in programs.sums().items() if name.split()[0] == kind]
        calls = sum(row.calls for row in rows)
        least = len(told) - missed + counts["lost"]
        assert least + missed <= calls <= least + counts["missed"]
        if kind in PAGED:
            pages = sum(event.done for event in told if event.done != UNKNOWN_PAGES)
            assert sum(row.done for row in rows) == pages + counts["lost_pages"]


PAGED = [kind.name for kind in KINDS if kind.moves_pages]
LAYOUTS = [STOCK, {**STOCK, **HINTING}, {**STOCK, "page_pages": 16, "kills_marked": 0}]


@pytest.mark.parametrize("layout", LAYOUTS, ids=["stock", "hinting", "64k"])
@given(tasks=TASKS, data=st.data())
@settings(max_examples=60, deadline=None, derandomize=True)
def test_every_call_page_and_cause_is_accounted_for(
    layout: dict[str, int], tasks: list[list[Call]], data: st.DataObject
) -> None:
    model = Model(layout)
    for tid, step in _interleaved(data, model, tasks):
        model.programs.task(tid)
        model.programs.set("ring_full", data.draw(st.integers(0, 3)) == 0)
        step()
        assert model.driver.accounted()
    assert model.told("leak") == model.leaked
    assert model.told("fill") == model.filled
    assert_sums_are_of_events_and_losses(model.programs)
    for leak in model.programs.events("leak"):
        assert leak.cause == model.causes[leak.asked]


@given(tasks=TASKS, data=st.data())
@settings(max_examples=60, deadline=None, derandomize=True)
def test_nothing_loses_its_cause_whenever_a_recording_begins_and_ends(
    tasks: list[list[Call]], data: st.DataObject
) -> None:
    model = Model(STOCK)
    model.programs.phase = "attaching"
    for tid, step in _interleaved(data, model, tasks):
        model.programs.task(tid)
        if data.draw(st.integers(0, 5)) == 0:
            phases = {"attaching": "tracing", "tracing": "ending", "ending": "ending"}
            model.programs.phase = phases[model.programs.phase]
        step()
        assert model.driver.accounted()
    for leak in model.programs.events("leak"):
        if "partial" not in leak.flags:
            assert leak.cause == model.causes[leak.asked]
