# SPDX-License-Identifier: Apache-2.0
"""Task delays: the layout against the kernel's headers, and what the recorder does with them."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import pytest

from balloontrace import events
from balloontrace.tracers.record.netlink import BalloonEvents
from balloontrace.tracers.samplers.delays import DELAYS, decode
from balloontrace.tracers.samplers.tasks import LOOKS_PER_SPAN, MAX_TIDS, SeenTasks

OFFSETS = json.loads(
    (Path(__file__).parents[3] / "data" / "taskstats-offsets.json").read_text(encoding="utf-8")
)
"""Version -> sizeof(struct taskstats) and offsetof() of its fields, printed by a C program compiled
with include/uapi/linux/taskstats.h of the package or git blob that `header` names."""

IN_HEADER = {name: "freepages" if name == "reclaim" else name for name in DELAYS}
ELAPSED_US = 7_000_001


def taskstats(version: int, size: int | None = None) -> tuple[bytes, dict[str, tuple[int, int]]]:
    """The bytes of a struct of this version in which every u64 is its own offset, but for name
    and age; and the delays in it."""
    at = OFFSETS[str(version)]
    raw = bytearray(b"".join(struct.pack("=Q", offset) for offset in range(0, at["size"], 8)))
    struct.pack_into("=H", raw, at["version"], version)
    struct.pack_into("=32s", raw, at["ac_comm"], b"kworker/0:1\0rest of a longer name")
    struct.pack_into("=Q", raw, at["ac_etime"], ELAPSED_US)
    expected = {
        name: (at[f"{field}_count"], at[f"{field}_delay_total"])
        for name, field in IN_HEADER.items()
        if f"{field}_count" in at
    }
    return bytes(raw[:size]), expected


@pytest.mark.parametrize("version", [int(version) for version in OFFSETS])
def test_every_version_is_read_at_the_headers_offsets(version: int) -> None:
    raw, expected = taskstats(version)
    reading = decode(raw)
    assert reading.version == version
    assert reading.comm == "kworker/0:1"
    assert reading.elapsed_ns == ELAPSED_US * 1000
    assert reading.delays == expected


def test_versions_have_the_delays_they_should() -> None:
    lacking = {v: set(DELAYS) - set(decode(taskstats(int(v))[0]).delays) for v in OFFSETS}
    assert lacking.pop("10") == {"compact", "wpcopy"}
    assert set(map(frozenset, lacking.values())) == {frozenset()}


def test_a_later_version_is_read_as_far_as_it_is_known() -> None:
    raw, expected = taskstats(17)
    assert decode(struct.pack("=H", 18) + raw[2:] + bytes(64)).delays == expected


def test_what_the_reply_is_too_short_for_is_not_made_up() -> None:
    raw, expected = taskstats(13, size=OFFSETS["13"]["wpcopy_delay_total"])
    assert decode(raw).delays == {k: v for k, v in expected.items() if k != "wpcopy"}
    with pytest.raises(ValueError, match="100 bytes"):
        decode(raw[:100])


def span(*tids: int, kind: str = "fill") -> bytes:
    number = events.number_of(events.KINDS, kind)
    return b"".join(events.pack(tid=tid, kind=number) for tid in tids)


def test_tasks_of_short_spans_are_all_seen() -> None:
    seen = SeenTasks()
    for tid in (7, 8, 7, 9):
        seen.note(span(tid))
        seen.note(memoryview(b""))
    assert seen.take() == [8, 7, 9]
    assert seen.take() == []


def test_an_interrupt_is_nobodys() -> None:
    seen = SeenTasks()
    for _ in range(20):
        seen.note(span(5, kind="notice"))
    assert seen.take() == []


@pytest.mark.parametrize("period", [2, 3, 8, 16])
def test_a_steady_alternation_hides_nobody(period: int) -> None:
    seen = SeenTasks()
    for _ in range(3 * period):
        seen.note(span(*(list(range(1, period + 1)) * (4000 // period))))
    assert sorted(seen.take()) == list(range(1, period + 1))


def test_the_collector_is_bounded() -> None:
    seen = SeenTasks()
    for turn in range(200):
        seen.note(span(*range(turn * 1000 + 1, turn * 1000 + 1000)))
        assert len(seen._tids) <= MAX_TIDS
    tids = seen.take()
    assert len(tids) == MAX_TIDS
    assert min(tids) > 150_000  # who was not seen for longest went first


def test_few_events_of_a_span_are_looked_at() -> None:
    seen = SeenTasks()
    for items in (1, LOOKS_PER_SPAN, 20, 4096):
        seen.note(span(*range(1, items + 1)))
        assert 1 <= len(seen.take()) <= LOOKS_PER_SPAN + 1


def uevent(**fields: str) -> dict[str, Any]:
    return {"header": {"message": "..."}, "SEQNUM": "7", **fields}


def test_uevents_of_other_devices_and_modules_are_passed_over() -> None:
    picks = BalloonEvents().pick
    disk = uevent(SUBSYSTEM="virtio", DEVPATH="/d/virtio0", MODALIAS="virtio:d00000002v00001AF4")
    assert picks(disk) is None
    assert picks(uevent(SUBSYSTEM="module", DEVPATH="/module/virtio_net")) is None
    assert picks(uevent(SUBSYSTEM="net", DEVPATH="/devices/virtual/net/lo")) is None


def test_a_balloon_is_known_by_its_path_after_its_driver_has_gone() -> None:
    picks = BalloonEvents().pick
    balloon = {"SUBSYSTEM": "virtio", "DEVPATH": "/d/virtio9"}
    gone = uevent(ACTION="unbind", **balloon)
    assert picks(gone) is None
    assert picks(uevent(ACTION="bind", MODALIAS="virtio:d00000005v00001AF4", **balloon))
    assert picks(gone) == {"action": "unbind", "subsystem": "virtio", "devpath": "/d/virtio9"}
