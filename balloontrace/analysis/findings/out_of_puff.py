# SPDX-License-Identifier: Apache-2.0
"""The guest has no more pages to give: the size worker sleeps 200 ms at a time."""

from __future__ import annotations

from typing import Any

from balloontrace.analysis.findings.base import (
    Evidence,
    Finding,
    Results,
    in_how_many,
    inflations_of,
    said_s,
)
from balloontrace.analysis.findings.busy_no_op import BusyNoOp
from balloontrace.thresholds import PUFFS, STANDSTILL_S


class OutOfPuff(Finding):
    """Allocations of the inflation fail, though reclaim gives nothing of it back to the guest: a
    busy no-op has such sleeps, too, and what they want for is in the balloon's own shrinker."""

    id = "out-of-puff"
    severity = "medium"
    title = "Out of puff: the guest has no memory left for the target"
    remedy = (
        "Lower the target: the host asks for more than the guest can free. Read MemAvailable from "
        "the balloon's statistics (QEMU: guest-stats-polling-interval, guest-stats) and do not ask "
        "for more. The driver does not push harder: its allocations may fail (__GFP_NORETRY), and "
        "then it sleeps 200 ms before it tries again (fill_balloon), for as long as the target "
        "stays."
    )
    needs = ("episodes", "phases.fill.sleeps")

    def check(self, results: Results) -> Evidence | None:
        """Look at each inflate episode, and at what came after a target was reached; the evidence
        is the one's that slept longest."""
        inflations = inflations_of(results)
        hit = [(number, row) for number, row in inflations if self._out_of_puff(row)]
        after = [
            row
            for row in results["periods"].tables["after"]
            if (row["sleeps"] or 0) >= PUFFS
            and row["end_pages"] < row["target_pages"]
            and not BusyNoOp.is_no_op(row)
        ]
        slept_s = max((float(row["sleep_s"]) for _, row in hit), default=0.0)
        if after and max(float(row["sleep_s"]) for row in after) > slept_s:
            return _after(after, len(hit), len(inflations))
        if not hit:
            return None
        number, worst = max(hit, key=lambda pair: float(pair[1]["sleep_s"]))
        keys = ("start_s", "end_s", "outcome", "target_pages", "end_pages", "sleeps", "sleep_s")
        numbers = {
            "episode": number,
            "episodes": len(hit),
            "of_episodes": len(inflations),
            "targets": len(after),
            **{key: worst[key] for key in (*keys, "first_sleep_s", "longest_no_progress_s")},
            "short_pages": worst["target_pages"] - worst["end_pages"],
        }
        if worst["outcome"] == "reached":
            sure = "medium", "memory came free in the end: the target was late, not out of reach"
        else:
            sure = "high", _CERTAIN
        return Evidence(numbers, _sentence(numbers), *sure)

    def _out_of_puff(self, episode: dict[str, Any]) -> bool:
        stood_still_s = episode["longest_no_progress_s"] or 0
        late = episode["outcome"] != "reached" or stood_still_s >= STANDSTILL_S
        slept = (episode["sleeps"] or 0) >= PUFFS
        return late and slept and not BusyNoOp.is_no_op(episode)


def _after(after: list[dict[str, Any]], hit: int, inflations: int) -> Evidence:
    """The evidence of a target that was reached and could not be held; hit: so many inflations
    show the same."""
    worst = max(after, key=lambda row: float(row["sleep_s"]))
    keys = ("reached_s", "end_s", "target_pages", "end_pages", "sleeps", "sleep_s")
    numbers = {
        "episodes": hit,
        "of_episodes": inflations,
        "targets": len(after),
        **{key: worst[key] for key in keys},
        "short_pages": worst["target_pages"] - worst["end_pages"],
    }
    said = (
        f"{_in_how_many(numbers)}The target of {numbers['target_pages']:,} pages was reached at "
        f"{numbers['reached_s']:.1f} s and could not be held: until {numbers['end_s']:.1f} s the "
        f"driver slept {numbers['sleeps']:,} times for want of a page, {numbers['sleep_s']:.1f} s "
        f"in all, and ended {numbers['short_pages']:,} pages short."
    )
    return Evidence(numbers, said, "high", _CERTAIN)


def _in_how_many(numbers: dict[str, Any]) -> str:
    return in_how_many(
        numbers["episodes"], numbers["of_episodes"], "inflations", numbers["targets"]
    )


_CERTAIN = "each sleep is the driver's own answer to a failed allocation"


def _sentence(numbers: dict[str, Any]) -> str:
    """The evidence in words."""
    short = numbers["short_pages"]
    ended = (
        "the target was reached in the end"
        if numbers["outcome"] == "reached"
        else f"it ended {short:,} pages short of its target of {numbers['target_pages']:,} "
        f"({numbers['outcome']})"
    )
    return (
        f"{_in_how_many(numbers)}Episode {numbers['episode']}, {numbers['start_s']:.1f} s to "
        f"{numbers['end_s']:.1f} s: "
        f"inflation slept {numbers['sleeps']:,} times for want of a page, "
        f"{numbers['sleep_s']:.1f} s in all, first at {numbers['first_sleep_s']:.1f} s; {ended}. "
        f"Longest time without progress {said_s(numbers['longest_no_progress_s'])}."
    )
