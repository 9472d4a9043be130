# SPDX-License-Identifier: Apache-2.0
"""How long the machine was suspended, by clocks between which the recorder may have to wait."""

from __future__ import annotations

import os
import time

import pytest

from balloontrace.tracers.record.not_run import NotRun, _stolen_ns


class Clocks:
    """Of a machine that sleeps when told, and on which a task has to wait between two readings."""

    CLOCK_BOOTTIME = time.CLOCK_BOOTTIME

    def __init__(self) -> None:
        self.awake_ns, self.slept_ns = 10**12, 0
        self.waits_ns: list[int] = []

    def monotonic_ns(self) -> int:
        self.awake_ns += self.waits_ns.pop() if self.waits_ns else 200
        return self.awake_ns

    def clock_gettime_ns(self, clock: int) -> int:
        assert clock == self.CLOCK_BOOTTIME
        return self.monotonic_ns() + self.slept_ns


@pytest.fixture
def clocks(monkeypatch: pytest.MonkeyPatch) -> Clocks:
    clocks = Clocks()
    monkeypatch.setattr("balloontrace.tracers.record.not_run.time", clocks)
    return clocks


@pytest.mark.parametrize("waits_ns", [[], [100, 30_000_000, 100], [900_000, 900, 100]])
def test_the_time_between_two_readings_is_no_suspend(clocks: Clocks, waits_ns: list[int]) -> None:
    not_run = NotRun()
    clocks.waits_ns = waits_ns
    assert not_run.since()["suspended_ns"] == 0


def test_a_suspend_is_seen_through_a_wait(clocks: Clocks) -> None:
    not_run = NotRun()
    clocks.slept_ns, clocks.waits_ns = 2 * 10**9, [100, 30_000_000, 100]
    assert not_run.since()["suspended_ns"] == pytest.approx(2 * 10**9, abs=1_000_000)


def test_steal_is_what_the_kernel_says() -> None:
    with open("/proc/stat", encoding="ascii") as stat:
        steal = int(stat.readline().split()[8])
    assert _stolen_ns() == pytest.approx(steal / os.sysconf("SC_CLK_TCK") * 1e9, abs=1e9)
    assert NotRun().since()["stolen_ns"] <= 1e9
