# SPDX-License-Identifier: Apache-2.0
"""The size worker takes pages in and out again and again under one target."""

from __future__ import annotations

from typing import Any

from balloontrace.analysis.findings.base import (
    Evidence,
    Finding,
    Results,
    in_how_many,
    pages_of_page,
    said_s,
)


class Oscillation(Finding):
    """The driver never comes to rest at its target."""

    id = "oscillation"
    severity = "high"
    title = "Oscillation: the driver moves pages in and out under one target"
    remedy = (
        "Where the guest's pages are larger than 4 KiB: run a kernel with Linux commit "
        '07622bd41563 ("virtio_balloon: Fix endless deflation and inflation on arm64"), or set '
        "targets in multiples of the guest's page (64 KiB: 16 balloon pages). A target between two "
        "pages can never be met: the driver overshoots it, gives the page back, and takes it again."
    )
    needs = ("periods", "periods.targets_whole")

    TURNS = 20
    """Ten times in and out. A driver that works turns around never: it moves toward its target, and
    what others take out (reclaim, the OOM notifier) it only takes in again."""

    def check(self, results: Results) -> Evidence | None:
        """Look at what the size worker did after each target was reached."""
        rows = results["periods"].tables["after"]
        hit = [row for row in rows if row["turns"] >= self.TURNS]
        if not hit:
            return None
        worst = max(hit, key=lambda row: int(row["turns"]))
        unit = pages_of_page(results)
        numbers = {
            "targets": len(hit),
            "of_targets": len(rows),
            "cycles": worst["turns"] // 2,
            **{key: worst[key] for key in _KEYS},
            "pages_each": worst["inflated_pages"] / (worst["turns"] / 2),
            "rate_per_s": worst["turns"] / 2 / max(1e-9, worst["end_s"] - worst["reached_s"]),
            "page_pages": unit,
            "target_is_multiple": worst["target_pages"] % unit == 0,
        }
        return Evidence(numbers, _sentence(numbers), *_certainty(numbers))


_KEYS = ("target_pages", "reached_s", "end_s", "inflated_pages", "deflated_pages", "least_pages",
         "most_pages")  # fmt: skip


def _certainty(numbers: dict[str, Any]) -> tuple[str, str]:
    if numbers["target_is_multiple"]:
        return "medium", "every turn was seen, but the target is a multiple of the guest's page"
    return "high", "every turn was seen, and the target lies between two pages of the guest"


_PERIODS = "periods after a target had been reached"


def _sentence(numbers: dict[str, Any]) -> str:
    """The evidence in words."""
    unit = numbers["page_pages"]
    multiple = "a multiple" if numbers["target_is_multiple"] else "no multiple"
    return (
        f"{in_how_many(numbers['targets'], numbers['of_targets'], _PERIODS)}"
        f"The target of {numbers['target_pages']:,} pages was reached at "
        f"{numbers['reached_s']:.1f} s; in the {said_s(numbers['end_s'] - numbers['reached_s'])} "
        f"until {numbers['end_s']:.1f} s the size worker took pages in and out "
        f"{numbers['cycles']:,} times, {numbers['pages_each']:,.0f} pages each, "
        f"{numbers['inflated_pages']:,} in and {numbers['deflated_pages']:,} out, between "
        f"{numbers['least_pages']:,} and {numbers['most_pages']:,}. "
        f"The target is {multiple} of the guest's page "
        f"({unit:,} balloon pages)."
    )
