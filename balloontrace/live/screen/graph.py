# SPDX-License-Identifier: Apache-2.0
"""The last minutes as block characters."""

from __future__ import annotations

from collections.abc import Sequence

from balloontrace.live.screen.lines import DIM, PLAIN, WARN, Line, Part, mib
from balloontrace.live.view import Column, Graph

_EIGHTHS = " ▁▂▃▄▅▆▇█"
_TARGET = "─"
_UNSEEN = "·"
LABEL = 16
"""Columns in front of the graph, for what its height means."""


def size_rows(graph: Graph, height: int) -> list[Line]:
    """The balloon's size, filled, below a line for its target, in so many rows. Where nothing was
    seen there are dots."""
    most = _most(graph.columns)
    rows: list[Line] = []
    for row in reversed(range(height)):
        label = mib(most) if row == height - 1 else "0" if row == 0 else ""
        cells = "".join(_cell(column, row, height, most) * graph.cells for column in graph.columns)
        rows.append((Part(f"{label:>{LABEL - 1}} ", DIM), Part(cells)))
    return rows


def _most(columns: Sequence[Column]) -> int:
    known = [
        number
        for column in columns
        for number in (column.size_pages, column.target_pages)
        if number
    ]
    return max(known, default=1)


def _cell(column: Column, row: int, height: int, most: int) -> str:
    """One character: an eighth of a row is the least that is seen."""
    if column.size_pages is None:
        return _UNSEEN if row == 0 else " "
    eighths = _eighths(column.size_pages, height, most) - 8 * row
    if column.target_pages is not None and eighths <= 0:
        at = min(_eighths(column.target_pages, height, most), 8 * height - 1) // 8
        if at == row:
            return _TARGET
    return _EIGHTHS[max(0, min(8, eighths))]


def _eighths(number: float, height: int, most: int) -> int:
    """Of so many rows. What is not 0 is seen."""
    return max(1, round(8 * height * number / most)) if number > 0 else 0


def flow_row(graph: Graph, name: str, values: Sequence[float | None], style: str = PLAIN) -> Line:
    """One row of bars: pages a second, the highest told in front."""
    known = [value for value in values if value is not None]
    most = max(known, default=0.0)
    cells = "".join(
        (
            _UNSEEN
            if value is None
            else _EIGHTHS[max(1, round(8 * value / most)) if value > 0 and most else 0]
        )
        * graph.cells
        for value in values
    )
    label = f"{name} {mib(most)}/s" if known else name
    return (Part(f"{label:>{LABEL - 1}} ", DIM), Part(cells, style))


def progress_row(graph: Graph) -> Line:
    """Where the balloon was on its way, and came no closer."""
    cells = "".join(
        (
            _UNSEEN
            if column.no_progress_s is None
            else "!"
            if column.no_progress_s > graph.column_s / 2
            else " "
        )
        * graph.cells
        for column in graph.columns
    )
    return (Part(f"{'stuck':>{LABEL - 1}} ", DIM), Part(cells, WARN))


def axis(graph: Graph) -> Line:
    """From when to when."""
    span_s = graph.column_s * len(graph.columns)
    ago = f"{span_s / 60:.0f} min ago" if span_s >= 120 else f"{span_s:.0f} s ago"
    gap = " " * max(1, len(graph.columns) * graph.cells - len(ago) - len("now"))
    return (Part(" " * LABEL), Part(f"{ago}{gap}now", DIM))
