# SPDX-License-Identifier: Apache-2.0
"""How long the host took to answer: each `tell_host` waits for it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from balloontrace.analysis.base import Analysis, Result
from balloontrace.analysis.trace.trace import Trace, known_pages

SLOW_S = 0.1
"""An ack tells of at most 256 pages (1 MiB). A host moves 1 GiB/s, so 1 ms; in guests without
hardware virtualisation, on a machine with twice the work it can do, the slowest of 60,000 took
87 ms."""

QUEUES = ("inflate", "deflate")


class HostAcks(Analysis):
    """The waits for the host, by virtqueue."""

    name = "host_acks"
    requires = ("ack",)

    def run(self, trace: Trace) -> Result:
        """Table `queues`: one row for each virtqueue that was used; seconds, balloon pages."""
        acks = trace.calls("ack")
        columns = ("start_ns", "duration_ns", "open", "done")
        rows = [
            _row(trace, name, acks.picked(acks["queue"] == trace.number("queues", name), *columns))
            for name in (*QUEUES, "other")
        ]
        return Result(self.name, tables={"queues": [row for row in rows if row["acks"]]})


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
