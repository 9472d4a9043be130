# SPDX-License-Identifier: Apache-2.0
"""How long the host took to answer: each `tell_host` waits for it."""

from __future__ import annotations

from typing import Any

import numpy as np

from balloontrace.analysis.base import Question, Result, Section
from balloontrace.analysis.fields import Field, Table, Unit
from balloontrace.analysis.trace.columns import Bools, Calls, Ints
from balloontrace.analysis.trace.trace import Trace, known_pages
from balloontrace.thresholds import SLOW_ACK_S

_SLOW = f"{SLOW_ACK_S * 1000:.0f} ms or more"

QUEUES = ("inflate", "deflate")


def _was_slow(result: Result) -> bool:
    """Whether the host let the driver wait: its ordinary answers stand in the phases."""
    return not result.missing and any(row["slow"] for row in result.tables["queues"])


class HostAcks(Question):
    """The waits for the host, by virtqueue."""

    section = Section(
        "host_acks",
        "Waits for the host",
        100,
        "each tell_host, by virtqueue",
        tables=(
            Table(
                "queues",
                (
                    Field("queue", Unit.TEXT, title="queue", words=(*QUEUES, "other")),
                    Field("acks", Unit.NUMBER, title="acks"),
                    Field("pages", Unit.PAGES, title="pages"),
                    Field("total_s", Unit.SECONDS, title="total"),
                    Field("median_s", Unit.SECONDS, title="median"),
                    Field("longest_s", Unit.SECONDS, title="longest"),
                    Field("open", Unit.NUMBER, "without an answer when the recording ended"),
                    Field("slow", Unit.NUMBER, _SLOW, _SLOW.replace(" or", "\nor")),
                    Field("slow_s", Unit.SECONDS, "in all of those", "in all\nof those"),
                    Field("slow_from_s", Unit.MOMENT, "the first of those"),
                    Field("slow_until_s", Unit.MOMENT, "the end of the last"),
                ),
                "queues",
            ),
        ),
        shown=_was_slow,
        first_screen=_was_slow,
    )
    requires = ("ack",)

    def run(self, trace: Trace) -> Result:
        """Table `queues`: one row for each virtqueue that was used; seconds, balloon pages.
        Intervals `slow`: the waits of SLOW_ACK_S and more."""
        acks = trace.calls("ack")
        is_slow = np.asarray(acks["duration_ns"]) >= SLOW_ACK_S * 1e9
        queues = np.asarray(acks["queue"])
        of_queue = {name: queues == trace.number("queues", name) for name in (*QUEUES, "other")}
        rows = [
            _row(trace, name, acks, which, is_slow)
            for name, which in of_queue.items()
            if which.any()
        ]
        slow = acks.picked(is_slow, "start_ns", "duration_ns")
        ends_ns = slow["start_ns"] + slow["duration_ns"]
        spans = zip(slow["start_ns"].tolist(), ends_ns.tolist(), strict=True)
        return Result(
            self.name,
            tables={"queues": rows},
            intervals={
                "slow": [
                    {"start_s": trace.seconds(start_ns), "end_s": trace.seconds(end_ns)}
                    for start_ns, end_ns in spans
                ]
            },
        )


def _row(trace: Trace, queue: str, acks: Calls, which: Bools, is_slow: Bools) -> dict[str, Any]:
    """One virtqueue, which has acks. slow: those of SLOW_ACK_S and more; open: not answered when it
    ended.

    One column after the other: of all acks they take a fifth of what a report may.
    """
    pages = int(known_pages(acks.picked(which, "done")).sum())
    took_ns = np.asarray(acks["duration_ns"])[which]
    total_ns, longest_ns = int(took_ns.sum()), took_ns.max()
    slow = acks.picked(which & is_slow, "start_ns", "duration_ns")
    ends_ns = slow["start_ns"] + slow["duration_ns"]
    return {
        "queue": queue,
        "acks": len(took_ns),
        "pages": pages,
        "total_s": total_ns / 1e9,
        "median_s": _median_ns(took_ns) / 1e9,
        "longest_s": int(longest_ns) / 1e9,
        "open": int(np.count_nonzero(np.asarray(acks["open"])[which])),
        "slow": len(slow),
        "slow_s": int(slow["duration_ns"].sum()) / 1e9,
        "slow_from_s": trace.seconds(slow["start_ns"].min()) if len(slow) else None,
        "slow_until_s": trace.seconds(ends_ns.max()) if len(slow) else None,
    }


def _median_ns(took_ns: Ints) -> float:
    """The median of some durations, whose order it changes."""
    return float(np.median(took_ns, overwrite_input=True))
