# SPDX-License-Identifier: Apache-2.0
"""Between two calls of the OOM notifier, reclaim evicts the programs that run."""

from __future__ import annotations

from typing import Any

from balloontrace.analysis.findings.base import (
    Evidence,
    Finding,
    Results,
    in_how_many,
    said_waits,
)


class OomThrash(Finding):
    """The near-livelock: the guest reads its own programs again and again."""

    id = "oom-thrash"
    severity = "high"
    title = "Near-livelock: the guest reads its programs again and again to get 1 MiB at a time"
    remedy = (
        "Deflate from the host before the guest is so short of memory that the OOM notifier is its "
        "only source: lower the target as long as MemAvailable (QEMU: guest-stats) is under a "
        "reserve. In the guest, give reclaim something else to take than the text of the programs "
        "that run (swap, zram), or keep the important ones in memory (mlock, memory.min of their "
        "cgroup). Reclaim that evicts such pages counts as progress, so the kernel does not call "
        "the OOM killer (should_reclaim_retry, mm/page_alloc.c), and with it the notifier, until "
        "it has evicted nearly all of them."
    )
    needs = ("oom.notifier_calls",)

    REFAULTS_PER_PAGE = 16.0
    """File pages read again for each page that the notifier gave back. In a guest that crawls it
    was 30 to 172 (5.10), in one that got on 7 to 9 (6.1), and about 0.25 where the program that
    needed memory was locked in it."""

    REFAULTED_PAGES = 16_384
    """And at least 64 MiB read again, more than the programs of a small guest have of text."""

    FULL_SHARE = 0.05
    """And in so much of the time no task at all could run for lack of memory (PSI full): reading
    files again is no harm to a guest that has something else to do meanwhile. A crawling guest
    showed 0.6 on a quiet machine, and 0.1 where its CPUs were starved as well."""

    def check(self, results: Results) -> Evidence | None:
        """Look at each bout of the notifier; the evidence is the worst one's."""
        hit = [bout for bout in results["oom"].tables["bouts"] if self._shown_by(bout)]
        if not hit:
            return None
        worst = max(hit, key=lambda bout: int(bout["refaulted_pages"]))
        keys = ("start_s", "end_s", "refaulted_pages", "some_share", "full_share", "sampled_s")
        numbers = {
            "bouts": len(hit),
            "of_bouts": len(results["oom"].tables["bouts"]),
            **{key: worst[key] for key in keys},
            "calls": worst["calls"] + worst["recorder_calls"],
            "pages": _given_back(worst),
            "refaults_per_page": worst["refaulted_pages"] / _given_back(worst),
            "given_back_bytes_per_s": _given_back(worst) * 4096 / worst["sampled_s"],
        }
        certain = worst["full_share"] is not None
        return Evidence(
            numbers,
            _sentence(numbers),
            "medium" if certain else "low",
            "the guest's counters and its PSI say so; which pages were read again they do not say"
            if certain
            else "PSI was not recorded: whether tasks had to wait for these reads is not known",
        )

    def _shown_by(self, bout: dict[str, Any]) -> bool:
        refaulted, full = bout["refaulted_pages"], bout["full_share"]
        return (
            refaulted is not None
            and _given_back(bout) > 0
            and refaulted >= self.REFAULTED_PAGES
            and refaulted >= self.REFAULTS_PER_PAGE * _given_back(bout)
            and (full is None or full >= self.FULL_SHARE)
        )


def _given_back(bout: dict[str, Any]) -> int:
    """Pages, to whomever: the refaults are of the whole guest, too."""
    return int(bout["pages"] + bout["recorder_pages"])


def _sentence(numbers: dict[str, Any]) -> str:
    """The evidence in words."""
    stalled = said_waits(numbers["some_share"], numbers["full_share"])
    return (
        f"{in_how_many(numbers['bouts'], numbers['of_bouts'], 'bouts')}"
        f"From {numbers['start_s']:.1f} s to {numbers['end_s']:.1f} s the OOM notifier gave back "
        f"{numbers['pages']:,} pages in {numbers['calls']:,} calls "
        f"({numbers['given_back_bytes_per_s'] / 2**20:.2f} MiB/s). "
        f"In the {numbers['sampled_s']:.1f} s around it the guest read "
        f"{numbers['refaulted_pages']:,} pages of files again that reclaim had evicted,"
        f" {numbers['refaults_per_page']:.0f} for each page it got; {stalled}."
    )
