# SPDX-License-Identifier: Apache-2.0
"""Which calls are open at the end of a recording, and that every call is accounted for."""

from __future__ import annotations

from balloontrace import events
from balloontrace.tracers.attach.state import COUNTERS, ENDS, OpenCall
from balloontrace.tracers.record import accounting

FUNCTIONS = {
    "worker": ["update_balloon_size_func"],
    "ack": ["tell_host"],
    "scan": ["shrinker_scan"],
}
WAITING = "[<0>] wait_woken+0x50\n[<0>] tell_host+0x7a/0xc0 [virtio_balloon]\n[<0>] kthread+0xd7"
ELSEWHERE = "[<0>] kswapd_try_to_sleep+0x9b\n[<0>] kswapd+0x1d4"


def _call(call: str, kind: str, start_ns: int, tid: int = 7) -> OpenCall:
    event = events.pack(
        start_ns=start_ns,
        duration_ns=events.OPEN_DURATION,
        done=256,
        tid=tid,
        kind=events.number_of(events.KINDS, kind),
    )
    return OpenCall(call, kind, tid, start_ns, event)


FILL, ACK, SCAN = _call("worker", "fill", 100), _call("ack", "ack", 200), _call("scan", "scan", 100)


def test_a_task_that_waits_in_a_call_is_in_those_around_it() -> None:
    # The worker's own frame may be hidden: a return probe stands where its caller's address was.
    assert accounting.believed([ACK, FILL], {7: WAITING}, FUNCTIONS) == [FILL, ACK]


def test_a_task_that_sleeps_elsewhere_has_lost_its_return() -> None:
    assert accounting.believed([SCAN], {7: ELSEWHERE}, FUNCTIONS) == []


def test_an_inner_call_that_is_not_on_the_stack_is_not_believed() -> None:
    stack = "[<0>] msleep+0x2b\n[<0>] update_balloon_size_func+0x1a2"
    assert accounting.believed([FILL, ACK], {7: stack}, FUNCTIONS) == [FILL]


def test_a_task_that_is_gone_is_in_nothing() -> None:
    assert accounting.believed([FILL, ACK], {}, FUNCTIONS) == []


def test_a_task_whose_stack_nobody_tells_is_believed() -> None:
    assert accounting.believed([FILL, ACK], {7: ""}, FUNCTIONS) == [FILL, ACK]


def _counters(**entered: int) -> dict[str, dict[str, int]]:
    names = [name for name, _ in COUNTERS]
    return {kind: {**dict.fromkeys(names, 0), "entered": n} for kind, n in entered.items()}


def test_every_call_is_open_missed_or_counted_before() -> None:
    counters = accounting.account(_counters(fill=0, ack=1, scan=1), [FILL, ACK, SCAN], [FILL, ACK])
    for counts in counters.values():
        assert counts["entered"] == sum(counts[end] for end in ENDS) == 1
        assert counts["unpaired"] == 0
    assert counters["scan"]["missed"] == counters["fill"]["open"] == counters["ack"]["open"] == 1
    assert accounting.losses(counters) == accounting.returns_missed(counters) == 1


def test_what_nothing_accounts_for_is_a_loss() -> None:
    counters = accounting.account(_counters(ack=3), [ACK], [ACK])
    assert counters["ack"]["unpaired"] == accounting.losses(counters) == 2


def test_a_fill_that_only_seems_open_keeps_its_pages() -> None:
    written = accounting.last_events([FILL, SCAN], [])
    assert len(written) == len(events.pack())
    fields = dict(zip((f.name for f in events.RECORD), events.unpack(written[8:]), strict=True))
    assert (fields["done"], fields["duration_ns"]) == (256, 0)
    assert fields["flags"] == events.number_of(events.FLAGS, "missed")
