# SPDX-License-Identifier: Apache-2.0
"""How long the machine was suspended: the difference of two clocks, which are read in turn."""

from __future__ import annotations

import time

BETWEEN_CLOCKS_NS = 1_000_000
"""A task that runs reads both clocks in less; no machine is suspended and awake again in less."""

_READINGS = 10


def suspended_ns() -> int:
    """How long this machine has been suspended since it booted, or up to BETWEEN_CLOCKS_NS more."""
    for _ in range(_READINGS):
        before_ns = time.monotonic_ns()
        since_boot_ns = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
        if time.monotonic_ns() - before_ns < BETWEEN_CLOCKS_NS:
            break  # else this task had to wait between them
    return since_boot_ns - before_ns


def suspended_since(before_ns: int) -> int:
    """Nanoseconds for which it has been suspended since `suspended_ns` returned before_ns; 0 where
    the time between the clocks may be all of them."""
    slept_ns = suspended_ns() - before_ns
    return slept_ns if slept_ns > BETWEEN_CLOCKS_NS else 0
