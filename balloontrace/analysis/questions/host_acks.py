# SPDX-License-Identifier: Apache-2.0
"""How long the host took to answer: each `tell_host` waits for it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from balloontrace.analysis.base import Question, Result, Section
from balloontrace.analysis.fields import Field, Table, Unit
from balloontrace.analysis.trace.trace import Trace, known_pages

SLOW_S = 0.1
"""An ack tells of at most 256 pages (1 MiB). A host moves 1 GiB/s, so 1 ms; in guests without
hardware virtualisation, on a machine with twice the work it can do, the slowest of 60,000 took
87 ms."""

_SLOW = f"{SLOW_S * 1000:.0f} ms or more"

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
        Intervals `slow`: the waits of SLOW_S and more."""
        acks = trace.calls("ack")
        columns = ("start_ns", "duration_ns", "open", "done")
        rows = [
            _row(trace, name, acks.picked(acks["queue"] == trace.number("queues", name), *columns))
            for name in (*QUEUES, "other")
        ]
        slow = acks.picked(np.asarray(acks["duration_ns"]) >= SLOW_S * 1e9, *columns)
        ends_ns = slow["start_ns"] + slow["duration_ns"]
        spans = zip(slow["start_ns"].tolist(), ends_ns.tolist(), strict=True)
        return Result(
            self.name,
            tables={"queues": [row for row in rows if row["acks"]]},
            intervals={
                "slow": [
                    {"start_s": trace.seconds(start_ns), "end_s": trace.seconds(end_ns)}
                    for start_ns, end_ns in spans
                ]
            },
        )


def _row(trace: Trace, queue: str, acks: pd.DataFrame) -> dict[str, Any]:
    """One virtqueue. slow: acks of at least SLOW_S; open: not answered when the recording ended."""
    took_ns = acks["duration_ns"].to_numpy()
    slow = acks[took_ns >= SLOW_S * 1e9]
    return {
        "queue": queue,
        "acks": len(acks),
        "pages": int(known_pages(acks).sum()),
        "total_s": int(acks["duration_ns"].sum()) / 1e9,
        "median_s": float(np.median(took_ns)) / 1e9 if len(acks) else None,
        "longest_s": int(took_ns.max()) / 1e9 if len(acks) else None,
        "open": int(acks["open"].sum()),
        "slow": len(slow),
        "slow_s": int(slow["duration_ns"].sum()) / 1e9,
        "slow_from_s": trace.seconds(slow["start_ns"].min()) if len(slow) else None,
        "slow_until_s": trace.seconds((slow["start_ns"] + slow["duration_ns"]).max())
        if len(slow)
        else None,
    }
