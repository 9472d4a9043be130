# SPDX-License-Identifier: Apache-2.0
"""When the guest's clock showed what, at a moment of the host's: from pairs of both.

Between two pairs the offset is taken to change evenly. A clock that stood still meanwhile (the
guest was stopped, suspended, restored, migrated) is a jump of the offset, over which nothing is
carried but what the host itself says of when it stopped the guest. Every answer has its error.
Standard library only, Python 3.9.
"""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass
from typing import Any

WANDER = 50e-6
"""By so much of the time since a pair its offset may be wrong: 3 ms a minute, the most that was
measured between two emulated guests and their host."""

_MOST_DRIFT = 500e-6
"""Clocks that are steered run off by no more (adjtimex(2)): more is a jump."""

WALL_ERROR_NS = 1_000_000_000
"""What two wall clocks are taken to differ by at most: those that are kept by NTP do by far less,
others by anything."""

_LONGEST_NS = 2**61
"""73 years: what is beyond is no moment of a machine's, and no error of one."""

RUNNING = "running"


@dataclass(frozen=True)
class Moment:
    """A moment of the guest's CLOCK_MONOTONIC, and by how much it may be wrong either way."""

    ns: int
    error_ns: int


@dataclass(frozen=True)
class _Pair:
    host_ns: int
    offset_ns: int
    error_ns: int


class HostClock:
    """jumps: how often the offset jumped; pairs: how often the clocks were compared;
    by_wall_clocks: never, and the machines' wall clocks tie them."""

    def __init__(
        self,
        clocks: list[dict[str, Any]],
        states: list[dict[str, Any]],
        wall: dict[str, Any] | None = None,
    ) -> None:
        """clocks, states: the lines of a `.host.jsonl`, in order of time; wall: a pair made of wall
        clocks, for want of better."""
        compared = [line for line in clocks if {"guest_monotonic_ns", "error_ns"} <= line.keys()]
        self.pairs, self.by_wall_clocks = len(compared), bool(wall and not compared)
        self._pairs = [
            _Pair(line["t_ns"], line["guest_monotonic_ns"] - line["t_ns"], line["error_ns"])
            for line in compared or ([wall] if wall else [])
        ]
        self._times = [pair.host_ns for pair in self._pairs]
        self.stops = _stops(states)
        self.jumps = sum(map(_jumps, self._pairs, self._pairs[1:]))

    def at(self, host_ns: int) -> Moment | None:
        """The guest's clock at a moment of the host's CLOCK_MONOTONIC; None: not known."""
        found = self._at(host_ns)
        fits = found is not None and max(abs(found.ns), found.error_ns) < _LONGEST_NS
        return found if fits else None

    def _at(self, host_ns: int) -> Moment | None:
        place = bisect_right(self._times, host_ns)
        before = self._pairs[place - 1] if place else None
        after = self._pairs[place] if place < len(self._pairs) else None
        if before and after and (_jumps(before, after) or self._stopped(before, after)):
            return self._beside_a_stop(host_ns, before, after)
        if before and after:
            share = (host_ns - before.host_ns) / (after.host_ns - before.host_ns)
            offset_ns = before.offset_ns + round(share * (after.offset_ns - before.offset_ns))
            near_ns = min(host_ns - before.host_ns, after.host_ns - host_ns)
            error_ns = max(before.error_ns, after.error_ns)
            return Moment(host_ns + offset_ns, error_ns + round(WANDER * near_ns))
        nearest = before or after
        return None if nearest is None else self._carried(nearest, host_ns)

    def _beside_a_stop(self, host_ns: int, before: _Pair, after: _Pair) -> Moment | None:
        """Between two pairs with a jump between them: that came with the stop, if there was one."""
        stops = self._stopped(before, after)
        if len(stops) != 1:
            return None
        ((stopped_ns, went_on_ns),) = stops
        if host_ns <= stopped_ns:
            return self._carried(before, host_ns)
        return self._carried(after, host_ns) if host_ns >= went_on_ns else None

    def _stopped(self, before: _Pair, after: _Pair) -> list[tuple[int, int]]:
        """The stops between two pairs."""
        return [s for s in self.stops if before.host_ns < s[0] and s[1] < after.host_ns]

    def _carried(self, pair: _Pair, host_ns: int) -> Moment | None:
        """What a pair says of a moment before or after it; None beyond a stop: how long the guest's
        clock stood is not known to the millisecond."""
        first_ns, last_ns = min(pair.host_ns, host_ns), max(pair.host_ns, host_ns)
        if any(first_ns < went_on and stopped < last_ns for stopped, went_on in self.stops):
            return None
        away_ns = last_ns - first_ns
        return Moment(host_ns + pair.offset_ns, pair.error_ns + round(WANDER * away_ns))


def by_wall_clocks(begin: dict[str, Any], guests: dict[str, Any]) -> dict[str, Any] | None:
    """What the two wall clocks make of the moment of a first line, as a pair; None if one is not
    known. guests: the `clock` in a recording's header."""
    utc_ns = begin.get("utc_ns")
    monotonic_ns, realtime_ns = guests.get("monotonic_ns"), guests.get("realtime_ns")
    if utc_ns is None or monotonic_ns is None or realtime_ns is None:
        return None
    return {
        "t_ns": begin["t_ns"],
        "guest_monotonic_ns": int(monotonic_ns) + utc_ns - int(realtime_ns),
        "error_ns": WALL_ERROR_NS,
    }


def _jumps(before: _Pair, after: _Pair) -> bool:
    """Whether two pairs are not of one clock that runs on."""
    apart_ns = after.host_ns - before.host_ns
    allowed_ns = before.error_ns + after.error_ns + _MOST_DRIFT * apart_ns
    return abs(after.offset_ns - before.offset_ns) > allowed_ns


def _stops(states: list[dict[str, Any]]) -> list[tuple[int, int]]:
    """From when to when the guest was not running, by the host's clock; one that did not end has an
    end that never comes."""
    stops: list[tuple[int, int]] = []
    since: int | None = None
    for line in states:
        runs = line.get("state") == RUNNING
        if not runs and since is None:
            since = line["t_ns"]
        elif runs and since is not None:
            stops.append((since, line["t_ns"]))
            since = None
    return stops if since is None else [*stops, (since, 2**63 - 1)]
