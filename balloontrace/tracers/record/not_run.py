# SPDX-License-Identifier: Apache-2.0
"""For how long the machine did not run: it was suspended, or its host ran something else."""

from __future__ import annotations

import os
import time

BETWEEN_CLOCKS_NS = 1_000_000
"""A task that runs reads two clocks in less; no machine is suspended and awake again in less."""

_READINGS = 10
_STEAL = 8
"""Which word of the first line of /proc/stat (proc(5)): the first is `cpu`."""


class NotRun:
    """Since this was made."""

    def __init__(self) -> None:
        self._suspended_ns, self._stolen_ns = _suspended_ns(), _stolen_ns()

    def since(self) -> dict[str, int]:
        """`suspended_ns`: 0 where it may be the time between reading two clocks; `stolen_ns`: of
        all CPUs, time in which they had something to run, and the host did not run them."""
        suspended_ns = _suspended_ns() - self._suspended_ns
        return {
            "suspended_ns": suspended_ns if suspended_ns > BETWEEN_CLOCKS_NS else 0,
            "stolen_ns": max(0, _stolen_ns() - self._stolen_ns),  # a host may correct itself
        }


def _suspended_ns() -> int:
    """How long this machine has been suspended since it booted, or up to BETWEEN_CLOCKS_NS more."""
    for _ in range(_READINGS):
        before_ns = time.monotonic_ns()
        since_boot_ns = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
        if time.monotonic_ns() - before_ns < BETWEEN_CLOCKS_NS:
            break  # else this task had to wait between them
    return since_boot_ns - before_ns


def _stolen_ns() -> int:
    """Steal of all CPUs since the machine booted; a hypervisor that tells none leaves it 0."""
    with open("/proc/stat", "rb", buffering=256) as stat:
        ticks = int(stat.readline().split()[_STEAL])
    return ticks * (1_000_000_000 // os.sysconf("SC_CLK_TCK"))
