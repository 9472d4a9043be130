# SPDX-License-Identifier: Apache-2.0
"""The shrinker deflates what inflation just took (Linux 4.19 to 5.6)."""

from __future__ import annotations

from typing import Any

from balloontrace.analysis.findings.base import Evidence, Finding, Results, needers, said_needers


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

    RECLAIMED_SHARE = 0.25
    """Of the pages an episode inflated, reclaim took back at least this share: inflation did a
    third more work than was asked. The founding experiment shows 0.8 to 0.9, a driver without a
    balloon shrinker 0."""

    RECLAIMED_PAGES = 2560
    """And at least ten chunks of 256 (10 MiB): a few chunks in a short recording show nothing."""

    def check(self, results: Results) -> Evidence | None:
        """Look at each inflate episode; the evidence is the worst one's."""
        hit = [
            (number, row)
            for number, row in enumerate(results["episodes"].tables["episodes"], start=1)
            if row["direction"] == "inflate"
            and row["reclaimed_pages"] >= self.RECLAIMED_PAGES
            and row["reclaimed_pages"] >= self.RECLAIMED_SHARE * row["inflated_pages"] > 0
        ]
        if not hit:
            return None
        number, worst = max(hit, key=lambda pair: int(pair[1]["reclaimed_pages"]))
        keys = ("inflated_pages", "reclaimed_pages", "asked_pages", "start_s", "end_s", "outcome")
        numbers = {
            "episode": number,
            "episodes": len(hit),
            **{key: worst[key] for key in keys},
            "gained_pages": worst["end_pages"] - worst["start_pages"],
            "reclaimed_share": worst["reclaimed_pages"] / worst["inflated_pages"],
            "longest_no_progress_s": worst["longest_no_progress_s"],
            "reclaimed_by": needers(results["causes"], "shrinker"),
        }
        return Evidence(
            numbers, _sentence(numbers), "high", "each leak was seen inside the shrinker's scan"
        )


def _sentence(numbers: dict[str, Any]) -> str:
    """The evidence of a busy no-op in words."""
    return (
        f"Episode {numbers['episode']}, {numbers['start_s']:.1f} s to {numbers['end_s']:.1f} s: "
        f"asked to grow by {numbers['asked_pages']:,} pages, the balloon took in "
        f"{numbers['inflated_pages']:,} and grew by {numbers['gained_pages']:,}; "
        f"reclaim took back {numbers['reclaimed_pages']:,} "
        f"({numbers['reclaimed_share'] * 100:.0f} % of what went in). "
        f"Longest time without progress {numbers['longest_no_progress_s']:.1f} s. "
        f"Reclaim was done by: {said_needers(numbers['reclaimed_by'])}."
    )
