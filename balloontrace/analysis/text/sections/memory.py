# SPDX-License-Identifier: Apache-2.0
"""The guest's memory beside its balloon, for a terminal."""

from __future__ import annotations

from typing import Any

from balloontrace.analysis.base import Result
from balloontrace.analysis.questions.memory import Memory
from balloontrace.analysis.text.rows import write_table
from balloontrace.analysis.text.writer import ABSENT, BAD, WARN, Page, count, mib, number, percent


def show(page: Page, result: Result, verbose: bool) -> None:
    """Size and share, what was left, pressure, and the counters that moved."""
    facts, tables = result.scalars, {table.name: table for table in Memory.section.tables}
    page.line(_balloon(facts))
    if facts["kernel_size_difference_pages"]:
        page.line(
            f"nr_balloon_pages of /proc/vmstat is {count(facts['kernel_size_pages'])} pages in the "
            f"last sample, {count(facts['kernel_size_difference_pages'])} more than the size here",
            WARN,
        )
    page.line(_left(facts))
    rates = result.tables["rates"]
    write_table(page, tables["rates"], [row for row in rates if row["total"] or verbose], True)
    if still := [row["what"] for row in rates if not row["total"] and not verbose]:
        page.line(f"none: {', '.join(still)}")
    if facts["committed_most_share"] is not None and (
        verbose or facts["committed_most_share"] >= COMMITTED_SHARE
    ):
        mode = f"; overcommit: {facts['overcommit']}" if facts["overcommit"] else ""
        page.line(
            f"committed: {_mib(facts['committed_most_bytes'])} at most, "
            f"{percent(facts['committed_most_share'])} of the limit{mode}"
        )
    if any(facts[f"{name}_cpu_share"] is not None for name in _THREADS):
        shares = (
            f"{said} {percent(facts[f'{name}_cpu_share'])}" for name, said in _THREADS.items()
        )
        page.line(f"of one CPU: {', '.join(shares)}")
    for name, style in (("ram_changes", WARN), ("starved", BAD), ("kills", BAD)):
        if result.tables[name]:
            page.line(_HEADS[name], style)
            write_table(page, tables[name], result.tables[name], verbose)


COMMITTED_SHARE = 0.9
"""From this share of CommitLimit on committed memory is worth a line."""

_THREADS = {"kswapd": "kswapd", "kcompactd": "kcompactd", "kworker": "size worker at most"}

_HEADS = {
    "ram_changes": "RAM changed:",
    "starved": "starving while the balloon stood still:",
    "kills": "OOM kills by the kernel's count:",
}


def _balloon(facts: dict[str, Any]) -> str:
    """RAM, and the balloon in it."""
    ram = facts["ram_bytes"]
    said = "RAM: not known" if ram is None else f"RAM: {_mib(ram)}"
    if ram is not None and facts["total_lowered"] and facts["size_most_pages"]:
        said += " (MemTotal and the balloon: without deflate_on_oom the driver lowers MemTotal)"
    begin, end, most = (facts[f"size_{at}_pages"] for at in ("begin", "end", "most"))
    if most is None:
        return f"{said}; the balloon's size is not known"
    share = "" if facts["size_most_share"] is None else f" ({percent(facts['size_most_share'])})"
    if begin == end == most:
        return f"{said}; in the balloon all the time: {mib(most)} MiB{share}"
    return (
        f"{said}; in the balloon: {mib(begin)} MiB at the begin, {mib(end)} at the end, "
        f"{mib(most)} at most{share}"
    )


def _left(facts: dict[str, Any]) -> str:
    """What was available, and the pressure."""
    least, median = facts["available_least_bytes"], facts["available_median_bytes"]
    at = f"at {number(facts['available_least_at_s'], 1)} s"
    available = (
        "MemAvailable: not recorded"
        if least is None
        else f"MemAvailable: least {_mib(least)} ({at}), median {_mib(median)}"
    )
    if facts["psi_some_share"] is None:
        return f"{available}; memory pressure (PSI): not recorded"
    shares = (
        f"{share} {percent(facts[f'psi_{share}_share'])} of the time"
        f" (worst minute {percent(facts[f'psi_{share}_worst_share'])})"
        for share in ("some", "full")
    )
    return f"{available}; memory pressure (PSI): {', '.join(shares)}"


def _mib(size: int | None) -> str:
    return ABSENT if size is None else f"{size / 2**20:,.0f} MiB"
