# SPDX-License-Identifier: Apache-2.0
"""The driver's comings and goings, for a terminal."""

from __future__ import annotations

from typing import Any

from balloontrace.analysis.base import Result
from balloontrace.analysis.questions.driver import happened
from balloontrace.analysis.text.writer import BAD, Page, count, number, seconds, times
from balloontrace.analysis.trace.gaps import pages_between


def show(page: Page, result: Result, verbose: bool) -> None:
    """Calls and gaps in one table, in order of time."""
    if not happened(result):
        page.line("it neither came nor went")
        return
    rows = [(row["start_s"], _call(row)) for row in result.tables["calls"]]
    rows += [(row["start_s"], _gap(row)) for row in result.tables["gaps"]]
    rows.sort(key=lambda row: float(row[0]))
    if rows:
        head = ["at s", "took", "<what", "<by", "pages out", "<remarks"]
        page.table(head, [row for _, row in rows])
    for row in result.tables["frozen"]:
        if row["calls"]:
            page.line(
                f"while frozen, from {number(row['start_s'], 1)} to {number(row['end_s'], 1)} s, "
                f"the driver was called {times(row['calls'])}",
                BAD,
            )
    if slept_s := result.scalars["suspended_s"]:
        slept = seconds(slept_s)
        page.line(f"the guest was suspended for {slept} in all, which no time here includes")


def _call(row: dict[str, Any]) -> list[str]:
    remark = "failed" if row["failed"] else "still under way at the end" if row["open"] else ""
    return _row(row, row["call"], f"task {row['by']}", count(row["pages"]), remark)


def _gap(row: dict[str, Any]) -> list[str]:
    moved = [
        f"{pages_between(row[key])} {way}"
        for key, way in (("inflated_pages", "in"), ("deflated_pages", "out"))
    ]
    remarks = [f"{' and '.join(moved)} moved unseen"]
    if row["untraceable"]:
        remarks.append(f"a driver that came could not be traced: {row['untraceable']}")
    elif row["open"]:
        remarks.append("no driver was attached to again")
    for key in row["changed"]:
        now = row["driver"][key]
        shown = ", ".join(now) if isinstance(now, list) else now
        remarks.append(f"now {key} {shown or 'none'}")
    state = "untraceable" if row["open"] and row["untraceable"] else row["state"]
    return _row(row, f"not traced ({state})", "", "", "; ".join(remarks))


def _row(row: dict[str, Any], what: str, by: str, pages: str, remark: str) -> list[str]:
    return [
        number(row["start_s"], 1),
        seconds(row["end_s"] - row["start_s"]),
        what,
        by,
        pages,
        remark,
    ]
