# SPDX-License-Identifier: Apache-2.0
"""The time goes into waiting for the host."""

from __future__ import annotations

from bisect import bisect_left
from itertools import accumulate
from typing import Any

from balloontrace.analysis.findings.base import Evidence, Finding, Results
from balloontrace.thresholds import (
    FEW_SLOW_ACKS,
    SLOW_ACK_S,
    SLOW_ACKS_SHARE,
    SLOW_ACKS_TOTAL_S,
)


class SlowHostAck(Finding):
    """The host lets the driver wait for each array of page numbers."""

    id = "slow-host-ack"
    severity = "medium"
    title = "Slow host: the driver waits for the host to take the pages"
    remedy = (
        "Look at the host. QEMU takes the balloon's pages under its global lock, with one madvise "
        "or fallocate for each: see how fast its memory backend punches holes (hugetlb, memfd, "
        "files), who else holds that lock (monitor commands that dump memory, device emulation "
        "that could have an iothread), and whether QEMU gets its CPU time (cpu.max and cpu.stat of "
        "its cgroup, steal time)."
    )
    needs = ("host_acks", "phases.fill.total_s", "phases.leak.total_s")

    def check(self, results: Results) -> Evidence | None:
        """Look at both virtqueues together."""
        queues = results["host_acks"].tables["queues"]
        slow = [row for row in queues if row["slow"]]
        slow_s = sum(row["slow_s"] for row in slow)
        moving_s = sum(results["phases"].scalars[call]["total_s"] for call in ("fill", "leak"))
        if slow_s < max(SLOW_ACKS_TOTAL_S, SLOW_ACKS_SHARE * moving_s):
            return None
        numbers = {
            "start_s": min(row["slow_from_s"] for row in slow),
            "end_s": max(row["slow_until_s"] for row in slow),
            "slow_acks": sum(row["slow"] for row in slow),
            "slow_s": slow_s,
            "slow_from_s": SLOW_ACK_S,
            "moving_s": moving_s,
            "acks": sum(row["acks"] for row in queues),
            "ack_s": sum(row["total_s"] for row in queues),
            "pages": sum(row["pages"] for row in queues),
            "longest_s": max(row["longest_s"] for row in slow),
            "open": sum(row["open"] for row in queues),
            **_episodes(results),
        }
        few = numbers["slow_acks"] < FEW_SLOW_ACKS
        return Evidence(
            numbers,
            _sentence(numbers),
            "medium" if few else "high",
            "the wait was seen, but so few of them may be a guest that was stopped meanwhile"
            if few
            else "each wait was seen from the driver's kick to the host's answer",
        )


def _episodes(results: Results) -> dict[str, int]:
    """In how many of the episodes there were slow waits; none are known without targets."""
    waits = sorted((one["start_s"], one["end_s"]) for one in results["host_acks"].intervals["slow"])
    starts = [start_s for start_s, _ in waits]
    ends = list(accumulate((end_s for _, end_s in waits), max))
    rows = results["episodes"].tables.get("episodes", [])
    moving = [row for row in rows if row["inflated_pages"] or row["deflated_pages"]]
    begun = [bisect_left(starts, row["end_s"]) for row in moving]
    hit = sum(n > 0 and ends[n - 1] > row["start_s"] for n, row in zip(begun, moving, strict=True))
    return {"episodes": hit, "of_episodes": len(moving)}


def _sentence(numbers: dict[str, Any]) -> str:
    """The evidence in words."""
    unanswered = numbers["open"]
    return (
        f"From {numbers['start_s']:.1f} s to {numbers['end_s']:.1f} s {numbers['slow_acks']:,} of "
        f"{numbers['acks']:,} waits for the host took {numbers['slow_from_s'] * 1000:.0f} ms or "
        f"more, {numbers['slow_s']:.1f} s together. All waits took {numbers['ack_s']:.1f} s for "
        f"{numbers['pages']:,} pages, all of inflating and deflating {numbers['moving_s']:.1f} s; "
        f"the longest wait took {numbers['longest_s']:.1f} s."
        + (
            f" They were in {numbers['episodes']:,} of {numbers['of_episodes']:,} episodes."
            if numbers["of_episodes"] > 1
            else ""
        )
        + (f" {unanswered:,} had no answer when the recording ended." if unanswered else "")
    )
