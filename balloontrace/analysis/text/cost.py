# SPDX-License-Identifier: Apache-2.0
"""What ballooning cost, for a terminal: of each episode, and to the tasks that had to help."""

from __future__ import annotations

from typing import Any

from balloontrace.analysis.base import Result
from balloontrace.analysis.questions.delays import DELAYS
from balloontrace.analysis.text.writer import DIM, Page, count, number, percent, seconds
from balloontrace.analysis.trace.causes import actor_name

SHOWN_TASKS = 10
"""Tasks without -v; all of them are in --json."""

OF_MEMORY = ("reclaim", "thrashing", "compact", "swapin")
"""Delays that lack of memory makes."""


def episodes(page: Page, rows: list[tuple[int, dict[str, Any]]]) -> None:
    """What each of these episodes, with its number, moved and gained a second, and cost."""
    page.table(
        [
            "#",
            "GiB/s\nmoved",
            "GiB/s\nnet",
            "busy",
            "of one\nCPU",
            "PSI\nsome",
            "PSI\nfull",
            "PSI\nwatched",
        ],
        [
            [
                str(number_),
                number(row["moved_gib_per_s"], 3),
                number(row["net_gib_per_s"], 3),
                seconds(row["driver_busy_s"]),
                percent(row["driver_busy_share"]),
                *(seconds(row[f"psi_{what}_s"]) for what in ("some", "full", "span")),
            ]
            for number_, row in rows
        ],
    )


def cost(page: Page, result: Result, verbose: bool) -> None:
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
    else:
        shown = others if verbose else others[:SHOWN_TASKS]
        page.table(
            [
                *("<stalled in the driver", "calls", "in all", "longest", "host ack"),
                *("pages out", "migrated"),
            ],
            [
                [
                    actor_name(row),
                    count(row["calls"]),
                    seconds(row["stalled_s"]),
                    seconds(row["longest_s"]),
                    seconds(row["host_ack_s"]),
                    count(row["freed_pages"]),
                    count(row["migrated_pages"]),
                ]
                for row in shown
            ],
        )
        if len(others) > len(shown):
            page.line(f"and {len(others) - len(shown):,} more tasks (-v shows all)", DIM)
    for row in rows:
        if row["actor_kind"] == "recorder":
            page.line(
                f"{actor_name(row)}: {seconds(row['stalled_s'])} in {row['calls']:,} calls, "
                f"{count(row['freed_pages'])} pages out"
            )
