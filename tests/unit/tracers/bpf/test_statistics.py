# SPDX-License-Identifier: Apache-2.0
"""What bpf/balloon.c makes of the statistics queue, of the worker of free page reporting, and of
tasks that are refused memory."""

from __future__ import annotations

import struct

import pytest

from balloontrace.events import UNKNOWN_PAGES
from balloontrace.tracers.attach import state
from tests.unit.tracers.bpf.programs import STOCK, Programs

BALLOON = {**STOCK, "stats_work": 8, "stats": 24, "stats_bytes": 32}
"""Three values of ten bytes, and two bytes of nothing."""

ENOMEM = -12


def balloon(programs: Programs, *sent: tuple[int, int]) -> int:
    """The address of the work in a struct virtio_balloon whose `stats` hold these."""
    packed = b"".join(struct.pack("<HQ", *one) for one in sent).ljust(32, b"\0")
    return programs.text(bytes(24) + packed + b"\xff" * 256) + BALLOON["stats_work"]


def answer(programs: Programs, *sent: tuple[int, int]) -> None:
    """The driver's worker runs, and has sent these."""
    programs.enter("stats", balloon(programs, *sent))
    programs.leave("stats")


def test_what_the_driver_sent_is_kept_for_the_reader() -> None:
    programs = Programs(BALLOON)
    assert programs.sent_stats()["answers"] == 0
    programs.set("now", 77)
    answer(programs, (0, 5), (4, 2**63 + 1), (5, 0))
    assert programs.sent_stats() == {
        "answers": 1,
        "answered_ns": 77,
        "sent": [[0, 5], [4, 2**63 + 1], [5, 0]],
    }
    answer(programs, (4, 9))  # the rest it left as it was made, zero
    assert programs.sent_stats()["answers"] == 2
    assert programs.sent_stats()["sent"] == [[4, 9]]
    assert [event.done for event in programs.events("stats")] == [3, 3]


def test_without_btf_the_answer_is_seen_and_what_it_says_is_not() -> None:
    programs = Programs(STOCK)
    answer(programs, (0, 5))
    assert programs.sent_stats()["answers"] == 0
    assert [event.done for event in programs.events("stats")] == [UNKNOWN_PAGES]


@pytest.mark.parametrize("size", [9, 160, 161, 4096])
def test_no_more_is_read_than_there_is_room_for(size: int) -> None:
    programs = Programs({**BALLOON, "stats_bytes": size})
    answer(programs, (1, 5))
    assert len(programs.sent_stats()["sent"]) <= state.MOST_STATS
    assert programs.sent_stats()["answers"] == 1


def test_the_host_asks_by_an_interrupt_which_has_no_task() -> None:
    programs = Programs(BALLOON)
    programs.interrupt("stats_ask")
    answer(programs, (0, 5))
    ask, stats = programs.events()
    assert (ask.kind, ask.tid, stats.kind) == ("stats_ask", 0, "stats")
    counters = programs.counters()["stats_ask"]
    assert (counters["entered"], counters["written"]) == (1, 1)


def test_an_answer_that_is_under_way_is_an_open_call() -> None:
    programs = Programs(BALLOON)
    programs.enter("stats", balloon(programs))
    assert [call.kind for call in programs.open_calls()] == ["stats"]


def test_what_the_worker_of_reporting_reported_are_its_reports() -> None:
    programs = Programs({**STOCK, "sg_bytes": 32})
    programs.enter("reporting")
    blocks = programs.text(struct.pack("<QII16x", 0, 0, 2 << 20) * 3 + bytes(32 * 32))
    for result in (0, 0, -1):
        programs.enter("report", 0, blocks, 3)
        programs.leave("report", result)
    programs.leave("reporting")
    assert [event.done for event in programs.events("report")] == [1536, 1536, 0]
    assert [event.done for event in programs.events("reporting")] == [3072]
    programs.enter("report", 0, blocks, 3)  # of a worker that is not traced
    programs.leave("report")
    assert programs.events("report")[-1].done == 1536
    assert programs.open_calls() == []


@pytest.mark.parametrize("phase", ["attaching", "tracing", "ending", "ended"])
def test_only_a_task_that_was_refused_memory_is_told_of(phase: str) -> None:
    programs = Programs(phase=phase)
    programs.task(9, "java")
    programs.leave("refuse", 0)
    assert programs.events() == []
    programs.leave("refuse", ENOMEM & 0xFFFFFFFF)  # an int, in whatever the register holds above
    told = programs.events("refuse")
    assert [event.tid for event in told] == ([9] if phase == "tracing" else [])
    assert list(programs.tasks()) == []
