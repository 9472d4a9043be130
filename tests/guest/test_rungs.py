# SPDX-License-Identifier: Apache-2.0
"""Each rung of a seam, forced, gives the same totals."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from balloontrace.lab.guest import Guest
from balloontrace.lab.loads import MIB_PAGES, hint, move_balloon
from balloontrace.recording.reader import Recording
from tests.guest.conftest import Recorder, report_of

PAGES = 77 * MIB_PAGES + 3

RUNGS = [
    ("ack=2", "target=3", "report=2", "hint=2", "reclaim=2", "oom_kill=2"),
    ("ack=3", "fill=3", "hint=3", "oom_kill=3"),
    ("leak=2", "oom_kill=4"),
    ("leak=3",),
]
"""Sets of rungs that can be forced together. The first ones are what every other test uses."""


@pytest.mark.parametrize("rungs", RUNGS, ids=" ".join)
def test_each_rung_counts_the_same(
    stock: Guest, fetch: Callable[..., Recording], rungs: tuple[str, ...]
) -> None:
    move_balloon(stock, 0)
    recorder = Recorder(stock, *(word for rung in rungs for word in ("--rung", rung)))
    move_balloon(stock, PAGES)
    move_balloon(stock, 0)
    if "hint=2" in rungs:
        hint(stock)
    assert recorder.stop()[0] == 0
    recording = fetch(stock)
    report = report_of(recording)
    for seam, _, number in (rung.partition("=") for rung in rungs):
        assert recording.header["seams"][seam]["number"] == int(number)
        assert recording.header["seams"][seam]["loses"]
    assert report["reconciliation"]["agrees"] is True
    assert report["reconciliation"]["exact"] is True
    assert report["totals"]["inflated_pages"] == PAGES
    assert report["totals"]["deflated_pages"] == PAGES
    assert [episode["outcome"] for episode in report["episodes"]] == ["reached", "reached"]
    if "hint=2" in rungs:
        assert recording.trailer is not None
        assert recording.trailer["counters"]["hint"]["written"] > 0


def test_fill_balloon_itself_is_the_best_rung_where_it_is_not_inlined(
    shrinker: Guest, fetch: Callable[..., Recording]
) -> None:
    move_balloon(shrinker, 0)
    recorder = Recorder(shrinker)
    move_balloon(shrinker, PAGES)
    assert recorder.stop()[0] == 0
    recording = fetch(shrinker)
    report = report_of(recording)
    assert recording.header["seams"]["fill"]["rung"] == "fill_balloon"
    assert report["reconciliation"]["exact"] is True
    assert report["totals"]["inflated_pages"] == PAGES


@pytest.mark.one_kernel
def test_a_rung_that_cannot_be_had_says_why(shrinker: Guest) -> None:
    done = shrinker.run(
        "balloontrace record -f -d 1s -o /root/no --rung ack=3 --rung fill=2", check=False
    )
    assert done.returncode == 3
    assert "the pages of an ack are visible" in done.stderr
    assert len(done.stderr.splitlines()) == 1
