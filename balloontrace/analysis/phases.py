"""Where the time of a fill and of a leak went (metrics.md: phases)."""

from __future__ import annotations

from typing import Any

from balloontrace.analysis.base import Analysis, Result
from balloontrace.analysis.trace import Bools, Trace, known_pages


class Phases(Analysis):
    """Time in fill and leak calls, split into the wait for the host and the rest.

    The rest of a fill is allocation with the reclaim it did (leaks made there included) and the
    sleeps when there was no memory.
    """

    name = "phases"
    optional = ("fill", "leak", "ack")

    def run(self, trace: Trace) -> Result:
        """For fill and leak: calls, pages, seconds of wall clock; None if not recorded."""
        scalars = {
            "fill": _phases(trace, "fill", "worker", "inflate"),
            "leak": _phases(trace, "leak", "leak", "deflate"),
        }
        return Result(self.name, scalars)


def _phases(trace: Trace, kind: str, within: str, queue: str) -> dict[str, Any] | None:
    """Sums over all calls of one kind; its acks are those within `within`, on `queue`."""
    if not trace.recorded(kind):
        return None
    calls = trace.events(kind)
    total = int(calls["duration_ns"].sum())
    ack = None
    if trace.recorded("ack"):
        ack = int(trace.events("ack")["duration_ns"][_acks(trace, within, queue)].sum())
    return {
        "calls": len(calls),
        "pages": int(known_pages(calls).sum()),
        "total_s": total / 1e9,
        "host_ack_s": None if ack is None else ack / 1e9,
        "rest_s": None if ack is None else (total - ack) / 1e9,
        "host_ack_share": None if ack is None or not total else ack / total,
    }


def _acks(trace: Trace, within: str, queue: str) -> Bools:
    """Which acks waited for the host on `queue` on behalf of a call of `within`.

    A page migration tells the host on both queues, and compaction can run inside a fill: its acks
    are not the fill's.
    """
    acks = trace.events("ack")
    on_queue = (acks["queue"] == trace.number("queues", queue)).to_numpy()
    inside = trace.marked(acks, "within", "within", within)
    mine: Bools = on_queue & inside & ~trace.marked(acks, "within", "within", "migrate")
    return mine
