# SPDX-License-Identifier: Apache-2.0
"""Inflation drives to swap what the guest then needs again."""

from __future__ import annotations

from typing import Any

from balloontrace.analysis.findings.base import Evidence, Finding, Results


class SwappedByInflation(Finding):
    """With swap no OOM ever comes: the guest gives, and pays with its disk."""

    id = "swapped-by-inflation"
    severity = "medium"
    title = "The balloon's growth drove memory to swap that the guest needed again"
    remedy = (
        "Ask for less: with swap a guest gives up whatever is asked, so a target must follow what "
        "it needs (MemAvailable, stat-swap-in and stat-swap-out of QEMU's guest-stats) and not "
        "what it can be made to give. zram or zswap in the guest makes the way back shorter; lower "
        "vm.swappiness has reclaim take page cache first."
    )
    needs = ("memory.inflation_swapped_out", "memory.inflation_swapped_in")
    needs_of_counters = needs

    OUT_BYTES = 32 << 20
    """Swapped out at least while the balloon grew. What a guest never touches again may go."""

    BACK_SHARE = 0.25
    """And so much of it swapped in again, which shows that it was in use."""

    def check(self, results: Results) -> Evidence | None:
        """Look at what moved to and from swap."""
        facts = results["memory"].scalars
        page = int(results["guest"].scalars["page_size"] or 4096)
        out, back = (facts[f"inflation_swapped_{way}"] * page for way in ("out", "in"))
        if out < self.OUT_BYTES or back < self.BACK_SHARE * out:
            return None
        numbers = {
            "start_s": facts["inflation_swap_from_s"],
            "end_s": facts["inflation_swap_until_s"],
            "swapped_out_bytes": out,
            "swapped_in_bytes": back,
            "psi_full_worst_share": facts["psi_full_worst_share"],
        }
        return Evidence(numbers, _sentence(numbers), "medium", _INFERRED)

    def check_counters(self, results: Results) -> Evidence | None:
        """The samples are the same."""
        return self.check(results)


_INFERRED = (
    "the kernel's counters are of the whole guest: that the balloon's growth was the reason, and "
    "that the same pages came back, is inferred from when they moved"
)


def _sentence(numbers: dict[str, Any]) -> str:
    """The evidence in words."""
    full = numbers["psi_full_worst_share"]
    waited = (
        ""
        if full is None
        else f" In the worst minute all tasks waited for memory for {full * 100:.0f} % of the time."
    )
    out, back = (numbers[f"swapped_{way}_bytes"] / 2**20 for way in ("out", "in"))
    return (
        f"Until {numbers['end_s']:.1f} s, while the balloon grew, the guest swapped out "
        f"{out:,.0f} MiB, the first after {numbers['start_s']:.1f} s; from then on it swapped in "
        f"{back:,.0f} MiB.{waited}"
    )
