# SPDX-License-Identifier: Apache-2.0
"""The guest gives its memory, and the host has none of it."""

from __future__ import annotations

from typing import Any

from balloontrace.analysis.findings.base import Evidence, Finding, Results
from balloontrace.events import BALLOON_PAGE_BYTES

OWN_BYTES = 384 << 20
"""At most, of what the hypervisor's process has beside the guest's RAM: QEMU's translated code
alone may be 256 MiB (-accel tcg,tb-size)."""


class HostGainsNothing(Finding):
    """Inflation took pages that the host had backed, and its memory did not fall."""

    id = "host-gains-nothing"
    severity = "high"
    title = "The host gains nothing from what the guest gives"
    remedy = (
        "See what keeps the guest's memory: locked pages (QEMU -overcommit mem-lock=on), huge "
        "pages of hugetlbfs, a device that is passed through (VFIO pins all memory; QEMU then "
        "ignores the balloon's pages), a snapshot or memory file that maps pages privately. As "
        "long as one of them is there, a balloon costs the guest memory and gives the host none."
    )
    needs = ("host_side.memory_bytes", "host_side.resident_first_bytes", "episodes")
    of_both_sides = True

    LEAST_BYTES = 64 << 20
    """That the host should have got: less may be lost in what its own process takes meanwhile."""
    FALLEN_SHARE = 0.1

    def check(self, results: Results) -> Evidence | None:
        """Look at each target that was reached by inflation; the evidence is the largest one's."""
        result = results["host_side"]
        facts = result.scalars
        hit = [
            (due, row)
            for row in result.tables["targets"]
            if (due := _due(row, facts)) >= self.LEAST_BYTES
            and row["resident_before_bytes"] - row["resident_after_bytes"] < self.FALLEN_SHARE * due
        ]
        if not hit:
            return None
        due, row = max(hit, key=lambda pair: pair[0])
        kept = _kept_by(facts)
        numbers = {
            "targets": len(hit),
            "due_bytes": due,
            "fallen_bytes": row["resident_before_bytes"] - row["resident_after_bytes"],
            **{key: row[key] for key in ("target_pages", "set_s", "inflated_pages")},
            **{key: facts[key] for key in ("locked_bytes", "hugetlb_bytes", "vfio")},
        }
        if kept:
            return Evidence(numbers, _sentence(numbers, kept), "high", f"the host has {kept}")
        because = "why the host keeps the memory was not seen"
        return Evidence(numbers, _sentence(numbers, ""), "medium", because)


def _due(row: dict[str, Any], facts: dict[str, Any]) -> int:
    """Bytes by which the host's memory must fall at least; 0: nothing is known of it.

    Memory that the guest never touched is nothing to the host, and what is touched meanwhile takes
    memory anew: together that can be no more than what was not backed before.
    """
    before, after = row["resident_before_bytes"], row["resident_after_bytes"]
    into, out = row["inflated_pages"], row["deflated_pages"]
    if None in (before, after, into, out) or row["told_s"] is None:
        return 0
    unbacked = 0 if _kept_by(facts) else max(0, facts["memory_bytes"] + OWN_BYTES - before)
    return max(0, int(into - out) * BALLOON_PAGE_BYTES - unbacked)


def _kept_by(facts: dict[str, Any]) -> str:
    """What is known to keep the guest's memory; empty if nothing is."""
    ram = facts["memory_bytes"]
    reasons = {
        "locked the guest's memory": (facts["locked_bytes"] or 0) >= ram,
        "backed it with huge pages of hugetlbfs": (facts["hugetlb_bytes"] or 0) >= ram // 2,
        "passed a device through to it (VFIO)": bool(facts["vfio"]),
    }
    return next((reason for reason, applies in reasons.items() if applies), "")


def _sentence(numbers: dict[str, Any], kept: str) -> str:
    why = f": it has {kept}" if kept else ""
    return (
        f"For a target of {numbers['target_pages']:,} pages the guest put "
        f"{numbers['inflated_pages']:,} pages into the balloon; the host's memory should have "
        f"fallen by {numbers['due_bytes'] / 2**20:,.0f} MiB at least, and {_fell(numbers)}{why}."
    )


def _fell(numbers: dict[str, Any]) -> str:
    fallen = numbers["fallen_bytes"] / 2**20
    return f"fell by {fallen:,.0f} MiB" if fallen > 0 else f"rose by {-fallen:,.0f} MiB"
