# SPDX-License-Identifier: Apache-2.0
"""The schema's promises: one fixed record, one cause per leak, docs that are up to date."""

from __future__ import annotations

from pathlib import Path

import pytest

from balloontrace import events
from balloontrace.tracers.attach import state

ROOT = Path(__file__).parents[2]


def test_an_event_is_a_power_of_two_in_the_ring() -> None:
    # ring.py relies on it: no event is split by the ring's end.
    size = events.RING_HEADER_BYTES + events.record_bytes()
    assert size == len(events.pack()) == 64


def test_numbers_of_kinds_are_unique_and_fit_their_field() -> None:
    numbers = [kind.number for kind in events.KINDS]
    assert len(set(numbers)) == len(numbers)
    assert 0 < min(numbers) <= max(numbers) < 256


@pytest.mark.parametrize(
    ("calls", "cause"),
    [
        (("worker",), "host"),
        (("worker", "scan"), "shrinker"),  # reclaim inside the worker's own allocation
        (("scan",), "shrinker"),
        (("oom",), "oom"),
        (("worker", "oom"), "oom"),
        (("remove",), "remove"),
        (("freeze",), "freeze"),
        (("migrate",), "unknown"),
        ((), "unknown"),
    ],
)
def test_the_innermost_caller_is_the_cause(calls: tuple[str, ...], cause: str) -> None:
    assert events.cause_of(sum(events.number_of(events.WITHIN, c) for c in calls)) == cause


def test_within_bits_are_the_first_calls_in_order() -> None:
    # balloon.c derives `within` from the open calls by a mask.
    names = [call.name for call in state.CALLS]
    assert names[: len(events.WITHIN)] == [bit.name for bit in events.WITHIN]
    assert [bit.number for bit in events.WITHIN] == [1 << n for n in range(len(events.WITHIN))]


def test_counters_are_summed_over_cpus() -> None:
    import struct

    fields = len(state.COUNTERS)
    kinds = state.COUNTERS_BYTES // (8 * fields)
    first, second = ([0] * (fields * kinds) for _ in range(2))
    first[fields * 1], second[fields * 1] = 5, 2  # `entered` of kind 1
    table = struct.pack(f"{2 * fields * kinds}Q", *first, *second)
    assert state.sum_counters(table)["fill"]["entered"] == 7


def test_an_open_call_becomes_an_event_that_has_not_ended() -> None:
    import struct

    slots = [[0, 0, 0, 0, 0, 0] for _ in state.CALLS]
    slots[0] = [1000, 0, 512, 256, 0, 0]  # worker: of 512 pages asked for, 256 told to the host
    slots[7] = [1500, 0, 256, 0, 1, 0]  # ack: waiting
    both = 1 << 0 | 1 << 7
    value = struct.pack("@IIIIII16s", both, both, 0, 1, 0, 51, b"kworker/0:2")
    value += b"".join(struct.pack("@QQIIII", *slot) for slot in slots)
    opened = {call.kind: call.event for call in state.open_calls([(51, value)], "acks")}
    assert set(opened) == {"fill", "ack"}
    duration = events.OPEN_DURATION
    assert opened["fill"] == events.pack(
        start_ns=1000, duration_ns=duration, asked=512, done=256, tid=51, pid=51, kind=1,
        comm=b"kworker/0:2",
    )  # fmt: skip
    assert opened["ack"] == events.pack(
        start_ns=1500, duration_ns=duration, asked=256, tid=51, pid=51, kind=3, within=1, queue=1,
        comm=b"kworker/0:2",
    )  # fmt: skip


def test_the_event_reference_is_up_to_date() -> None:
    assert (ROOT / "docs/events.md").read_text() == events.markdown(), "run `make docs`"


def test_a_program_that_asks_which_call_it_is_about_becomes_that_of_one_call() -> None:
    ask, end = bytes.fromhex("85000000ae000000"), bytes.fromhex("9500000000000000")
    assert state.for_call(ask + end, "ack") == bytes.fromhex("b700000007000000") + end
    for broken in (end, ask + ask):
        with pytest.raises(ValueError, match="exactly once"):
            state.for_call(broken, "ack")
