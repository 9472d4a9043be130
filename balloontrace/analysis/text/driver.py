# SPDX-License-Identifier: Apache-2.0
"""The driver for a terminal: its comings and goings, and how its seams were traced."""

from __future__ import annotations

from typing import Any

from balloontrace.analysis.base import Result
from balloontrace.analysis.text.writer import DIM, WARN, Page, count, number, seconds
from balloontrace.analysis.trace.gaps import pages_between


def happened(result: Result) -> bool:
    """Whether the driver came or went at all, or the guest slept."""
    return any(result.tables.values()) or bool(result.scalars.get("suspended_s"))


def driver(page: Page, result: Result, verbose: bool) -> None:
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
    if slept_s := result.scalars["suspended_s"]:
        slept = seconds(slept_s)
        page.line(f"the guest was suspended for {slept} in all, which no time here includes")


def untraceable(result: Result) -> list[str]:
    """A driver that was there and could not be traced, in words."""
    return [
        f"UNTRACEABLE: a driver came after {gap['start_s']:,.1f} s: {gap['untraceable']}"
        for gap in result.tables.get("gaps", [])
        if gap["untraceable"]
    ]


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


def seams_lack(recording: Result) -> bool:
    """Whether anything that there was to trace was not traced, or not wholly, or not always so."""
    rows = [row for row in recording.tables["seams"] if row["negotiated"]]
    return not rows or any(row["rung"] is None or row["loses"] or row["later"] for row in rows)


def seams(page: Page, recording: Result, life: Result, verbose: bool) -> None:
    """The seams that lose something; verbose: all."""
    page.heading("Seams")
    rows = recording.tables["seams"]
    if not rows:
        never = "no driver was attached to"
        unknown = "the recording does not say how its events were traced"
        page.line(never if life.tables.get("gaps") else unknown, WARN)
        return
    rows = [row for row in rows if verbose or row["negotiated"]]
    shown = [row for row in rows if verbose or row["rung"] is None or row["loses"]]
    if shown:
        cells = [
            [
                row["seam"],
                row["rung"] or "not attached",
                row["loses"] or row["why_not"],
                count(row["events"]),
            ]
            for row in shown
        ]
        page.table(["<seam", "<traced by", "<loses, or why not", "events"], cells)
    else:
        page.line(f"all {len(rows)} attached, none loses anything")
    for row in recording.tables["seams"]:
        for change in row["later"]:
            now, was = (change[key] or "not attached" for key in ("rung", "was"))
            said = f"from {change['from_s']:,.1f} s on {row['seam']}: {now}, before that {was}"
            if loses := change["loses"] or (change["rung"] is None and change["why_not"]):
                said += f" ({'loses ' if change['loses'] else ''}{loses})"
            page.line(said, WARN)
    idle = [row["seam"] for row in recording.tables["seams"] if not row["negotiated"]]
    if idle and not verbose:
        page.line(f"nothing to trace, its feature is not negotiated: {', '.join(idle)}", DIM)
