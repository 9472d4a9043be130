# SPDX-License-Identifier: Apache-2.0
"""What bpf/balloon.c makes of returns that are never seen, of tasks that go, and of acks alone."""

from __future__ import annotations

import pytest

from balloontrace.events import UNKNOWN_PAGES
from tests.unit.tracers.bpf.driver import Driver, pages_of
from tests.unit.tracers.bpf.programs import HINTING, STOCK, Event, Programs

MISSED = frozenset({"missed"})
PARTIAL = frozenset({"partial"})


@pytest.fixture
def programs() -> Programs:
    return Programs()


@pytest.fixture
def driver(programs: Programs) -> Driver:
    return Driver(programs)


def _counts(programs: Programs, kind: str) -> dict[str, int]:
    return programs.counters()[kind]


def test_a_fill_is_written_with_the_pages_of_its_acks(driver: Driver, programs: Programs) -> None:
    driver.run_worker()
    driver.read_target(1000)
    driver.ack("inflate", 256)
    driver.leave("worker")
    target, ack, fill = programs.events()
    assert (target.kind, target.asked, target.done) == ("target", 1000, 0)
    assert (ack.queue, ack.asked, ack.done, ack.within) == (
        "inflate",
        256,
        256,
        frozenset({"worker"}),
    )
    assert fill == Event("fill", "unknown", 1000, 256, 50, 1, frozenset(), "none", frozenset())
    assert driver.accounted()
    assert programs.open_calls() == []


def test_the_size_workers_task_is_kept_until_it_exits(driver: Driver, programs: Programs) -> None:
    for _ in range(3):
        driver.fill(256)
        assert [tid for tid, _ in programs.tasks()] == [1]
    programs.tracepoint("task_exit")
    assert list(programs.tasks()) == []
    assert pages_of("fill", programs) == 768
    assert driver.accounted()


def test_a_task_that_comes_in_the_place_of_one_that_was_kept_has_its_own_name(
    driver: Driver, programs: Programs
) -> None:
    driver.fill(256)
    programs.task(1, "another")
    driver.begin_scan(256)
    (call,) = programs.open_calls()
    assert b"another" in call.event
    driver.leave("scan", 0)
    assert list(programs.tasks()) == []
    assert driver.accounted()


def test_a_worker_that_does_nothing_is_no_fill(driver: Driver, programs: Programs) -> None:
    driver.fill(256)
    driver.run_worker()
    driver.read_target(256)
    driver.leave("worker")
    assert len(programs.events("fill")) == _counts(programs, "fill")["entered"] == 1


def test_a_scan_whose_return_is_missed_is_not_blamed_for_a_later_leak(
    driver: Driver, programs: Programs
) -> None:
    driver.begin_scan(256)
    driver.leak(256)
    driver.enter("out_of_memory")
    freed = driver.begin_oom()
    driver.leak(256)
    assert freed
    driver.leave("oom")
    driver.leave("out_of_memory")
    assert [leak.cause for leak in programs.events("leak")] == ["shrinker", "oom"]
    assert _counts(programs, "scan")["missed"] == 1
    assert driver.accounted()
    assert programs.open_calls() == []


def test_the_return_of_an_outer_call_closes_what_is_open_inside(
    driver: Driver, programs: Programs
) -> None:
    driver.begin_scan(256)
    driver.begin_leak(256)
    driver.begin_ack("deflate", 200)
    driver.leave("scan", 200)
    (leak,) = programs.events("leak")
    assert (leak.done, leak.duration_ns, leak.cause, leak.flags) == (200, 0, "shrinker", MISSED)
    assert [_counts(programs, kind)["missed"] for kind in ("leak", "ack", "scan")] == [1, 1, 0]
    assert driver.accounted()


def test_a_call_that_is_entered_anew_has_missed_its_return(
    driver: Driver, programs: Programs
) -> None:
    driver.begin_scan(256)
    driver.begin_leak(256)
    driver.ack("deflate", 256)
    driver.begin_leak(100)
    driver.ack("deflate", 100)
    driver.leave("leak", 100)
    driver.leave("scan", 356)
    first, second = programs.events("leak")
    assert (first.done, first.flags, first.cause) == (256, MISSED, "shrinker")
    assert (second.done, second.flags, second.cause) == (100, frozenset(), "shrinker")
    assert driver.accounted()


