# SPDX-License-Identifier: Apache-2.0
"""Tasks were refused memory by a limit that the balloon had lowered."""

from __future__ import annotations

from typing import Any

from balloontrace.analysis.findings.base import Evidence, Finding, Results
from balloontrace.events import BALLOON_PAGE_BYTES


class AllocationRefused(Finding):
    """ENOMEM while the balloon holds memory: LKML 2017-10.

    With vm.overcommit_memory=2 the limit of committed memory is a share of the total, which the
    driver lowers by the balloon where deflate-on-OOM is not negotiated (adjust_managed_page_count
    in drivers/virtio/virtio_balloon.c). No reclaim and no OOM helps: nothing is short but the
    limit.
    """

    id = "allocation-refused"
    severity = "high"
    title = "Allocations refused: the balloon lowers the limit of committed memory"
    remedy = (
        "Ask for a smaller balloon, or give the guest a limit that has room beside it: a larger "
        "vm.overcommit_ratio or vm.overcommit_kbytes, swap (all of it counts), or "
        "vm.overcommit_memory=0. With deflate-on-OOM negotiated (QEMU: deflate-on-oom=on) the "
        "driver leaves the total, and with it the limit, as they are."
    )
    possible = "memory.commit_limit_lowered"
    needs = ("refusals", "memory.commit_limit_lowered", "memory.size_most_pages")

    NEAR_SHARE = 0.9
    """Of CommitLimit that was committed in a sample: below that, whoever was refused asked for more
    than a tenth of it at once, and may have only tried."""

    HELD_SHARE = 0.05
    """Of RAM in the balloon: less moves the limit by no more than a task in twenty."""

    def check(self, results: Results) -> Evidence | None:
        """Look at who was refused, and how near the limit was."""
        rows, memory = results["refusals"].tables["refusals"], results["memory"].scalars
        committed, held = memory["committed_most_share"], memory["size_most_share"]
        if (
            not rows
            or committed is None
            or committed < self.NEAR_SHARE
            or (held or 0) < self.HELD_SHARE
        ):
            return None
        numbers = {
            "start_s": min(row["first_s"] for row in rows),
            "end_s": max(row["last_s"] for row in rows),
            "refused": sum(row["refused"] for row in rows),
            "tasks": len(rows),
            "most_refused": rows[0]["task"],
            "committed_share": committed,
            "commit_limit_bytes": memory["commit_limit_bytes"],
            "balloon_pages": memory["size_most_pages"],
            "balloon_share": held,
        }
        because = "each refusal was traced, and the limit was read when it was nearly reached"
        return Evidence(numbers, _sentence(numbers), "high", because)


def _sentence(numbers: dict[str, Any]) -> str:
    """The evidence in words; names are raw."""
    balloon = numbers["balloon_pages"] * BALLOON_PAGE_BYTES / 2**20
    who, others = numbers["most_refused"], numbers["tasks"] - 1
    return (
        f"From {numbers['start_s']:.1f} s to {numbers['end_s']:.1f} s {who}"
        + (f", and {others:,} more," if others else "")
        + f" was refused memory, {numbers['refused']:,} times. "
        f"{numbers['committed_share'] * 100:.0f} % of the limit of "
        f"{numbers['commit_limit_bytes'] / 2**20:,.0f} MiB were committed, and the balloon held "
        f"{balloon:,.0f} MiB, {numbers['balloon_share'] * 100:.0f} % of RAM, which the limit is "
        "reckoned without."
    )
