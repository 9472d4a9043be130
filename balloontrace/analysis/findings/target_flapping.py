# SPDX-License-Identifier: Apache-2.0
"""The host takes much of the guest's memory, gives it back, and takes it again."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

from balloontrace.analysis.findings.base import Evidence, Finding, Results
from balloontrace.analysis.findings.guest_ram import most_ram
from balloontrace.events import BALLOON_PAGE_BYTES


class TargetFlapping(Finding):
    """Targets that go up and down faster than the memory is of use."""

    id = "target-flapping"
    severity = "medium"
    title = "Target flapping: the host takes memory and gives it back, again and again"
    remedy = (
        "Change the host's policy, not the guest: let it wait for longer than a cycle takes before "
        "it changes its mind (hysteresis between the thresholds at which it inflates and deflates, "
        "or a least time at a target), and lower targets by steps. Each cycle costs the guest its "
        "page cache and both sides the time of every page."
    )
    needs = ("episodes", "memory.ram_bytes")

    CYCLES = 6
    """An inflation and the deflation after it. A benchmark or a test of a host may make a few."""

    TOP_S = 60.0
    """Longest time at the top that counts: memory that was the host's for less is of little use."""

    OF_MEMORY = 1.0
    """All cycles together took in at least this share of the guest's memory: small steps up and
    down are how a policy follows its guest."""

    def check(self, results: Results) -> Evidence | None:
        """Look at each inflation that the next episode gave back."""
        cycles = _cycles(results["episodes"].tables["episodes"], self.TOP_S)
        taken = sum(int(cycle["pages"]) for cycle in cycles)
        of_memory = taken * BALLOON_PAGE_BYTES / (most_ram(results) or 1)
        if len(cycles) < self.CYCLES or of_memory < self.OF_MEMORY:
            return None
        tops = sorted(float(cycle["top_s"]) for cycle in cycles)
        numbers = {
            "cycles": len(cycles),
            "start_s": cycles[0]["start_s"],
            "end_s": cycles[-1]["end_s"],
            "inflated_pages": taken,
            "times_the_memory": of_memory,
            "top_median_s": tops[len(tops) // 2],
            "top_longest_s": tops[-1],
            "moving_s": sum(float(cycle["moving_s"]) for cycle in cycles),
        }
        return Evidence(numbers, _sentence(numbers), "high", _CERTAIN)


_CERTAIN = "each target was seen as the driver read it"


def _cycles(episodes: list[dict[str, Any]], top_s: float) -> list[dict[str, Any]]:
    """Inflations of which the next episode gave back at least half, within top_s seconds of their
    end: start_s, end_s, pages that were gained, top_s, moving_s."""
    found = []
    # What was done at the top or at the bottom, after either was reached, stands between the two.
    for up, down in pairwise(row for row in episodes if row["direction"]):
        if up["direction"] != "inflate" or down["direction"] != "deflate":
            continue
        at_top_s = down["start_s"] - up["end_s"]
        if 0 < up["gained_pages"] <= 2 * down["gained_pages"] and at_top_s <= top_s:
            moving_s = up["end_s"] - up["start_s"] + down["end_s"] - down["start_s"]
            found.append(
                {
                    "start_s": up["start_s"],
                    "end_s": down["end_s"],
                    "pages": up["gained_pages"],
                    "top_s": at_top_s,
                    "moving_s": moving_s,
                }
            )
    return found


def _sentence(numbers: dict[str, Any]) -> str:
    """The evidence in words."""
    gib = numbers["inflated_pages"] * BALLOON_PAGE_BYTES / 2**30
    return (
        f"From {numbers['start_s']:.1f} s to {numbers['end_s']:.1f} s the host took memory and "
        f"gave it back {numbers['cycles']:,} times, {gib:,.1f} GiB in all, "
        f"{numbers['times_the_memory']:.1f} times the guest's memory, each way. It kept it for "
        f"{numbers['top_median_s']:.1f} s (median; at most {numbers['top_longest_s']:.1f} s); "
        f"moving it took {numbers['moving_s']:.1f} s."
    )