def test_a_fill_whose_return_is_missed_keeps_its_pages(driver: Driver, programs: Programs) -> None:
    driver.run_worker()
    driver.read_target(512)
    driver.ack("inflate", 256)
    driver.run_worker()
    driver.ack("inflate", 256)
    driver.leave("worker")
    fills = programs.events("fill")
    assert [fill.flags for fill in fills] == [MISSED, frozenset()]
    assert pages_of("fill", programs) == 512
    assert driver.accounted()


def test_a_task_that_exits_frees_its_slot(driver: Driver, programs: Programs) -> None:
    for tid in range(1, 2000):
        programs.task(tid)
        driver.begin_scan(256)
        programs.tracepoint("task_exit")
    assert list(programs.tasks()) == []
    assert _counts(programs, "scan")["missed"] == 1999
    programs.task(3000)
    driver.fill(256)
    assert pages_of("fill", programs) == 256
    assert driver.accounted()


def test_tasks_that_find_no_room_are_counted(driver: Driver, programs: Programs) -> None:
    for tid in range(1, 600):
        programs.task(tid)
        driver.begin_scan(256)
    assert _counts(programs, "scan")["untracked"] == 599 - 512
    assert len(programs.open_calls()) == 512
    assert driver.accounted()


def test_a_missed_return_that_the_ring_has_no_room_for_counts_its_pages(
    driver: Driver, programs: Programs
) -> None:
    driver.begin_leak(256)
    driver.ack("deflate", 256)
    programs.set("ring_full", 1)
    programs.tracepoint("task_exit")
    assert _counts(programs, "leak")["lost_pages"] == 256
    assert driver.accounted()


@pytest.mark.parametrize("fill_from", [0, 2])
def test_an_open_fill_is_one_call(fill_from: int) -> None:
    programs = Programs({**STOCK, "fill_from": fill_from})
    driver = Driver(programs)
    driver.run_worker()
    driver.read_target(1000)
    if fill_from == 2:
        driver.enter("fill", 0, 1000)
    driver.begin_ack("inflate", 256)
    opened = {call.kind: call for call in programs.open_calls()}
    assert set(opened) == {"fill", "ack"}
    assert len(programs.open_calls()) == 2
    assert driver.accounted()


def test_an_open_leak_is_no_fill_where_nothing_tells_what_the_worker_was_asked(
    driver: Driver, programs: Programs
) -> None:
    driver.run_worker()  # no target read: without BTF nothing tells the balloon's size
    driver.begin_leak(256)
    driver.begin_ack("deflate", 256)
    assert [call.kind for call in programs.open_calls()] == ["leak", "ack"]
    assert driver.accounted()


def test_an_ack_stands_in_for_the_leak_that_is_not_traced(
    driver: Driver, programs: Programs
) -> None:
    driver.begin_scan(256)
    driver.ack("deflate", 256)
    driver.leave("scan", 256)
    (leak,) = programs.events("leak")
    assert (leak.done, leak.cause, leak.flags) == (256, "shrinker", PARTIAL)
    assert driver.accounted()


def test_an_interrupts_buffer_is_not_the_acks() -> None:
    programs = Programs({**STOCK, "num_pfns": 0})
    driver = Driver(programs)
    driver.run_worker()
    vq = programs.queue("inflate")
    driver.enter("ack", 0, vq)
    programs.enter("outbuf", programs.queue("output.0"), programs.memory(0, 0, 0, 6000, width=4))
    programs.enter("outbuf", vq, programs.memory(0, 0, 0, 1024, width=4))
    driver.leave("ack")
    driver.leave("worker")
    assert pages_of("fill", programs) == 256


def test_sleeping_in_reclaim_is_not_out_of_puff(driver: Driver, programs: Programs) -> None:
    driver.run_worker()
    programs.tracepoint("reclaim_begin")
    driver.enter("sleep", 100)
    driver.leave("sleep")
    programs.tracepoint("reclaim_end", 32)
    driver.enter("sleep", 200)
    driver.leave("sleep")
    driver.leave("worker")
    assert [event.done for event in programs.events("reclaim")] == [32]
    assert len(programs.events("sleep")) == 1
    assert driver.accounted()


