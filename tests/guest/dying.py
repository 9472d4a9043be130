# SPDX-License-Identifier: Apache-2.0
"""Not collected by itself: test_boots.py runs it, to see what becomes of tests whose guest dies."""

from __future__ import annotations

import time

import pytest

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


@pytest.fixture
def harmed(stock: Guest) -> None:
    """A guest that dies of what a test needs to be done in it first."""
    stock.run(PANIC)


def test_in_whose_preparation_the_guest_dies(harmed: None) -> None:
    raise AssertionError("there is no guest for it")


def test_that_comes_after(stock: Guest) -> None:
    assert stock.run("echo alive").stdout == "alive\n"
