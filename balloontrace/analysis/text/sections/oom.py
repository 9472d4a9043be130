# SPDX-License-Identifier: Apache-2.0
"""What the OOM notifier gave back, then the victims, for a terminal."""

from __future__ import annotations

from typing import Any

from balloontrace.analysis.base import Result
from balloontrace.analysis.text.rows import SHOWN_ROWS, in_groups, more
from balloontrace.analysis.text.writer import ABSENT, BAD, WARN, Page, count, number, seconds, times


def show(page: Page, result: Result, verbose: bool) -> None:
    """What the OOM notifier gave back, then the victims."""
    facts, kills = result.scalars, result.tables["kills"]
    calls = facts["notifier_calls"]
    if calls:
        vain = facts["notifier_calls_in_vain"]
        page.line(
            f"the OOM killer asked the balloon {times(calls)}: it gave back "
            f"{count(facts['notifier_pages'])} pages in {seconds(facts['notifier_s'])}"
            + (f"; it had nothing {times(vain)}" if vain else "")
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
    shown = kills if verbose else kills[:SHOWN_ROWS]
    page.table(
        ["at s", "<victim", "pid", "<out of memory", "<who needed it", "pid"],
        [_kill(row) for row in shown],
    )
    more(page, len(kills) - len(shown), "kills")


def _kill(row: dict[str, Any]) -> list[str]:
    return [
        number(row["at_s"], 1),
        _name(row["victim"]) + in_groups([row["victim_cgroup"]] if row["victim_cgroup"] else []),
        _pid(row["victim_pid"]),
        {True: "a memory cgroup", False: "the guest", None: ABSENT}[row["memcg"]],
        _name(row["needed_by"]),
        _pid(row["needed_by_pid"]),
    ]


def _name(name: str | None) -> str:
    return ABSENT if name is None else f"task {name}"


def _pid(pid: int | None) -> str:
    return ABSENT if pid is None else str(pid)
