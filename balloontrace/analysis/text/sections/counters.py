# SPDX-License-Identifier: Apache-2.0
"""What the guest's own counters say, for a terminal."""

from __future__ import annotations

from typing import Any

from balloontrace.analysis.base import Result
from balloontrace.analysis.questions.counters import Counters
from balloontrace.analysis.text.rows import write_table
from balloontrace.analysis.text.writer import Page, count, seconds


def show(page: Page, result: Result, verbose: bool) -> None:
    """Moves in both directions, pressure, and CPU time."""
    facts = result.scalars
    page.line(
        f"{count(facts['readings'])} readings; pages went in and out between the same two for "
        f"{seconds(facts['back_and_forth_s'])}"
    )
    (table,) = Counters.section.tables
    write_table(page, table, result.tables[table.name], verbose)
    page.line(
        f"memory pressure: some {seconds(facts['psi_some_s'])}, full "
        f"{seconds(facts['psi_full_s'])}, of {seconds(facts['psi_span_s'])}"
    )
    page.line(f"CPU time: {_cpu(facts)}")


def _cpu(facts: dict[str, Any]) -> str:
    return (
        f"kswapd {seconds(facts['kswapd_cpu_s'])}, kcompactd {seconds(facts['kcompactd_cpu_s'])}, "
        f"size worker {seconds(facts['kworker_cpu_s'])} at most (it shares its threads)"
    )
