# SPDX-License-Identifier: Apache-2.0
"""What lack of memory cost and did, for a terminal: phases, OOM, free pages, task delays."""

from __future__ import annotations

from typing import Any

from balloontrace.analysis.base import Result
from balloontrace.analysis.questions.delays import DELAYS
from balloontrace.analysis.questions.host_acks import SLOW_S
from balloontrace.analysis.text.writer import (
    ABSENT,
    BAD,
    DIM,
    WARN,
    Page,
    count,
    number,
    percent,
    seconds,
)

SHOWN_KILLS = 10
"""Victims without -v; all of them are in --json."""


SHOWN_TASKS = 10
"""Tasks with delays without -v."""


def phases(page: Page, result: Result, verbose: bool) -> None:
    """Where the time of fills and leaks went."""
    rows = [_phase(kind, row) for kind, row in result.scalars.items() if row is not None]
    if rows:
        columns = ["<call", "calls", "total", "per call", "host ack", "share", "the rest", "GiB/s"]
        page.table(columns, rows)
    if result.scalars["fill"] is not None:
        _allocation(page, result.scalars["fill"], verbose)


def _phase(kind: str, row: dict[str, Any]) -> list[str]:
    return [
        kind,
        count(row["calls"]),
        seconds(row["total_s"]),
        seconds(row["total_s"] / row["calls"] if row["calls"] else None),
        seconds(row["host_ack_s"]),
        percent(row["host_ack_share"]),
        seconds(row["rest_s"]),
        number(row["gib_per_s"], 3),
    ]


def _allocation(page: Page, fill: dict[str, Any], verbose: bool) -> None:
    """What the fills' allocations did: only what happened, verbose: all that was recorded."""
    freed = fill["reclaimed_pages"]
    said = {
        "Out of puff": ("sleeps", "sleep_s", ""),
        "direct reclaim": ("reclaims", "reclaim_s", f", {count(freed)} pages reclaimed"),
        "compaction": ("compactions", "compact_s", ""),
    }
    shown = [
        f"{title}: {_times(fill[calls])}, {seconds(fill[time])}"
        f" ({percent(fill[time] / fill['total_s'] if fill['total_s'] else None)} of all fills)"
        f"{more}"
        for title, (calls, time, more) in said.items()
        if fill[calls] or (verbose and fill[calls] is not None)
    ]
    if fill["kswapd_wakes"] or (verbose and fill["kswapd_wakes"] is not None):
        shown.append(f"kswapd woken: {_times(fill['kswapd_wakes'])}")
    for line in shown:
        page.line(line)


def _times(times: int) -> str:
    return "once" if times == 1 else f"{times:,} times"


def _calls(calls: int) -> str:
    return "1 call" if calls == 1 else f"{calls:,} calls"


def host_was_slow(result: Result) -> bool:
    """Whether the host let the driver wait: its ordinary answers stand in the phases."""
    return not result.missing and any(row["slow"] for row in result.tables["queues"])


def host_acks(page: Page, result: Result, verbose: bool) -> None:
    """How long the host took to answer, by virtqueue."""
    page.table(
        ["<queue", "acks", "pages", "total", "median", "longest", "slow", "of slow ones"],
        [
            [
                row["queue"],
                count(row["acks"]),
                count(row["pages"]),
                seconds(row["total_s"]),
                seconds(row["median_s"]),
                seconds(row["longest_s"]),
                count(row["slow"]),
                seconds(row["slow_s"]),
            ]
            for row in result.tables["queues"]
        ],
    )
    page.line(f"slow: {SLOW_S * 1000:.0f} ms or more", DIM)


def oom(page: Page, result: Result, verbose: bool) -> None:
    """What the OOM notifier gave back, then the victims."""
    facts, kills = result.scalars, result.tables["kills"]
    calls = facts["notifier_calls"]
    if calls:
        vain = facts["notifier_calls_in_vain"]
        page.line(
            f"the OOM killer asked the balloon {_times(calls)}: it gave back "
            f"{count(facts['notifier_pages'])} pages in {seconds(facts['notifier_s'])}"
            + (f"; it had nothing {_times(vain)}" if vain else "")
        )
    elif calls == 0:
        page.line("the OOM killer did not ask the balloon")
    counted = facts["vmstat_killed"]
    if facts["killed"] == 0 and not counted:
        page.line("nobody was killed")
    if counted is not None and counted != (facts["killed"] or 0):
        here = "none" if facts["killed"] is None else f"{facts['killed']:,}"
        page.line(f"/proc/vmstat counted OOM kills: {counted:,}, of which are here: {here}", WARN)
    if not facts["killed"]:
        return
    page.line(f"OOM kills: {facts['killed']:,}", BAD)
    shown = kills if verbose else kills[:SHOWN_KILLS]
    page.table(
        ["at s", "<victim", "pid", "<out of memory", "<who needed it", "pid"],
        [_kill(row) for row in shown],
    )
    if len(kills) > len(shown):
        page.line(f"and {len(kills) - len(shown):,} more kills (-v shows all)", DIM)


def _kill(row: dict[str, Any]) -> list[str]:
    return [
        number(row["at_s"], 1),
        _name(row["victim"]),
        _pid(row["victim_pid"]),
        {True: "a memory cgroup", False: "the guest", None: ABSENT}[row["memcg"]],
        _name(row["needed_by"]),
        _pid(row["needed_by_pid"]),
    ]


def _name(name: str | None) -> str:
    return ABSENT if name is None else f"task {name}"


def _pid(pid: int | None) -> str:
    return ABSENT if pid is None else str(pid)


def recorded(result: Result) -> bool:
    """Whether there is an answer: few devices take free pages, few recordings have task delays."""
    return not result.missing


def free_pages(page: Page, result: Result, verbose: bool) -> None:
    """Free page reporting and hinting, what of them was recorded."""
    reporting, hinting = result.scalars["reporting"], result.scalars["hinting"]
    if reporting is not None:
        page.line(
            f"reporting: {_calls(reporting['calls'])}, {count(reporting['pages'])} pages "
            f"reported, {seconds(reporting['total_s'])}"
            + (f", refused {_times(reporting['refused'])}" if reporting["refused"] else "")
        )
    if hinting is not None:
        page.line(
            f"hinting: {_calls(hinting['calls'])}, {count(hinting['lent_pages'])} pages lent, "
            f"{count(hinting['returned_pages'])} taken back, {seconds(hinting['total_s'])}"
        )


def delays(page: Page, result: Result, verbose: bool) -> None:
    """What tasks waited for, those that waited longest for memory first."""
    rows = result.tables["tasks"]
    shown = rows if verbose else rows[:SHOWN_TASKS]
    page.table(
        ["<task", "tid", *DELAYS],
        [
            [
                row["comm"],
                str(row["tid"]),
                *(seconds(row[f"{delay}_s"]) for delay in DELAYS),
            ]
            for row in shown
        ],
    )
    if len(rows) > len(shown):
        page.line(f"and {len(rows) - len(shown):,} more tasks (-v shows all)", DIM)
