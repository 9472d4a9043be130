# SPDX-License-Identifier: Apache-2.0
"""Sums against /proc/vmstat, while the balloon is at rest and when the driver comes and goes."""

from __future__ import annotations

import os
from typing import Any

import pytest

from balloontrace.conditions.agreement import Agreement
from balloontrace.sums import SLOTS, Sum

ALL = {kind: {"rung": "kprobe"} for kind in ("fill", "leak", "migrate")}


def content(identity: int = 7, **seams: Any) -> dict[str, Any]:
    """What is traced of a driver."""
    return {"driver_identity": identity, "seams": {**ALL, **seams}}


def sums(filled: int, leaked: int = 0, migrated: int = 0) -> dict[str, Sum]:
    """Pages by the sums; leaks of two causes."""
    pages = {"fill": filled, "leak host": leaked - leaked // 2, "leak oom": leaked // 2}
    return {
        name: Sum(1, done, done, 5, [0] * SLOTS)
        for name, done in {**pages, "migrate": migrated}.items()
    }


def vmstat(inflated: int, deflated: int = 0, migrated: int = 0) -> dict[str, int]:
    """The guest's own."""
    return {
        "balloon_inflate": inflated,
        "balloon_deflate": deflated,
        "balloon_migrate": migrated,
    }


@pytest.fixture
def begun() -> Agreement:
    """One that began in a guest in which 1,000 pages had been moved before."""
    agreement = Agreement(os.sysconf("SC_PAGE_SIZE"))
    at = vmstat(1000, 900, 5)
    agreement.attached(sums(0), {"before": at, "after": at}, content())
    return agreement


def at_rest(
    agreement: Agreement, summed: dict[str, Sum], counted: dict[str, int], of: dict[str, Any]
) -> dict[str, int | None]:
    """What is known after two looks that see the same."""
    for moved in (True, False):
        agreement.look(summed, counted, of, moved)
    return agreement.differences


def test_what_is_counted_since_is_compared(begun: Agreement) -> None:
    found = at_rest(begun, sums(300, 100, 2), vmstat(1300, 1000, 7), content())
    assert found == {"inflate": 0, "deflate": 0, "migrate": 0}
    found = at_rest(begun, sums(400, 99, 2), vmstat(1500, 1000, 7), content())
    assert found == {"inflate": -100, "deflate": -1, "migrate": 0}


def test_while_it_moves_nothing_is_said_anew(begun: Agreement) -> None:
    at_rest(begun, sums(300), vmstat(1300, 900, 5), content())
    begun.look(sums(300), vmstat(1400, 900, 5), content(), moved=False)
    begun.look(sums(390), vmstat(1400, 900, 5), content(), moved=True)
    assert begun.differences["inflate"] == 0


def test_pages_that_are_under_way_when_it_begins_are_no_difference() -> None:
    agreement = Agreement(os.sysconf("SC_PAGE_SIZE"))
    moving = {"before": vmstat(1000, 900), "after": vmstat(1100, 900)}  # of a fill of 256
    agreement.attached(sums(0), moving, content())
    agreement.look(sums(0), vmstat(1256, 900), content(), moved=True)
    assert agreement.differences["inflate"] is None
    found = at_rest(agreement, sums(256), vmstat(1256, 900), content())
    assert found == {"inflate": 0, "deflate": 0, "migrate": 0}
    found = at_rest(agreement, sums(256 + 100), vmstat(1256 + 150, 900), content())
    assert found["inflate"] == -50


def test_pages_that_are_under_way_when_a_driver_comes_back_are_no_difference(
    begun: Agreement,
) -> None:
    at_rest(begun, sums(310), vmstat(1300, 900, 5), content())
    begun.look(sums(310), vmstat(1300 + 200, 900, 5), content(identity=8), moved=False)
    found = at_rest(begun, sums(310 + 256), vmstat(1300 + 256, 900, 5), content(identity=8))
    assert found["inflate"] == 10


def test_what_is_lost_before_the_first_rest_is_a_difference(begun: Agreement) -> None:
    begun.look(sums(100), vmstat(1100, 900, 5), content(), moved=True)
    found = at_rest(begun, sums(1000), vmstat(2256, 900, 5), content())
    assert found["inflate"] == -256


def test_what_moves_while_nothing_is_traced_is_left_out(begun: Agreement) -> None:
    at_rest(begun, sums(310), vmstat(1300, 900, 5), content())
    assert begun.differences["inflate"] == 10
    at_rest(begun, sums(310), vmstat(2300, 1900, 5), content(identity=0))
    assert begun.differences["inflate"] == 10
    found = at_rest(begun, sums(310), vmstat(2300, 1900, 5), content(identity=8))
    assert found == {"inflate": 10, "deflate": 0, "migrate": 0}


def test_what_is_not_traced_or_not_counted_is_not_known(begun: Agreement) -> None:
    found = at_rest(begun, sums(0), {"balloon_inflate": 1000}, content(migrate={"rung": None}))
    assert found == {"inflate": 0, "deflate": None, "migrate": None}


def test_at_first_nothing_is_known() -> None:
    agreement = Agreement(os.sysconf("SC_PAGE_SIZE"))
    assert set(agreement.differences.values()) == {None}
    agreement.look(sums(0), vmstat(0), content(), moved=False)
    assert set(agreement.differences.values()) == {None}
