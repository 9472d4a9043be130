# SPDX-License-Identifier: Apache-2.0
"""Where the time of a fill and of a leak went (metrics.md: phases)."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from balloontrace.analysis.base import Question, Result, Section
from balloontrace.analysis.fields import Field, Unit
from balloontrace.analysis.trace.calls import COLUMNS
from balloontrace.analysis.trace.columns import Calls
from balloontrace.analysis.trace.trace import Bools, Columns, Trace, known_pages
from balloontrace.events import BALLOON_PAGE_BYTES

FILL_PARTS = {"sleep": "sleeps", "reclaim": "reclaims", "compact": "compactions"}
"""Kinds of call that are a phase of a fill, besides its waits for the host -> how many there were,
in its result."""

_ACKS = {"fill": ("worker", "inflate"), "leak": ("leak", "deflate")}
"""Call -> what its acks are made within, and their virtqueue."""


_CALL = (
    Field("calls", Unit.NUMBER),
    Field("pages", Unit.PAGES, "moved"),
    Field("total_s", Unit.SECONDS, "wall clock in the calls"),
    Field("gib_per_s", Unit.RATE, "pages over that time"),
    Field("host_ack_s", Unit.SECONDS, "of it, waiting for the host"),
    Field("host_ack_share", Unit.SHARE),
    Field("rest_s", Unit.SECONDS, "what is in no phase that was recorded"),
)

_FILL = (
    *(Field(count, Unit.NUMBER) for count in FILL_PARTS.values()),
    *(Field(f"{kind}_s", Unit.SECONDS) for kind in FILL_PARTS),
    Field("reclaimed_pages", Unit.PAGES, "that direct reclaim of the fills freed"),
    Field("kswapd_wakes", Unit.NUMBER),
)


class Phases(Question):
    """Time in fill and leak calls, split into the wait for the host and the rest.

    Of a fill also: direct reclaim and compaction of its allocations, and its sleeps when there was
    no memory. Its reclaim contains the leaks that the balloon's shrinker made there, with their
    waits for the host. No moment is in two phases; the rest is what is in none.
    """

    section = Section(
        "phases",
        "Phases",
        80,
        "where the time of all fills and leaks went",
        (Field("fill", _CALL + _FILL), Field("leak", _CALL)),
    )
    optional = ("fill", "leak", "ack", "sleep", "reclaim", "compact", "kswapd_wake")

    def run(self, trace: Trace) -> Result:
        """For fill and leak: calls, pages, seconds of wall clock; None if not recorded.

        gib_per_s: pages moved over the time in the calls.
        """
        fill, leak = _calls(trace, "fill"), _calls(trace, "leak")
        if fill is not None:
            fill |= _host(trace, "fill") | _fill_parts(trace)
            _rest(fill, ("reclaim_s", "compact_s", "sleep_s"))
        if leak is not None:
            leak |= _host(trace, "leak")
            _rest(leak, ())
        return Result(self.name, {"fill": fill, "leak": leak})


def _calls(trace: Trace, kind: str) -> dict[str, Any] | None:
    """Sums over all calls of one kind."""
    if not trace.recorded(kind):
        return None
    calls = trace.calls(kind)
    pages, total_s = int(known_pages(calls).sum()), _seconds(calls)
    return {
        "calls": len(calls),
        "pages": pages,
        "total_s": total_s,
        "gib_per_s": gib_per_second(pages, total_s),
    }


def gib_per_second(pages: int, time_s: float) -> float | None:
    """A rate in GiB/s of balloon pages moved in some seconds; None if that is no time."""
    return pages * BALLOON_PAGE_BYTES / 2**30 / time_s if time_s else None


def _seconds(calls: Columns) -> float:
    return int(calls["duration_ns"].sum()) / 1e9


def _host(trace: Trace, kind: str) -> dict[str, Any]:
    """The wait for the host in all calls of a kind."""
    mine = host_acks(trace, kind)
    if mine is None:
        return {"host_ack_s": None, "host_ack_share": None}
    waited = _seconds(trace.calls("ack").picked(mine, "duration_ns"))
    total = _seconds(trace.calls(kind))
    return {"host_ack_s": waited, "host_ack_share": waited / total if total else None}


def host_acks(trace: Trace, kind: str) -> Bools | None:
    """Which acks are the waits for the host of all fills or of all leaks; None if not recorded."""
    if not trace.recorded("ack"):
        return None
    acks, (within, queue) = trace.calls("ack"), _ACKS[kind]
    return _acks(trace, acks, trace.calls(kind), within, queue)


def _acks(trace: Trace, acks: Calls, calls: Calls, within: str, queue: str) -> Bools:
    """Which acks waited for the host on `queue`, or on one that could not be seen, on behalf of one
    of `calls`, which are made within `within`.

    A page migration tells the host on both queues, and compaction can run inside a fill: its acks
    are not the fill's. Neither are those of a leak that the shrinker made there. Where only the ack
    of a call was seen, that call is no more than its ack: both began at the same moment.
    """
    queues = acks["queue"]
    asked = queues == trace.number("queues", queue)
    unseen = queues == trace.number("queues", "other")
    inner = ("migrate",) if within == "leak" else ("migrate", "leak")
    others = trace.marked(acks, "within", "within", *inner)
    inside = trace.marked(acks, "within", "within", within)
    mine: Bools = (asked | unseen) & inside & ~others
    alone = np.flatnonzero(asked & ~inside & ~others)
    if len(alone):
        mine[alone] = np.isin(acks["start_ns"][alone], calls["start_ns"])
    return mine


def _fill_parts(trace: Trace) -> dict[str, Any]:
    """What the allocations of all fills did; None where that was not recorded."""
    parts: dict[str, Any] = {}
    for kind, count in FILL_PARTS.items():
        calls = outside_reclaim(trace, kind)
        parts[count] = None if calls is None else len(calls)
        parts[f"{kind}_s"] = None if calls is None else _seconds(calls)
    parts["reclaimed_pages"] = _reclaimed(trace)
    wakes = trace.events("kswapd_wake")
    parts["kswapd_wakes"] = len(wakes) if trace.recorded("kswapd_wake") else None
    return parts


def outside_reclaim(trace: Trace, kind: str) -> pd.DataFrame | None:
    """Calls of one of FILL_PARTS that are that phase; None if not recorded.

    Reclaim sleeps too where too many pages are isolated, and its time has that already.
    """
    if not trace.recorded(kind):
        return None
    calls = trace.events(kind)
    if kind == "reclaim":
        return calls
    return calls.loc[~_inside(calls, trace.events("reclaim")), list(COLUMNS)]


def _reclaimed(trace: Trace) -> int | None:
    """Balloon pages that direct reclaim of the fills freed."""
    if not trace.recorded("reclaim") or trace.unknown_pages("reclaim"):
        return None
    return int(known_pages(trace.events("reclaim")).sum()) * trace.pages_per_page


def _inside(calls: pd.DataFrame, outer: pd.DataFrame) -> Bools:
    """Which calls began within one of `outer`. All are the size worker's, which runs once at a
    time: the calls of `outer` do not overlap."""
    ordered = outer.sort_values("start_ns", kind="stable")
    starts, ends = ordered["start_ns"].to_numpy(), ordered["end_ns"].to_numpy()
    moments = calls["start_ns"].to_numpy()
    place = np.searchsorted(starts, moments, side="right") - 1
    if not len(starts):
        return np.zeros(len(calls), dtype=bool)
    inside: Bools = (place >= 0) & (moments < ends[place])
    return inside


def _rest(row: dict[str, Any], parts: tuple[str, ...]) -> None:
    """Set the time that is in no phase that was recorded; None if the wait for the host was not."""
    known = [row["host_ack_s"], *(row[part] for part in parts)]
    row["rest_s"] = None
    if row["host_ack_s"] is not None:
        # Where the event of a call was lost, those of its phases may not have been.
        row["rest_s"] = max(0.0, round(row["total_s"] - sum(part or 0.0 for part in known), 9))
