# SPDX-License-Identifier: Apache-2.0
"""The guest's RAM, the balloon's pages among it, by which findings measure."""

from __future__ import annotations

from balloontrace.analysis.findings.base import Results


def ram_at(results: Results, at_s: float) -> int:
    """Bytes at a moment; `memory.ram_bytes` is known."""
    ram = int(results["memory"].scalars["ram_bytes"])
    for change in results["memory"].tables["ram_changes"]:
        if change["at_s"] <= at_s:
            ram = int(change["ram_bytes"])
    return ram


def most_ram(results: Results) -> int | None:
    """Bytes at most, at any time; None: not known."""
    ram = results["memory"].scalars["ram_bytes"]
    if ram is None:
        return None
    later = (int(row["ram_bytes"]) for row in results["memory"].tables["ram_changes"])
    return max([int(ram), *later])
