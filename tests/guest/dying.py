# SPDX-License-Identifier: Apache-2.0
"""Not collected by itself: test_boots.py runs it, to see what becomes of tests whose guest dies."""

from __future__ import annotations

import time

from balloontrace.lab.guest import Guest

PANIC = "echo c > /proc/sysrq-trigger"
NOTICED_S = 60.0


def test_in_which_the_guest_dies(stock: Guest) -> None:
    stock.run(PANIC)


def test_that_does_not_notice(stock: Guest) -> None:
    stock.popen(["sh", "-c", PANIC])
    deadline = time.monotonic() + NOTICED_S
    while not stock.lost() and time.monotonic() < deadline:
        time.sleep(0.1)


def test_that_comes_after(stock: Guest) -> None:
    assert stock.run("echo alive").stdout == "alive\n"
