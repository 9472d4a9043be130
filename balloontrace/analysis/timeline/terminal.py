# SPDX-License-Identifier: Apache-2.0
"""The timeline for a terminal: a few lines of blocks, or of ASCII where those cannot be printed."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from typing import Any

from balloontrace.analysis.base import Result
from balloontrace.analysis.text.writer import DIM, Page, seconds
from balloontrace.events import BALLOON_PAGE_BYTES

MARGIN, ROWS = 20, 4
"""Columns beside the picture of the balloon, and its height."""

BLOCKS, NOW_AND_THEN, TARGET = " ▁▂▃▄▅▆▇█", "░", "─"
ASCII_BLOCKS, ASCII_NOW_AND_THEN, ASCII_TARGET = " ..::||##", "~", "-"
"""Blocks: one character for each eighth of a row. Now and then: the balloon was so large for a part
of the column's time."""

SIGNS, MORE = "123456789", "^"
"""Of the first marks of people, and of all others."""

Range = tuple[int, int]
"""Least and greatest value in a column."""

RATES = {"refaults": "refaults/s", "swapped_in": "swap in/s", "swapped_out": "swap out/s"}

LANES = {
    "no_progress": ("no progress", "="),
    "sleep": ("Out of puff", "s"),
    "oom_notify": ("OOM notifier", "o"),
    "oom_kill": ("OOM kill", "X"),
    "gaps": ("no driver", "/"),
}


def timeline(page: Page, course: Result, blocks: bool = True) -> None:
    """The balloon's least and greatest size in each column, the target above it, and what happened;
    nothing if nothing did."""
    size, target = course.tables["size"], course.tables["target"]
    columns = page.width - MARGIN
    lanes = {kind: line for kind in LANES if (line := _lane(course, kind, columns)).strip()}
    tallest = max((row["pages"] or 0 for row in (*size, *target)), default=0)
    words = course.tables["words"]
    rates = _rates(course, columns, BLOCKS if blocks else ASCII_BLOCKS)
    if not (tallest and size) and not lanes and not words and not rates:
        return
    begin_s, end_s = _span(course)
    sizes, targets = (
        _levels(_in_columns(rows, (begin_s, end_s), columns), tallest) for rows in (size, target)
    )
    lines = _balloon(sizes, targets, _mib(tallest), blocks) if size and tallest else []
    part = NOW_AND_THEN if blocks else ASCII_NOW_AND_THEN
    legend = f"; {part}: for a part of it" if any(part in line for line in lines) else ""
    page.heading(f"Timeline ({seconds((end_s - begin_s) / columns)} a column{legend})")
    lines += rates
    for kind, line in lanes.items():
        lines.append(f"{LANES[kind][0]:>12} {line}")
    begin, middle = f"{begin_s:,.1f}" if begin_s else "0", f"{(begin_s + end_s) / 2:,.1f}"
    end, half = f"{end_s:,.1f} s", columns // 2
    lines.append(f"{'':12} {begin:<{half}}{middle:<{columns - half - len(end)}}{end}")
    if words:
        lines.append(f"{'marks':>12} {_places(course, columns)}")
    for line in lines:
        page.line(line.rstrip())
    for sign, row in zip(SIGNS, words, strict=False):
        page.line(f"{sign:>12} {row['at_s']:,.1f} s: {row['text']}")
    if (more := len(words) - len(SIGNS)) > 0:
        page.line(f"{MORE:>12} {more:,} more: --section marks", DIM)


def _balloon(
    sizes: list[Range | None], targets: list[Range | None], tallest: str, blocks: bool
) -> list[str]:
    """The balloon as bars of `ROWS` rows, with its scale on the left. sizes, targets: eighths of a
    row in each column; tallest: what the highest row stands for."""
    ink = (BLOCKS, NOW_AND_THEN, TARGET) if blocks else _ASCII
    lines = []
    for row in reversed(range(ROWS)):
        cells = [_cell(row * 8, *column, *ink) for column in zip(sizes, targets, strict=True)]
        label = tallest if row == ROWS - 1 else ""
        lines.append(f"{'0' if row == 0 else label:>12} {''.join(cells)}")
    return lines


