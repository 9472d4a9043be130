# SPDX-License-Identifier: Apache-2.0
"""The timeline for a terminal: a few lines of blocks, or of ASCII where those cannot be printed."""

from __future__ import annotations

import sys
from bisect import bisect_right
from typing import Any

from balloontrace.analysis.base import Result
from balloontrace.analysis.render.page import Page, seconds
from balloontrace.events import BALLOON_PAGE_BYTES

COLUMNS, ROWS = 78, 4
"""Size of the picture of the balloon in characters."""

BLOCKS, TARGET = " ▁▂▃▄▅▆▇█", "─"
ASCII_BLOCKS, ASCII_TARGET = " ..::||##", "-"
"""Each string has one character for each eighth of a row."""

LANES = {
    "no_progress": ("no progress", "="),
    "sleep": ("Out of puff", "s"),
    "oom_notify": ("OOM notifier", "o"),
    "oom_kill": ("OOM kill", "X"),
    "gaps": ("no driver", "/"),
}


def wants_blocks() -> bool:
    """Whether stdout takes characters beyond ASCII."""
    return (sys.stdout.encoding or "").lower().replace("-", "") == "utf8"


def timeline(page: Page, course: Result, blocks: bool = True) -> None:
    """The balloon's size at the end of each column, the target above it, and what happened; nothing
    if nothing did."""
    size, target = course.tables["size"], course.tables["target"]
    lanes = {kind: line for kind in LANES if (line := _lane(course, kind)).strip()}
    tallest = max((row["pages"] or 0 for row in (*size, *target)), default=0)
    if not (tallest and size) and not lanes:
        return
    end_s = float(course.scalars["end_s"])
    page.heading(f"Timeline ({seconds(end_s / COLUMNS)} a column)")
    lines = _balloon(size, target, tallest, end_s, blocks) if size and tallest else []
    for kind, line in lanes.items():
        lines.append(f"{LANES[kind][0]:>12} {line}")
    middle, end = f"{end_s / 2:,.1f}", f"{end_s:,.1f} s"
    half = COLUMNS // 2
    lines.append(f"{'':12} {'0':<{half}}{middle:<{COLUMNS - half - len(end)}}{end}")
    for line in lines:
        page.line(line.rstrip())


def _balloon(
    size: list[dict[str, Any]],
    target: list[dict[str, Any]],
    tallest: int,
    end_s: float,
    blocks: bool,
) -> list[str]:
    """The balloon as bars of `ROWS` rows, with its scale on the left."""
    ink, line = (BLOCKS, TARGET) if blocks else (ASCII_BLOCKS, ASCII_TARGET)
    levels = [_level(value, tallest) for value in _at_column_ends(size, end_s)]
    wanted = [_level(value, tallest) for value in _at_column_ends(target, end_s)]
    lines = []
    for row in reversed(range(ROWS)):
        below = row * 8
        cells = [
            ink[min(8, level - below)]
            if level is not None and level > below
            else line
            if goal is not None and below < goal <= below + 8
            else " "
            for level, goal in zip(levels, wanted, strict=True)
        ]
        label = f"{tallest * BALLOON_PAGE_BYTES / 2**20:,.0f} MiB" if row == ROWS - 1 else ""
        lines.append(f"{'0' if row == 0 else label:>12} {''.join(cells)}")
    return lines


def _level(pages: int | None, tallest: int) -> int | None:
    """Eighths of a row; what is not 0 is seen."""
    return None if pages is None else -(-pages * ROWS * 8 // tallest)


def _at_column_ends(rows: list[dict[str, Any]], end_s: float) -> list[int | None]:
    """A step function's value at the end of each column; None before it is known."""
    times = [row["at_s"] for row in rows]
    places = [bisect_right(times, end_s * (column + 1) / COLUMNS) for column in range(COLUMNS)]
    return [rows[place - 1]["pages"] if place else None for place in places]


def _lane(course: Result, kind: str) -> str:
    """A kind of event, a mark in each column in which there was one."""
    end_s = float(course.scalars["end_s"]) or 1.0
    spans = [(span["start_s"], span["end_s"]) for span in course.intervals.get(kind, [])]
    spans += [(row["at_s"], row["at_s"]) for row in course.tables["marks"] if row["kind"] == kind]
    cells = [" "] * COLUMNS
    for start_s, until_s in spans:
        first, last = (
            min(COLUMNS - 1, max(0, int(at_s / end_s * COLUMNS))) for at_s in (start_s, until_s)
        )
        cells[first : last + 1] = LANES[kind][1] * (last + 1 - first)
    return "".join(cells)
