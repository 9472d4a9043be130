# SPDX-License-Identifier: Apache-2.0
"""Calls of threads become slices that nest, whatever the recorded times say."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from balloontrace.analysis.export.nesting import Nested, nest
from balloontrace.analysis.export.timeline import FOREVER

Call = tuple[int, int, int]
"""Thread, start, end; in order of return."""


def nested(calls: list[Call]) -> Nested:
    thread, start, end = np.array(calls, dtype=np.int64).reshape(len(calls), 3).T
    return nest(thread, start, end)


def depths(calls: list[Call]) -> list[tuple[int, int]]:
    """Lane and depth of each call; fails unless every lane hears of its calls as a stack does."""
    found = nested(calls)
    stacks: dict[tuple[int, int], list[int]] = {}
    heard: dict[tuple[int, int], int] = {}
    depth: dict[int, int] = {}
    ended = set()
    for edge in found.edges.tolist():
        call = edge if edge >= 0 else ~edge
        thread, start, end = calls[call]
        track = (thread, int(found.lane[call]))
        stack = stacks.setdefault(track, [])
        at = start if edge >= 0 else end
        assert at >= heard.get(track, 0), "a track goes back in time"
        heard[track] = at
        if edge >= 0:
            assert call not in depth
            depth[call] = len(stack)
            stack.append(call)
        else:
            assert stack.pop() == call, "another call ends than the last that began"
            ended.add(call)
    assert ended == set(depth) == set(range(len(calls)))
    lanes = found.lane.tolist()
    for thread, deepest in found.deepest.items():
        assert deepest == max(lanes[i] for i, call in enumerate(calls) if call[0] == thread) > 0
    return [(lanes[call], depth[call]) for call in range(len(calls))]


@pytest.mark.parametrize(
    ("calls", "expected"),
    [
        # A fill with two acks, then another at the very moment the first ends.
        ([(1, 2, 3), (1, 4, 5), (1, 0, 9), (1, 9, 12)], [(0, 1), (0, 1), (0, 0), (0, 0)]),
        # The same times on another thread are no nesting.
        ([(2, 2, 3), (1, 0, 9)], [(0, 0), (0, 0)]),
        # Of calls with the same times the one that returned first was called by the other.
        ([(1, 0, 9), (1, 0, 9)], [(0, 1), (0, 0)]),
        # One that lasts past the one in which it began gets a lane of its own, and so does a third.
        ([(1, 0, 10), (1, 5, 15), (1, 7, 20)], [(0, 0), (1, 0), (2, 0)]),
        # ... and what is called in it is shown in the first lane that can.
        ([(1, 0, 10), (1, 12, 13), (1, 5, 15), (1, 20, 21)], [(0, 0), (0, 0), (1, 0), (0, 0)]),
        # Open calls: what begins later is within them; one that began within a closed one is not.
        ([(1, 5, 6), (1, 0, FOREVER)], [(0, 1), (0, 0)]),
        ([(1, 0, 10), (1, 5, FOREVER), (1, 20, 30)], [(0, 0), (1, 0), (0, 0)]),
        ([(1, 3, 3), (1, 3, 3)], [(0, 0), (0, 0)]),
        ([], []),
    ],
)
def test_lanes_and_depths(calls: list[Call], expected: list[tuple[int, int]]) -> None:
    assert depths(calls) == expected


_TIMES = st.integers(0, 30)
_CALLS = st.tuples(st.integers(0, 2), _TIMES, _TIMES | st.just(FOREVER))


@given(st.lists(_CALLS, max_size=40))
def test_any_calls_nest(calls: list[Call]) -> None:
    depths([(thread, min(start, end), max(start, end)) for thread, start, end in calls])