_ASCII = (ASCII_BLOCKS, ASCII_NOW_AND_THEN, ASCII_TARGET)


def _cell(
    below: int, size: Range | None, target: Range | None, blocks: str, now_and_then: str, line: str
) -> str:
    """One character. below: eighths of a row under it; size, target: in the same, None: unknown."""
    least, most = size or (0, 0)
    if least >= below + 8:
        return blocks[8]
    if least > below and most <= below + 8:
        return blocks[most - below]
    if target and any(below < level <= below + 8 for level in target):
        return line
    return now_and_then if most > below else " "


def _mib(pages: int) -> str:
    mib = pages * BALLOON_PAGE_BYTES / 2**20
    return f"{mib:,.2f} MiB" if mib < 10 else f"{mib:,.0f} MiB"


def _levels(columns: list[Range | None], tallest: int) -> list[Range | None]:
    """Pages in eighths of a row; what is not 0 is seen."""

    def level(pages: int) -> int:
        return -(-pages * ROWS * 8 // max(1, tallest))

    return [pair and (level(pair[0]), level(pair[1])) for pair in columns]


def _span(course: Result) -> tuple[float, float]:
    """From when to when it goes, in seconds since attach."""
    return float(course.scalars["begin_s"]), float(course.scalars["end_s"])


def _in_columns(
    rows: list[dict[str, Any]], span_s: tuple[float, float], columns: int
) -> list[Range | None]:
    """A step function's least and greatest value in each column; None where it is not known."""
    times = [row["at_s"] for row in rows]
    width_s = (span_s[1] - span_s[0]) / columns
    begins = [span_s[0] + width_s * column for column in range(columns)]
    lasts = [bisect_left(times, begin_s) for begin_s in begins[1:]] + [len(times)]
    found = []
    for begin_s, last in zip(begins, lasts, strict=True):
        first = max(0, bisect_right(times, begin_s) - 1)  # what holds when the column begins
        known = [row["pages"] for row in rows[first:last] if row["pages"] is not None]
        found.append((min(known), max(known)) if known else None)
    return found


def _places(course: Result, columns: int) -> str:
    """Where the marks of people are: a number for each of the first, where there is room."""
    begin_s, end_s = _span(course)
    cells = [" "] * columns
    for number, row in enumerate(course.tables["words"]):
        share = (row["at_s"] - begin_s) / ((end_s - begin_s) or 1.0)
        place = min(columns - 1, max(0, int(share * columns)))
        if cells[place] == " ":
            cells[place] = SIGNS[number] if number < len(SIGNS) else MORE
    return "".join(cells)


def _rates(course: Result, columns: int, blocks: str) -> list[str]:
    """A line for each of refaults and swap that there was: the greatest in each column, by the
    greatest of all, which a line below says."""
    begin_s, end_s = _span(course)
    width_s = ((end_s - begin_s) or 1.0) / columns
    lines = []
    for key, title in RATES.items():
        cells = [0.0] * columns
        for row in course.tables["reclaim"]:
            first, last = (
                min(columns - 1, max(0, int((row[end] - begin_s) / width_s)))
                for end in ("start_s", "end_s")
            )
            for place in range(first, last + 1):
                cells[place] = max(cells[place], row[key] or 0.0)
        if most := max(cells):
            drawn = "".join(blocks[-int(-cell * 8 // most)] for cell in cells)
            lines.append(f"{title:>12} {drawn}")
            lines.append(f"{'':12} at most {most:,.0f}/s")
    return lines


def _lane(course: Result, kind: str, columns: int) -> str:
    """A kind of event, a mark in each column in which there was one."""
    begin_s, end_s = _span(course)
    length_s = (end_s - begin_s) or 1.0
    spans = [(span["start_s"], span["end_s"]) for span in course.intervals.get(kind, [])]
    spans += [(row["at_s"], row["at_s"]) for row in course.tables["marks"] if row["kind"] == kind]
    cells = [" "] * columns
    for start_s, until_s in spans:
        first, last = (
            min(columns - 1, max(0, int((at_s - begin_s) / length_s * columns)))
            for at_s in (start_s, until_s)
        )
        cells[first : last + 1] = LANES[kind][1] * (last + 1 - first)
    return "".join(cells)
