# SPDX-License-Identifier: Apache-2.0
"""What ballooning cost, for a terminal: in all, and to the tasks that had to help."""

from __future__ import annotations

from typing import Any

from balloontrace.analysis.base import Result
from balloontrace.analysis.questions.cost import Cost
from balloontrace.analysis.questions.delays import DELAYS
from balloontrace.analysis.text.rows import write_table
from balloontrace.analysis.text.writer import Page, count, percent, seconds
from balloontrace.analysis.trace.causes import actor_name

OF_MEMORY = ("reclaim", "thrashing", "compact", "swapin")
"""Delays that lack of memory makes."""


def show(page: Page, result: Result, verbose: bool) -> None:
    """Busy time, pressure and delays of the whole recording, then who was stalled."""
    facts = result.scalars
    page.line(_busy(facts))
    page.line(_pressure(facts))
    if facts["delays"]:
        page.line(_delays(facts["delays"], verbose))
    _tasks(page, result.tables["tasks"], verbose)


def _busy(facts: dict[str, Any]) -> str:
    busy, share = facts["driver_busy_s"], facts["driver_busy_share"]
    if busy is None:
        return "busy in the driver: not recorded"
    return (
        f"busy in the driver: {seconds(busy)}, {percent(share)} of one CPU "
        "(wall clock in its calls without sleeps and waits for the host)"
    )


def _pressure(facts: dict[str, Any]) -> str:
    if facts["psi_span_s"] is None:
        return "memory pressure (PSI): not recorded"
    return (
        f"memory pressure (PSI): some task stalled {seconds(facts['psi_some_s'])}, all of them "
        f"{seconds(facts['psi_full_s'])}, of {seconds(facts['psi_span_s'])}"
    )


def _delays(delays: dict[str, Any], verbose: bool) -> str:
    """The sums over all tasks that were read; the tasks are in a section of their own."""
    shown = DELAYS if verbose else OF_MEMORY
    tasks = delays["tasks"]
    who = "the one task that was" if tasks == 1 else f"{tasks:,} tasks that were"
    if all(delays[f"{delay}_s"] is None for delay in shown):
        return f"delays of {who} read: not known (see Delays)"
    said = ", ".join(f"{delay} {seconds(delays[f'{delay}_s'])}" for delay in shown)
    unknown = f", {delays['unknown']:,} of them unknown" if delays["unknown"] else ""
    return f"delays of {who} read{unknown}: {said}"


def _tasks(page: Page, rows: list[dict[str, Any]], verbose: bool) -> None:
    """Tasks that were in the driver's code, the tracer's own processes apart."""
    others = [row for row in rows if row["actor_kind"] != "recorder"]
    if not others:
        page.line("no task but the size worker was in the driver's code")
    named = [{**row, "actor": actor_name(row)} for row in others]
    write_table(page, Cost.section.tables[0], named, verbose)
    for row in rows:
        if row["actor_kind"] == "recorder":
            page.line(
                f"{actor_name(row)}: {seconds(row['stalled_s'])} in {row['calls']:,} calls, "
                f"{count(row['freed_pages'])} pages out"
            )
