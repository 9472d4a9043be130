# SPDX-License-Identifier: Apache-2.0
"""The balloon stands still and holds memory for want of which the guest starves."""

from __future__ import annotations

from typing import Any

from balloontrace.analysis.findings.base import Evidence, Finding, Results, known, said_waits
from balloontrace.analysis.trace.stretches import TOWARD
from balloontrace.events import BALLOON_PAGE_BYTES
from balloontrace.thresholds import AVAILABLE_SHARE, ONLY_STALLS_PER_S

_PER_S = {
    "file_refaults_per_s": "pages of files read again",
    "anon_refaults_per_s": "anonymous pages read again",
    "major_faults_per_s": "major faults",
    "stalls_per_s": "allocation stalls",
    "swapped_in_per_s": "pages swapped in",
}


class HeldUnderPressure(Finding):
    """A target that is too high for what the guest does, and that nobody lowers.

    The thresholds are applied in trace/starvation.py.
    """

    id = "held-under-pressure"
    severity = "high"
    title = "The balloon holds memory for want of which the guest starves"
    remedy = (
        "Ask for less: lower the host's target by at least what the evidence says, and leave the "
        "guest a reserve of MemAvailable (10 % of its RAM is the floor here) whatever the host "
        "wants: QEMU tells it as stat-available-memory in guest-stats. deflate-on-oom does not "
        "help while reclaim still finds pages to take: the OOM killer, which asks the balloon, is "
        "not called."
    )
    needs = ("memory.starved_s",)
    needs_of_counters = needs

    def check(self, results: Results) -> Evidence | None:
        """Look at the stretches; the evidence is that of the longest."""
        memory, episodes = results["memory"], results["episodes"].tables.get("episodes", [])
        lowered = [one for one in episodes if one["direction"] == "deflate"]
        slept = [one for one in episodes if one["sleeps"]]
        stretches = [
            one
            for one in memory.tables["starved"]
            if not _overlaps(one, lowered) and not (_only_stalls(one) and _overlaps(one, slept))
        ]
        if not stretches:
            return None
        worst = max(stretches, key=lambda one: float(one["end_s"] - one["start_s"]))
        held = worst["balloon_pages"] * BALLOON_PAGE_BYTES
        floor = int(worst["ram_bytes"] * AVAILABLE_SHARE)
        less = min(held, floor - worst["available_bytes"])
        numbers = {
            "stretches": len(stretches),
            "starved_s": sum(one["end_s"] - one["start_s"] for one in stretches),
            **{key: worst[key] for key in (*_KEYS, *_PER_S)},
            "balloon_share": held / worst["ram_bytes"],
            "floor_bytes": floor,
            "less_bytes": less,
            "most_pages": (held - less) // BALLOON_PAGE_BYTES,
            "target_seen": known(results, "periods.targets_whole"),
            "target_changed": _changed(worst, episodes),
        }
        if worst["psi_full_share"] is None:
            sure = "low", "PSI was not recorded: whether tasks had to wait for memory is not known"
        else:
            sure = (
                "medium",
                "the guest's counters and its PSI say so; what more memory would have been used "
                "for they do not say",
            )
        return Evidence(numbers, _sentence(numbers), *sure)

    def check_counters(self, results: Results) -> Evidence | None:
        """The samples are the same."""
        return self.check(results)


_KEYS = (
    *("start_s", "end_s", "balloon_pages", "available_bytes", "psi_some_share"),
    "psi_full_share",
)


def _only_stalls(stretch: dict[str, Any]) -> bool:
    """Whether nothing was read or swapped in again: then who stalled may be the size worker itself,
    which waits for memory to put into the balloon."""
    return all((stretch[key] or 0) < ONLY_STALLS_PER_S for key in _PER_S if key != "stalls_per_s")


def _overlaps(stretch: dict[str, Any], episodes: list[dict[str, Any]]) -> bool:
    """Whether any of these was under way meanwhile. One in which the host asked for less: then it
    is not what holds the memory."""
    return any(
        one["start_s"] < stretch["end_s"] and one["end_s"] > stretch["start_s"] for one in episodes
    )


def _changed(stretch: dict[str, Any], episodes: list[dict[str, Any]]) -> bool:
    """Whether the host set another target meanwhile: an episode toward one began or ended."""
    return any(
        stretch["start_s"] <= one[at] < stretch["end_s"]
        for one in episodes
        for at in ("start_s", "end_s")
        if one["kind"] == TOWARD
    )


def _sentence(numbers: dict[str, Any]) -> str:
    """The evidence in words."""
    held = numbers["balloon_pages"] * BALLOON_PAGE_BYTES
    waited = said_waits(numbers["psi_some_share"], numbers["psi_full_share"])
    target = "its target did not change"
    if not numbers["target_seen"]:
        target = "whether its target changed was not traced"
    elif numbers["target_changed"]:
        target = "its target changed, and was never less than that"
    rates = ", ".join(
        f"{numbers[key]:,.0f} {said}" for key, said in _PER_S.items() if (numbers[key] or 0) >= 1
    )
    return (
        f"From {numbers['start_s']:.1f} s to {numbers['end_s']:.1f} s the balloon stood still with "
        f"{held / 2**20:,.0f} MiB, {numbers['balloon_share'] * 100:.0f} % of the guest's RAM; "
        f"{target}. Meanwhile {numbers['available_bytes'] / 2**20:,.0f} MiB were "
        f"available (median), {waited}; per second: {rates}. To keep "
        f"{numbers['floor_bytes'] / 2**20:,.0f} MiB available the balloon must hold at least "
        f"{numbers['less_bytes'] / 2**20:,.0f} MiB less, at most "
        f"{numbers['most_pages'] * BALLOON_PAGE_BYTES / 2**20:,.0f} MiB; what was evicted is not "
        "in these numbers, so that it may take more."
    )