def test_a_duration_never_wraps(driver: Driver, programs: Programs) -> None:
    driver.run_worker()
    driver.ack("inflate", 256)
    driver.pass_ns(-100)  # the clock of another CPU
    programs.leave("worker")
    assert programs.events("fill")[0].duration_ns == 0


def test_kernel_pages_of_64_kib_are_sixteen_of_the_balloons() -> None:
    programs = Programs({**STOCK, "ack_pages": 0, "fill_from": 1, "page_pages": 16})
    driver = Driver(programs)
    driver.run_worker()
    driver.enter("enqueue")
    driver.leave("worker")
    programs.task(2)
    driver.enter("enqueue")  # of a worker that is not traced
    assert [event.done for event in programs.events("fill")] == [16, 16]


def test_the_shrinker_takes_no_blocks_back_by_leaking_pages_of_64_kib() -> None:
    programs = Programs({**STOCK, **HINTING, "page_pages": 16})
    driver = Driver(programs)
    _hint(driver, 4)
    driver.begin_scan(16)
    driver.leak(256)  # of the balloon's pages
    driver.leave("scan", 16)  # of the kernel's
    _hint(driver, 4)
    lent = [event for event in programs.events("hint") if "returned" not in event.flags]
    assert sum(event.done for event in lent) == 4 * 1024
    assert programs.events("hint")[-1].done == 0


def _hint(driver: Driver, blocks: int) -> None:
    """report_free_page_func runs, and `blocks` are on loan when it returns."""
    driver.enter("hint", driver.hint_work)
    driver.balloon.free_blocks = blocks
    driver.leave("hint")


def test_blocks_that_a_scan_is_taking_back_are_not_given_back_by_hinting() -> None:
    programs = Programs({**STOCK, **HINTING})
    driver = Driver(programs)
    _hint(driver, 8)
    programs.task(2)
    driver.begin_scan(4096)
    driver.balloon.free_blocks = 4
    programs.task(1)
    _hint(driver, 4)
    programs.task(2)
    driver.leave("scan", 4 * 1024)
    programs.task(1)
    _hint(driver, 6)
    hints = programs.events("hint")
    assert [event.done for event in hints] == [8 * 1024, 0, 2 * 1024]
    assert all("returned" not in event.flags for event in hints)


def test_pages_lost_are_pages(driver: Driver, programs: Programs) -> None:
    programs.set("ring_full", 1)
    driver.run_worker()
    driver.read_target(5000)
    driver.leave("worker")
    assert _counts(programs, "target")["lost"] == 1
    assert _counts(programs, "target")["lost_pages"] == 0


def test_an_interrupt_does_not_wake_kswapd_for_the_worker(
    driver: Driver, programs: Programs
) -> None:
    driver.run_worker()
    programs.tracepoint("kswapd_tracepoint", 0, 0, 0, 0x820)  # GFP_ATOMIC
    programs.tracepoint("kswapd_tracepoint", 0, 0, 0, 0xDC0)
    assert len(programs.events("kswapd_wake")) == 1


def test_a_task_that_exits_anyway_is_marked_but_not_killed(
    driver: Driver, programs: Programs
) -> None:
    victim = programs.memory(0)
    driver.enter("out_of_memory")
    driver.enter("victim", victim)
    driver.leave("out_of_memory")
    driver.enter("out_of_memory")
    driver.enter("oom_kill", victim)
    driver.enter("victim", victim)
    driver.leave("oom_kill")
    driver.leave("out_of_memory")
    assert len(programs.events("oom_kill")) == 1
    assert _counts(programs, "oom_kill")["entered"] == 1


@pytest.mark.parametrize("call", ["bind", "restore"])
def test_what_the_driver_does_when_it_takes_the_device_is_no_notice(
    driver: Driver, programs: Programs, call: str
) -> None:
    driver.enter(call)
    driver.enter("notice")
    driver.leave(call)
    driver.enter("notice")
    assert len(programs.events("notice")) == 1
    assert _counts(programs, "notice")["skipped"] == 1
    assert driver.accounted()


