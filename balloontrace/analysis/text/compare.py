# SPDX-License-Identifier: Apache-2.0
"""The comparison for a terminal: the founding table."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

from balloontrace.analysis.base import Result
from balloontrace.analysis.text.writer import (
    ABSENT,
    BAD,
    DIM,
    GOOD,
    UNBOUNDED,
    WARN,
    Page,
    bounded,
    count,
    number,
    percent,
)


def compare_text(comparison: Result, colour: bool = False) -> str:
    """The table in at most 98 columns, under it what each column is from."""
    page = Page(colour)
    write_comparison(page, comparison)
    return page.text()


def write_comparison(page: Page, comparison: Result) -> None:
    """The same on any page."""
    sides = comparison.tables["sides"]
    several = any(len(side["runs"]) > 1 for side in sides)
    # Page.table escapes cells, not titles: the behaviours are words of ours.
    titles = [
        f"{side['side']}\n{side['driver_behaviour'] or ABSENT}"
        + (f"\n{_of_runs(len(side['runs']))}" if several else "")
        for side in sides
    ]
    rows: list[list[str]] = []
    shown = [row for row in comparison.tables["rows"] if _tells(row)]
    verdicts = any(row["verdict"] for row in shown)
    for row in shown:
        rows.append([*_row(row), *[row["verdict"] or ""] * verdicts])
        if _has_intervals(row):
            rows.append([*_intervals(row), *[""] * verdicts])
    page.table(["<", *titles, "ratio", *["<verdict"] * verdicts], rows)
    if not any(row["name"] == "outcome" for row in shown):
        page.line("neither side has an inflation: no row is of one", DIM)
    page.line(_said_most(comparison))
    if unlike := comparison.tables["unlike"]:
        page.line(_said_unlike(unlike), WARN)
    if several:
        _method(page, comparison)
    for side in sides:
        page.heading(side["side"].capitalize())
        if len(side["runs"]) == 1:
            page.facts(_facts(side))
        else:
            page.facts(_facts_of_runs(side))
            _values(page, side, comparison.tables["rows"])


def _tells(row: dict[str, Any]) -> bool:
    """Whether a row says anything: a counter of a balloon that did not move is 0 in the recording,
    whatever it was before."""
    values = [value for side in ("before", "after") for value in row[f"{side}_values"] if value]
    if row["name"] in ("balloon_inflate", "balloon_deflate"):
        return any(value["value"] for value in values)
    return bool(values)


def _said_most(comparison: Result) -> str:
    """What differs most, in words."""
    for row in comparison.tables["rows"]:
        if row["name"] == comparison.scalars["differs_most"]:
            pair = f"{_cell(row, 'before')} before, {_cell(row, 'after')} after"
            return f"differs most: {row['title']}: {pair}"
    return "no row differs by more than a tenth"


def _said_unlike(rows: list[dict[str, Any]]) -> str:
    """What is not alike, in words."""
    said = []
    for row in rows:
        title, shown = _FACTS[row["fact"]]
        said.append(f"{title} {shown(row['before'])} and {shown(row['after'])}")
    return (
        f"NOT ALIKE: {', '.join(said)}: a ratio may come from that, and not from what you compare"
    )


_FACTS: dict[str, tuple[str, Callable[[Any], str]]] = {
    "machine": ("machine", str),
    "page_size": ("pages of", lambda size: f"{size // 1024} KiB"),
    "cpus": ("CPUs", str),
    "memory_bytes": ("memory", lambda size: f"{size / 2**30:,.1f} GiB"),
    "inflation_target_pages": ("target", lambda pages: f"{count(pages)} pages"),
}
"""Fact -> what to call it, and how to show it."""


def _of_runs(runs: int) -> str:
    return "one run" if runs == 1 else f"median of {runs:,}"


def _method(page: Page, comparison: Result) -> None:
    """What the intervals are, or why there are none."""
    facts = comparison.scalars
    tables = comparison.tables
    if any(_has_intervals(row) for row in tables["rows"]):
        page.line(
            f"a to b: confidence intervals of {facts['confidence'] * 100:.0f} % and more, of "
            "medians by order statistics, of ratios from those of both sides; they assume no "
            "distribution",
            DIM,
        )
    if min(len(side["runs"]) for side in tables["sides"]) < facts["runs_for_ratio_interval"]:
        page.line(
            "too few runs for every confidence interval: that of a median takes "
            f"{facts['runs_for_interval']} runs, that of a ratio "
            f"{facts['runs_for_ratio_interval']} on each side",
            WARN,
        )


def _row(row: dict[str, Any]) -> list[str]:
    return [row["title"], _cell(row, "before"), _cell(row, "after"), _ratio(row)]


def _cell(row: dict[str, Any], side: str) -> str:
    """The value of a side; where its runs say different words, how many say which."""
    values = row[f"{side}_values"]
    known = [value["value"] for value in values if value is not None]
    if not row["unit"] and row[side] is None and known:
        return ", ".join(f"{word} {times}" for word, times in Counter(known).most_common())
    missing = f" ({len(known)} of {len(values)} runs)" if 0 < len(known) < len(values) else ""
    if row[f"{side}_unbounded"]:
        return UNBOUNDED + missing
    return bounded(_value(row[side], row["unit"]), row[f"{side}_at_least"]) + missing


def _has_intervals(row: dict[str, Any]) -> bool:
    return any(row[f"{of}_interval"] for of in ("before", "after", "ratio"))


def _intervals(row: dict[str, Any]) -> list[str]:
    """The line under a measure."""
    unit = row["unit"]
    return [
        "",
        _interval(row["before_interval"], lambda value: _value(value, unit)),
        _interval(row["after_interval"], lambda value: _value(value, unit)),
        _interval(row["ratio_interval"], _times),
    ]


def _interval(interval: dict[str, Any] | None, said: Callable[[float], str]) -> str:
    if interval is None:
        return ABSENT
    if interval["high"] is None:
        return f"> {said(interval['low'])}"
    return f"{said(interval['low'])} to {said(interval['high'])}"


def _ratio(row: dict[str, Any]) -> str:
    """before / after; what two lower bounds say of their ratio is nothing."""
    if not row["unit"]:
        return ""
    value, before, after = row["ratio"], row["before_at_least"], row["after_at_least"]
    if value is None or (before and after):
        return ABSENT
    return _bound(before, ">") + _bound(after, "<") + _times(value)


def _times(value: float) -> str:
    return number(value, 1 if value >= 2 else 2, "x")


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
        # The median of an even number of runs may lie between two pages.
        return count(int(value)) if value == int(value) else number(value, 1)
    if unit == "ratio":
        return number(value, 3)
    if unit == "share":
        return percent(value)
    if unit == "bytes":
        return f"{value / 2**20:,.0f} MiB"
    if unit == "per_s":
        return f"{number(value, 1)}/s"
    return str(value)


def _facts(side: dict[str, Any]) -> list[tuple[str, str, str]]:
    """What must be known of one recording to trust its column."""
    state, whole = _state(side)
    return [
        ("recording", side["path"], ""),
        ("", state, GOOD if whole else BAD),
        ("vmstat", side["reconciliation"], _TRUST[side["agrees"]]),
        ("guest", _guest(side), ""),
        *(("finding", finding, BAD) for finding in side["findings"]),
    ]


def _facts_of_runs(side: dict[str, Any]) -> list[tuple[str, str, str]]:
    """What must be known of several; runs whose numbers cannot be trusted are named."""
    runs = side["runs"]
    rows = [("runs", f"{len(runs):,}", ""), ("guest", _guest(side), "")]
    for key in side["differs"]:
        counted = Counter(str(run[key]) for run in runs)
        said = ", ".join(f"{value} ({times})" for value, times in counted.most_common())
        rows.append(("", f"NOT ALIKE in {key}: {said}", BAD))
    for place, run in enumerate(runs, start=1):
        rows.append((f"#{place}", run["path"], ""))
        state, whole = _state(run)
        if not whole:
            rows.append(("", state, BAD))
        if run["agrees"] is not True:
            rows.append(("", run["reconciliation"], _TRUST[run["agrees"]]))
    if side["agrees"]:
        said = "traced totals of every run agree with its /proc/vmstat"
        rows.append(("vmstat", said, GOOD))
    found = Counter(finding for run in runs for finding in run["findings"])
    for finding, times in found.most_common():
        rows.append(("finding", f"{finding} in {times} of {len(runs)} runs", BAD))
    return rows


_TRUST = {True: GOOD, False: BAD, None: WARN}
"""Style by whether the traced totals agree with /proc/vmstat."""


def _state(run: dict[str, Any]) -> tuple[str, bool]:
    """How complete a recording is, and whether nothing is missing."""
    lost = run["lost_events"]
    state = (
        f"{'complete' if run['complete'] else 'NOT COMPLETE'}, {run['duration_s']:,.1f} s, "
        f"{'unknown number of' if lost is None else count(lost)} events lost"
    )
    return state, run["complete"] and lost == 0


def _guest(side: dict[str, Any]) -> str:
    """Kernel, machine and driver; what differs between the runs is `-`."""
    memory = side["memory_bytes"]
    return (
        f"Linux {side['kernel'] or ABSENT}, {side['cpus'] or ABSENT} CPUs"
        + (f", {memory / 2**30:,.1f} GiB" if memory else "")
        + f", balloon driver: {side['driver_behaviour'] or 'not known'}"
    )


def _values(page: Page, side: dict[str, Any], rows: list[dict[str, Any]]) -> None:
    """Every measure of every run of a side."""
    told = [row for row in rows if _tells(row)]
    for first in range(0, len(told), COLUMNS):
        part = told[first : first + COLUMNS]
        values = [row[f"{side['side']}_values"] for row in part]
        columns = [
            [_run_value(value, row) for value in of_row]
            for row, of_row in zip(part, values, strict=True)
        ]
        page.table(
            ["#", *(_SHORT.get(row["name"], row["title"]) for row in part)],
            [
                [str(place), *cells]
                for place, cells in enumerate(zip(*columns, strict=True), start=1)
            ],
        )


COLUMNS = 7
"""Of a table of runs: so many are within the width of a page."""

_SHORT = {
    "inflation_duration_s": "inflation\nduration",
    "longest_no_progress_s": "longest no-\nprogress",
    "balloon_inflate": "balloon_\ninflate",
    "balloon_deflate": "balloon_\ndeflate",
    "amplification": "amplifi-\ncation",
    "churn_ratio": "churn\nratio",
    "size_share": "balloon,\nof RAM",
    "available_median_bytes": "Available,\nmedian",
    "available_least_bytes": "Available,\nleast",
    "major_faults_per_s": "major\nfaults",
    "stalls_per_s": "allocation\nstalls",
    "psi_some_share": "PSI\nsome",
    "psi_full_share": "PSI\nfull",
}
"""Titles of measures that fit above their values."""


def _run_value(value: dict[str, Any] | None, row: dict[str, Any]) -> str:
    if value is None:
        return ABSENT
    if value["unbounded"]:
        return UNBOUNDED
    return bounded(_value(value["value"], row["unit"]), value["at_least"])
