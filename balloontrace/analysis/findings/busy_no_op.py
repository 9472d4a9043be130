# SPDX-License-Identifier: Apache-2.0
"""The shrinker deflates what inflation just took (Linux 4.19 to 5.6)."""

from __future__ import annotations

from typing import Any

from balloontrace.analysis.findings.base import (
    Evidence,
    Finding,
    Results,
    in_how_many,
    inflations_of,
    needers,
    said_needers,
    said_s,
)
from balloontrace.thresholds import is_no_op


class BusyNoOp(Finding):
    """Reclaim takes back what inflation just took."""

    id = "busy-no-op"
    severity = "high"
    title = "Busy no-op: reclaim takes back what inflation just took"
    remedy = (
        'Run a guest kernel with Linux commit da10329cb057 ("virtio-balloon: switch back to OOM '
        'handler for VIRTIO_BALLOON_F_DEFLATE_ON_OOM", 5.7 and later), or turn deflate-on-oom off '
        "in the hypervisor (QEMU: -device virtio-balloon-pci,deflate-on-oom=off)."
    )
    needs = ("episodes", "causes")
    needs_of_counters = ("counters.back_and_forth_s",)

    def check(self, results: Results) -> Evidence | None:
        """Look at each inflate episode, and at what moved after a target was reached; the evidence
        is the worst one's."""
        inflations = inflations_of(results)
        hit = [(number, row) for number, row in inflations if self.is_no_op(row)]
        after = [row for row in results["periods"].tables["after"] if self.is_no_op(row)]
        reclaimed = [int(row["reclaimed_pages"]) for _, row in hit]
        if after and max(int(row["reclaimed_pages"]) for row in after) > max(reclaimed, default=0):
            return self._after(after, len(hit), len(inflations), results)
        if not hit:
            return None
        number, worst = max(hit, key=lambda pair: int(pair[1]["reclaimed_pages"]))
        keys = ("inflated_pages", "reclaimed_pages", "asked_pages", "start_s", "end_s", "outcome")
        numbers = {
            "episode": number,
            "episodes": len(hit),
            "of_episodes": len(inflations),
            "targets": len(after),
            **{key: worst[key] for key in keys},
            "gained_pages": worst["end_pages"] - worst["start_pages"],
            "reclaimed_share": worst["reclaimed_pages"] / worst["inflated_pages"],
            "longest_no_progress_s": worst["longest_no_progress_s"],
            "reclaimed_by": needers(results["causes"], "shrinker"),
        }
        return Evidence(numbers, _sentence(numbers), "high", _CERTAIN)

    def check_counters(self, results: Results) -> Evidence | None:
        """Look at each stretch in which pages went in and out from one reading to the next.

        A driver with an OOM notifier gives pages back, too, but on the way to the OOM killer; one
        that was not asked to deflate on OOM gives none back by itself.
        """
        behaviour = results["guest"].scalars["driver_behaviour"]
        asked = "deflate_on_oom" in results["guest"].scalars["features"]
        rows = results["counters"].tables["back_and_forth"]
        hit = [row for row in rows if self.is_no_op(row, "deflated_pages")]
        if not hit or not asked or behaviour == "oom-notifier":
            return None
        worst = max(hit, key=lambda row: int(row["deflated_pages"]))
        numbers = {
            "stretches": len(hit),
            "of_stretches": len(rows),
            **worst,
            "returned_share": worst["deflated_pages"] / worst["inflated_pages"],
        }
        if behaviour == "shrinker":
            because = "the driver has a shrinker; that reclaim called it was not seen"
            return Evidence(numbers, _sentence_of_counters(numbers), "medium", because)
        because = "who took the pages back was not seen, and the driver's functions are not known"
        return Evidence(numbers, _sentence_of_counters(numbers), "low", because)

    @staticmethod
    def is_no_op(row: dict[str, Any], taken_back: str = "reclaimed_pages") -> bool:
        """Whether much of what went in was taken back. taken_back: the key of how much was."""
        return is_no_op(row["inflated_pages"], row[taken_back] or 0)  # None: not recorded

    def _after(
        self, after: list[dict[str, Any]], hit: int, inflations: int, results: Results
    ) -> Evidence:
        """The evidence of what moved after a target was reached; hit: so many inflations show the
        same."""
        worst = max(after, key=lambda row: int(row["reclaimed_pages"]))
        keys = ("target_pages", "inflated_pages", "reclaimed_pages", "left", "reached_s", "end_s")
        numbers = {
            "episodes": hit,
            "of_episodes": inflations,
            "targets": len(after),
            **{key: worst[key] for key in keys},
            "times_the_target": worst["inflated_pages"] / max(1, worst["target_pages"]),
            "reclaimed_by": needers(results["causes"], "shrinker"),
        }
        return Evidence(numbers, _sentence_after(numbers), "high", _CERTAIN)


_CERTAIN = "each leak was seen inside the shrinker's scan"


def _sentence_of_counters(numbers: dict[str, Any]) -> str:
    """The evidence of counters in words."""
    return (
        f"{in_how_many(numbers['stretches'], numbers['of_stretches'], 'stretches')}"
        f"From {numbers['start_s']:.1f} s to {numbers['end_s']:.1f} s "
        f"{numbers['inflated_pages']:,} pages went in and {numbers['deflated_pages']:,} came out "
        f"({numbers['returned_share'] * 100:.0f} %), in the same tenths of a second: the balloon "
        f"grew by {numbers['net_pages']:,}. "
        f"Longest time without progress {said_s(numbers['longest_no_progress_s'])}."
    )


def _in_how_many(numbers: dict[str, Any]) -> str:
    return in_how_many(
        numbers["episodes"], numbers["of_episodes"], "inflations", numbers["targets"]
    )


def _sentence_after(numbers: dict[str, Any]) -> str:
    """The same, of a target that had been reached."""
    return (
        f"{_in_how_many(numbers)}The target of {numbers['target_pages']:,} pages was reached at "
        f"{numbers['reached_s']:.1f} s; until {numbers['end_s']:.1f} s reclaim took back "
        f"{numbers['reclaimed_pages']:,} pages and the driver took in "
        f"{numbers['inflated_pages']:,} again, {numbers['times_the_target']:.1f} times the target. "
        f"Reclaim was done by: {said_needers(numbers['reclaimed_by'])}."
    )


def _sentence(numbers: dict[str, Any]) -> str:
    """The evidence of a busy no-op in words."""
    return (
        f"{_in_how_many(numbers)}Episode {numbers['episode']}, {numbers['start_s']:.1f} s to "
        f"{numbers['end_s']:.1f} s: asked to grow by {numbers['asked_pages']:,} pages, the "
        f"balloon took in {numbers['inflated_pages']:,} and grew by {numbers['gained_pages']:,}; "
        f"reclaim took back {numbers['reclaimed_pages']:,} "
        f"({numbers['reclaimed_share'] * 100:.0f} % of what went in). "
        f"Longest time without progress {said_s(numbers['longest_no_progress_s'])}. "
        f"Reclaim was done by: {said_needers(numbers['reclaimed_by'])}."
    )