def test_an_interrupt_in_the_middle_of_a_program_changes_nothing_of_it(
    driver: Driver, programs: Programs
) -> None:
    driver.run_worker()
    programs.interrupt("notice")
    driver.begin_ack("inflate", 256)
    programs.interrupt("notice")
    driver.leave("ack")
    driver.leave("worker")
    assert [event.kind for event in programs.events()] == ["notice", "notice", "ack", "fill"]
    assert pages_of("fill", programs) == 256
    assert driver.accounted()


def test_nothing_is_counted_before_all_probes_are_attached(
    driver: Driver, programs: Programs
) -> None:
    programs.phase = "attaching"
    driver.fill(256)
    programs.task(2)
    driver.begin_scan(256)
    assert programs.events() == []
    programs.phase = "tracing"
    driver.leak(200)
    driver.leave("scan", 200)
    (leak,) = programs.events("leak")
    assert (leak.cause, leak.done, leak.flags) == ("shrinker", 200, frozenset())
    assert programs.events("scan") == []
    assert driver.accounted()


def test_pages_of_a_leak_that_was_under_way_are_those_of_its_acks(
    driver: Driver, programs: Programs
) -> None:
    programs.phase = "attaching"
    driver.begin_scan(256)
    driver.begin_leak(256)
    programs.phase = "tracing"
    driver.ack("deflate", 256)
    driver.leave("leak", 256)
    driver.leave("scan", 256)
    (leak,) = programs.events("leak")
    assert (leak.done, leak.cause, leak.flags) == (256, "shrinker", PARTIAL)
    assert driver.accounted()


def test_at_the_end_what_is_under_way_is_traced_to_its_end(
    driver: Driver, programs: Programs
) -> None:
    driver.begin_scan(512)
    programs.phase = "ending"
    driver.leak(256)
    driver.leave("scan", 256)
    driver.begin_scan(512)
    driver.leak(256)
    driver.leave("scan", 256)
    driver.enter("notice")
    assert [event.kind for event in programs.events()] == ["ack", "leak", "scan"]
    assert programs.events("leak")[0].cause == "shrinker"
    assert driver.accounted()


def test_after_the_end_nothing_is_counted_or_written(driver: Driver, programs: Programs) -> None:
    driver.run_worker()
    driver.read_target(1000)
    driver.begin_ack("inflate", 256)
    programs.phase = "ended"
    before, open_calls = programs.counters(), programs.open_calls()
    driver.leave("ack")
    driver.ack("inflate", 256)
    driver.leave("worker")
    driver.enter("notice")
    programs.tracepoint("kswapd_tracepoint", 0, 0, 0, 0x400)
    programs.tracepoint("task_exit")
    driver.fill(256)
    assert [event.kind for event in programs.events()] == ["target"]
    assert programs.counters() == before
    assert [c.event for c in programs.open_calls()] == [c.event for c in open_calls]
    assert [call.call for call in open_calls] == ["worker", "ack"]
    assert driver.accounted()


def test_a_proof_is_the_tracers_own(programs: Programs) -> None:
    programs.set_control("prover", 42)
    programs.task(9000)
    programs.set("ns_task", 43 << 32 | 43)
    programs.enter("proof")
    assert programs.control("proof_entered") == 0
    programs.set("ns_task", 42 << 32 | 42)
    programs.enter("proof")
    programs.leave("proof")
    assert (programs.control("proof_entered"), programs.control("proof_returned")) == (1, 1)
    assert programs.control("proof_task") >> 32 == 9000


def test_what_a_reclaim_got_is_in_its_return_value(driver: Driver, programs: Programs) -> None:
    driver.run_worker()
    driver.enter("reclaim")
    driver.leave("reclaim", 32)
    (reclaim,) = programs.events("reclaim")
    assert (reclaim.done, reclaim.asked) == (32, UNKNOWN_PAGES)


def test_the_reader_is_woken_when_much_is_unread(driver: Driver, programs: Programs) -> None:
    programs = Programs({**STOCK, "wake_events": 10})
    driver = Driver(programs)
    for _ in range(3):
        driver.fill(256)
    assert programs.woken() == 0
    for _ in range(3):
        driver.fill(256)
    assert programs.woken() > 0
