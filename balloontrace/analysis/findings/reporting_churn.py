# SPDX-License-Identifier: Apache-2.0
"""Pages that the guest reports as free and takes again, over and over."""

from __future__ import annotations

from typing import Any

from balloontrace.analysis.findings.base import Evidence, Finding, Results
from balloontrace.analysis.findings.guest_ram import most_ram
from balloontrace.events import BALLOON_PAGE_BYTES


class ReportingChurn(Finding):
    """The host is given, and has to give back, the same memory again and again."""

    id = "reporting-churn"
    severity = "medium"
    title = "Free page reporting churns: pages are reported, taken, and reported again"
    remedy = (
        "Turn free page reporting off for a guest that is busy, or until it is idle (QEMU: "
        "free-page-reporting=off; Firecracker: free_page_reporting of the balloon), or let it "
        "report larger blocks only (/sys/module/page_reporting/parameters/page_reporting_order in "
        "the guest: a block of that order, 4 KiB times a power of two). Each page that was "
        "reported costs the host a call to give it up, and the guest a fault when it takes it."
    )
    needs = ("free_pages.reporting.pages", "memory.ram_bytes")
    possible = "free_pages.reporting_offered"

    TIMES_A_MINUTE = 4.0
    """So many times the guest's memory within a minute. A page that was reported (PageReported) is
    reported again only after somebody took and freed it, or its neighbour, with which it then makes
    one block. Guests that start and end programs all the time showed 2."""

    TIMES = 5.0
    """And in all: at least four times was all of the guest's memory reported again."""

    def check(self, results: Results) -> Evidence | None:
        """Look at the whole, and at the busiest minute."""
        facts = results["free_pages"].scalars["reporting"]
        memory = (most_ram(results) or 0) // BALLOON_PAGE_BYTES
        most = facts["most_pages_per_minute"] or 0
        if most < self.TIMES_A_MINUTE * memory or facts["pages"] < self.TIMES * memory:
            return None
        keys = ("calls", "pages", "total_s", "share", "most_pages_per_minute", "most_from_s",
                "least_free_pages", "most_free_pages")  # fmt: skip
        numbers = {
            **{key: facts[key] for key in keys},
            "memory_pages": memory,
            "times_the_memory": facts["pages"] / memory,
            "again_pages": facts["pages"] - memory,
        }
        return Evidence(numbers, _sentence(numbers), "medium", _CERTAIN)


_CERTAIN = (
    "a page is reported twice only if it, or its neighbour, was in use between; what the faults "
    "cost was not recorded"
)


def _sentence(numbers: dict[str, Any]) -> str:
    """The evidence in words."""
    least, most = numbers["least_free_pages"], numbers["most_free_pages"]
    free = ""
    if least is not None:
        low, high = (pages * BALLOON_PAGE_BYTES / 2**20 for pages in (least, most))
        free = f" Free memory was between {low:,.0f} and {high:,.0f} MiB."
    return (
        f"{numbers['calls']:,} reports told the host of {numbers['pages']:,} pages, "
        f"{numbers['times_the_memory']:.1f} times the guest's memory: at least "
        f"{numbers['again_pages']:,} again, after they or their neighbours had been in use. In the "
        f"busiest minute, from {numbers['most_from_s']:.1f} s on, it was "
        f"{numbers['most_pages_per_minute']:,}. The reports took {numbers['total_s']:.1f} s "
        f"({numbers['share'] * 100:.0f} % of the time).{free}"
    )
