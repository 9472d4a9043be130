# SPDX-License-Identifier: Apache-2.0
"""From the host's clock to the guest's: offset, drift, error, and clocks that stood still."""

from __future__ import annotations

from typing import Any

import pytest

from balloontrace.recording.host_clock import WANDER, HostClock

S = 1_000_000_000


def pair(host_s: float, guest_s: float, error_ns: int = 30_000) -> dict[str, Any]:
    return {
        "t_ns": round(host_s * S),
        "guest_monotonic_ns": round(guest_s * S),
        "error_ns": error_ns,
    }


def state(host_s: float, name: str) -> dict[str, Any]:
    return {"t_ns": round(host_s * S), "state": name}


def test_an_offset_is_carried_with_its_error() -> None:
    clock = HostClock([pair(100, 40)], [])
    at = clock.at(160 * S)
    assert at is not None
    assert at.ns == 100 * S
    assert at.error_ns == 30_000 + 60 * S * WANDER
    assert (clock.pairs, clock.jumps) == (1, 0)


def test_a_drift_of_3_ms_a_minute_is_followed() -> None:
    clock = HostClock([pair(0, 50), pair(60, 110.003), pair(120, 170.006)], [])
    assert clock.jumps == 0
    for host_s in (0, 15, 30, 60, 90, 120):
        at = clock.at(host_s * S)
        assert at is not None
        true_ns = round((host_s * (1 + 0.003 / 60) + 50) * S)
        assert abs(at.ns - true_ns) <= at.error_ns
        assert at.error_ns <= 30_000 + 30 * S * WANDER


def test_the_worst_round_trip_of_two_pairs_is_the_error_between_them() -> None:
    clock = HostClock([pair(0, 0, 1_000_000), pair(1, 1, 5_000_000)], [])
    at = clock.at(S // 2)
    assert at is not None
    assert at.error_ns >= 5_000_000


def test_nothing_is_known_without_a_pair() -> None:
    assert HostClock([], []).at(0) is None
    assert HostClock([{"t_ns": 5, "boot_id": "x"}], []).pairs == 0


def test_over_a_jump_nothing_is_carried_if_nobody_says_when_it_was() -> None:
    clock = HostClock([pair(0, 50), pair(60, 102)], [])  # 8 s are missing
    assert clock.jumps == 1
    assert clock.at(30 * S) is None
    before, after = clock.at(-1 * S), clock.at(61 * S)
    assert before is not None
    assert after is not None
    assert (before.ns, after.ns) == (49 * S, 103 * S)


def test_around_a_stop_that_the_host_tells_of_each_side_has_its_own_offset() -> None:
    states = [state(0, "running"), state(20, "paused"), state(28, "running")]
    clock = HostClock([pair(0, 50), pair(60, 102)], states)
    seen = {host_s: clock.at(host_s * S) for host_s in (10, 20, 24, 28, 40)}
    assert {s: at and at.ns / S for s, at in seen.items()} == {
        10: 60,
        20: 70,
        24: None,
        28: 70,
        40: 82,
    }


def test_of_two_stops_in_one_jump_nothing_is_known_between_the_pairs() -> None:
    states = [state(s, name) for s, name in ((20, "paused"), (24, "running"))]
    states += [state(s, name) for s, name in ((30, "paused"), (34, "running"))]
    clock = HostClock([pair(0, 50), pair(60, 102)], states)
    assert clock.at(10 * S) is None


@pytest.mark.parametrize("name", ["paused", "gone"])
def test_a_guest_that_never_goes_on_is_stopped_to_the_end(name: str) -> None:
    clock = HostClock([pair(0, 0)], [state(0, "running"), state(5, name)])
    ((since, until),) = clock.stops
    assert since == 5 * S
    assert until > 10**18


def test_nothing_is_carried_over_a_stop_beyond_the_last_pair() -> None:
    clock = HostClock([pair(0, 50)], [state(20, "paused"), state(28, "running")])
    assert clock.at(20 * S) is not None
    assert clock.at(24 * S) is None
    assert clock.at(40 * S) is None


def test_a_stop_too_short_for_a_jump_is_not_spread_over_the_time_between_pairs() -> None:
    states = [state(50, "paused"), state(50.02, "running")]
    clock = HostClock([pair(0, 50), pair(60, 109.98)], states)
    assert clock.jumps == 0
    before, after = clock.at(49 * S), clock.at(51 * S)
    assert before is not None
    assert after is not None
    assert (before.ns, after.ns) == (99 * S, round(100.98 * S))
