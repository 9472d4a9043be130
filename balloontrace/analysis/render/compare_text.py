"""The comparison for a terminal: the founding table."""

from __future__ import annotations

from typing import Any

from balloontrace.analysis.base import Result
from balloontrace.analysis.render.page import (
    ABSENT,
    BAD,
    GOOD,
    WARN,
    Page,
    count,
    number,
)


def compare_text(comparison: Result, colour: bool = False) -> str:
    """The table in at most 98 columns, under it what each column is from."""
    page = Page(colour)
    write_comparison(page, comparison)
    return page.text()


def write_comparison(page: Page, comparison: Result) -> None:
    """The same on any page."""
    rows = comparison.tables["rows"]
    # Page.table escapes cells, not titles: the behaviours are words of ours.
    titles = [
        f"{side['side']}\n{side['driver_behaviour'] or ABSENT}"
        for side in comparison.tables["sides"]
    ]
    page.table(["<", *titles, "ratio"], [_row(row) for row in rows])
    for side in comparison.tables["sides"]:
        page.heading(side["side"].capitalize())
        page.facts(_facts(side))


def _row(row: dict[str, Any]) -> list[str]:
    return [
        row["title"],
        _bound(row["before_at_least"], ">") + _value(row["before"], row["unit"]),
        _bound(row["after_at_least"], ">") + _value(row["after"], row["unit"]),
        _ratio(row) if row["unit"] else "",
    ]


def _ratio(row: dict[str, Any]) -> str:
    """before / after; what two lower bounds say of their ratio is nothing."""
    value, before, after = row["ratio"], row["before_at_least"], row["after_at_least"]
    if value is None or (before and after):
        return ABSENT
    return _bound(before, ">") + _bound(after, "<") + number(value, 1 if value >= 2 else 2, "x")


def _bound(applies: bool, sign: str) -> str:
    return f"{sign} " if applies else ""


def _value(value: Any, unit: str) -> str:
    """A measure with its unit; words as they are."""
    if value is None:
        return ABSENT
    if unit == "s":
        # Seconds throughout, so that the two columns can be compared at a glance.
        return f"{value:,.1f} s" if value >= 10 else f"{value:,.3f} s"
    if unit == "pages":
        return count(value)
    if unit == "ratio":
        return number(value, 3)
    return str(value)


def _facts(side: dict[str, Any]) -> list[tuple[str, str, str]]:
    """What must be known of one recording to trust its column."""
    memory = side["memory_bytes"]
    lost = side["lost_events"]
    whole = side["complete"] and lost == 0
    state = (
        f"{'complete' if side['complete'] else 'NOT COMPLETE'}, {side['duration_s']:,.1f} s, "
        f"{'unknown number of' if lost is None else count(lost)} events lost"
    )
    style = {True: GOOD, False: BAD, None: WARN}[side["agrees"]]
    return [
        ("recording", side["path"], ""),
        ("", state, GOOD if whole else BAD),
        ("vmstat", side["reconciliation"], style),
        (
            "guest",
            f"Linux {side['kernel']}, {side['cpus']} CPUs"
            + (f", {memory / 2**30:,.1f} GiB" if memory else "")
            + f", balloon driver: {side['driver_behaviour'] or 'not known'}",
            "",
        ),
        *(("finding", finding, BAD) for finding in side["findings"]),
    ]
