# SPDX-License-Identifier: Apache-2.0
"""Calls of threads as slices that nest: what a track of Perfetto can show."""

from __future__ import annotations

from array import array
from collections import defaultdict
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from balloontrace.analysis.trace.trace import Ints

_AT_ONCE = 1 << 15


class Nested(NamedTuple):
    """lane: of each call, 0 is the thread's own; edges: for each begin the call's index i, for each
    end ~i, per lane in the order in which a track must hear of them; deepest: greatest lane of each
    thread that has more than one."""

    lane: Ints
    edges: Ints
    deepest: dict[int, int]


def nest(thread: Ints, start_ns: Ints, end_ns: Ints) -> Nested:
    """Calls in order of return, so that a caller stands after what it called.

    Calls of one thread nest by what a thread is. Where recorded times say otherwise (a call whose
    start was not seen, clocks read between two probes), the later one moves to a lane of its own,
    and keeps its times. An end of the greatest int64 is that of a call that had not returned.
    """
    count = len(start_ns)
    order = np.lexsort((-np.arange(count), -end_ns, start_ns, thread))
    lane = np.zeros(count, dtype=np.int64)
    edges = array("q")
    deepest: dict[int, int] = {}
    lanes: dict[int, list[tuple[int, int]]] = defaultdict(list)
    current = None
    for index, owner, start, end in _rows(order, thread, start_ns, end_ns):
        if owner != current:
            _close(lanes, edges)
            current = owner
        place = 0
        while not _fits(lanes[place], edges, start, end):
            place += 1
        lanes[place].append((end, index))
        edges.append(index)
        if place:
            lane[index] = place
            deepest[owner] = max(place, deepest.get(owner, 0))
    _close(lanes, edges)
    return Nested(lane, np.frombuffer(edges, dtype=np.int64), deepest)


def _rows(order: Ints, *columns: Ints) -> Iterator[tuple[int, ...]]:
    """The index and the columns of each call in this order; few at a time are Python's objects."""
    for begin in range(0, len(order), _AT_ONCE):
        part = order[begin : begin + _AT_ONCE]
        yield from zip(part.tolist(), *(column[part].tolist() for column in columns), strict=True)


def _fits(stack: list[tuple[int, int]], edges: array[int], start: int, end: int) -> bool:
    """Whether a call can begin in a lane now; ends those that are over."""
    while stack and stack[-1][0] <= start:
        edges.append(~stack.pop()[1])
    return not stack or end <= stack[-1][0]


def _close(lanes: dict[int, list[tuple[int, int]]], edges: array[int]) -> None:
    """End all that is under way in a thread."""
    for stack in lanes.values():
        while stack:
            edges.append(~stack.pop()[1])
    lanes.clear()
