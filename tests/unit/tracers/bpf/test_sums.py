# SPDX-License-Identifier: Apache-2.0
"""What bpf/balloon.c sums up of the calls, with and without their events."""

from __future__ import annotations

from collections import Counter

import pytest

from balloontrace import sums
from balloontrace.events import UNKNOWN_PAGES
from tests.unit.tracers.bpf.driver import Driver
from tests.unit.tracers.bpf.programs import STOCK, Event, Programs


def row_name(event: Event) -> str:
    """The row that an event is of."""
    detail = {"leak": event.cause, "ack": event.queue}.get(event.kind, "")
    return f"{event.kind} {detail}".rstrip()


def slot(duration_ns: int) -> int:
    """The slot of a duration, found by looking at each."""
    limits = [sums.longest_ns(number) for number in range(sums.SLOTS)]
    return next(i for i, limit in enumerate(limits) if limit is None or duration_ns <= limit)


def use_everything(driver: Driver) -> None:
    """Calls of each cause and queue, of durations far apart."""
    programs = driver.programs
    driver.fill(200)
    driver.run_worker()
    driver.leak(100)
    driver.leave("worker")
    for call, begin in (("scan", lambda: driver.begin_scan(64)), ("oom", driver.begin_oom)):
        begin()
        driver.pass_ns(123_456_789)
        driver.leak(7)
        driver.leave(call, 7)
    for call in ("remove", "freeze"):
        driver.enter(call)
        driver.pass_ns(1 << 37)
        driver.leak(11)
        driver.leave(call)
    driver.leak(3)
    driver.enter("migrate", programs.memory(0), programs.memory(0, 0), 0, 0)
    driver.ack("inflate", 1)
    driver.leave("migrate")
    programs.enter("notice")


def test_each_row_is_the_sum_of_its_events() -> None:
    programs = Programs()
    use_everything(Driver(programs))
    told = programs.events()
    assert {"leak unknown", "leak freeze", "ack deflate", "notice"} <= set(map(row_name, told))
    for name, row in programs.sums().items():
        events = [event for event in told if row_name(event) == name]
        timed = [event.duration_ns for event in events if event.kind != "notice"]
        wanted = Counter(map(slot, timed))
        assert row.calls == len(events), name
        assert row.ns == sum(timed), name
        assert row.slots == [wanted[number] for number in range(sums.SLOTS)], name
        if name not in ("target", "notice"):
            assert row.done == sum(e.done for e in events if e.done != UNKNOWN_PAGES), name
            assert row.asked == sum(e.asked for e in events if e.asked != UNKNOWN_PAGES), name


def test_without_events_the_sums_are_the_same() -> None:
    loud = Programs()
    use_everything(Driver(loud))
    wanted = sums.as_json(loud.sums())
    assert wanted
    silent = Programs({**STOCK, "silent": 1})
    use_everything(Driver(silent))
    assert silent.events() == []
    assert sums.as_json(silent.sums()) == wanted
    assert not any(counts["written"] or counts["lost"] for counts in silent.counters().values())


@pytest.mark.parametrize(
    "duration_ns",
    [0, 1, 1023, 1024, 1025, 2048, 2049, 1 << 33, (1 << 33) + 1, 1 << 36, (1 << 36) + 1, 1 << 62],
)
def test_a_duration_is_counted_in_the_least_slot_that_holds_it(duration_ns: int) -> None:
    programs = Programs()
    programs.set("now", 5)
    programs.enter("hint", 0)
    programs.set("now", 5 + duration_ns)
    programs.leave("hint")
    row = programs.sums()["hint"]
    assert row.slots.index(1) == slot(duration_ns)
    assert (sum(row.slots), row.ns) == (1, duration_ns)


def test_what_the_ring_has_no_room_for_is_in_the_sums() -> None:
    programs = Programs()
    programs.set("ring_full", 1)
    Driver(programs).fill(200)
    assert programs.events() == []
    assert (programs.sums()["fill"].calls, programs.sums()["fill"].done) == (1, 200)


def test_a_difference_is_what_was_added_since() -> None:
    programs = Programs()
    driver = Driver(programs)
    driver.fill(200)
    before = programs.sums()["fill"]
    driver.fill(50)
    added = programs.sums()["fill"] - before
    assert (added.calls, added.done, sum(added.slots)) == (1, 50, 1)
