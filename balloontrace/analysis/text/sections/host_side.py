# SPDX-License-Identifier: Apache-2.0
"""The host's side, for a terminal."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

from balloontrace.analysis.base import Result
from balloontrace.analysis.questions.host_side import HostSide
from balloontrace.analysis.text.rows import write_table
from balloontrace.analysis.text.writer import WARN, Page, count, seconds, times
from balloontrace.escape import visible
from balloontrace.events import BALLOON_PAGE_BYTES


def show(page: Page, result: Result, verbose: bool) -> None:
    """What the guest's pages were worth to the host, each target, and what the host kept from
    running."""
    facts = result.scalars
    targets = [row["target_pages"] for row in result.tables["targets"]]
    page.line(_worth(facts, any(now > last for last, now in pairwise([0, *targets]))))
    page.line(_clocks(facts), WARN if facts["causal"] is False or facts["by_wall_clocks"] else "")
    (table,) = HostSide.section.tables
    write_table(page, table, result.tables["targets"], verbose)
    for text in filter(None, (_processors(facts), _statistics(facts))):
        page.line(text)


def _worth(facts: dict[str, Any], asked: bool) -> str:
    """What the guest moved, and what the host has of it. asked: the host set a larger target."""
    first, last = facts["resident_first_bytes"], facts["resident_last_bytes"]
    moved, freed = facts["moved_pages"], facts["freed_bytes"]
    named = facts["path"].rsplit("/", 1)[-1]
    said = visible(f"{facts['hypervisor'] or 'the hypervisor'} ({named}): ")
    if moved is not None:
        said += f"of {count(moved)} pages moved in and out ({_mib(moved * BALLOON_PAGE_BYTES)}), "
    if first is None:
        return said + "what the host has of the guest's pages is not known: its memory was not told"
    if freed is None:
        had = "what the host has of them is not known" if asked else "none for a larger target"
        return said + f"{had}; its memory {_from_to(first, last)}"
    return said + (
        f"the host had {count(freed // BALLOON_PAGE_BYTES)} ({_mib(freed)}) more at the end of "
        f"each larger target than before it; its memory {_from_to(first, last)} in all"
    )


def _from_to(first: int, last: int) -> str:
    return f"for this guest went from {_mib(first)} to {_mib(last)}"


def _mib(size: int) -> str:
    return f"{size / 2**20:,.1f} MiB"


def _clocks(facts: dict[str, Any]) -> str:
    if facts["causal"] is False:
        return (
            "clocks: the guest read a target before it was set, or the host was told before it was "
            "reached: the two sides do not fit, and no lag between them is told"
        )
    if facts["by_wall_clocks"]:
        return (
            "clocks: NOT COMPARED (host record --ssh); by the wall clocks alone, if they differ by "
            "more than 1 s the guest's lags are wrong"
        )
    if not facts["clock_pairs"]:
        return "clocks: not compared (host record --ssh)"
    jumps = facts["clock_jumps"]
    stood = f"; the guest's stood still {times(jumps)}" if jumps else ""
    known = facts["clock_error_s"]
    within = "" if known is None else f", so lags are known to {seconds(known)}"
    return f"clocks: compared {times(facts['clock_pairs'])}{within}{stood}"


def _processors(facts: dict[str, Any]) -> str:
    ran, waited, stopped = (facts[f"{name}_s"] for name in ("vcpus_ran", "vcpus_waited", "stopped"))
    if ran is None:
        return ""
    said = f"the guest's processors ran {seconds(ran)}, and waited {seconds(waited)} for a CPU"
    return said + (f"; the host had stopped the guest for {seconds(stopped)}" if stopped else "")


def _statistics(facts: dict[str, Any]) -> str:
    oldest, interval = facts["statistics_oldest_s"], facts["statistics_interval_s"]
    if oldest is None:
        return ""
    return f"statistics: asked every {seconds(interval)}, at most {seconds(oldest)} old"
