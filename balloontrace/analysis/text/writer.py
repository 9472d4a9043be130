# SPDX-License-Identifier: Apache-2.0
"""A page of text under 100 columns: headings, lines and aligned tables, coloured or plain."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from io import StringIO
from typing import Any

from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from balloontrace.escape import visible
from balloontrace.events import BALLOON_PAGE_BYTES

WIDTH = 98
"""Columns where there is no terminal: a report pasted into a mail looks as it did."""

GOOD, WARN, BAD, DIM = "green", "yellow", "bold red", "dim"

ABSENT = "-"
"""In a table: not recorded, or undefined."""

BAR_COLUMNS = 40
"""Width of the longest bar of a histogram."""

UNBOUNDED = "gained nothing"
"""An amplification beyond all bounds."""


class Page:
    """Collects output. Every string is made visible here, once, and none is taken as markup."""

    def __init__(self, colour: bool, width: int = WIDTH) -> None:
        """width: columns."""
        self.width = width
        self._out = StringIO()
        self._console = Console(
            file=self._out,
            width=width,
            force_terminal=colour,
            no_color=not colour,
            color_system="standard" if colour else None,
            highlight=False,
            markup=False,
            emoji=False,
            legacy_windows=False,
        )

    def text(self) -> str:
        """The page without its last newline."""
        lines = self._out.getvalue().splitlines()
        return "\n".join(line.rstrip() for line in lines)

    def heading(self, title: str) -> None:
        """An empty line and the title of a section."""
        self._console.print()
        self._console.print(_cell(title, "bold"))

    def line(self, text: str, style: str = "") -> None:
        """An indented paragraph, wrapped."""
        self._console.print(Padding(_cell(text, style), (0, 0, 0, 2)))

    def facts(self, rows: Iterable[tuple[str, str, str]]) -> None:
        """Label, text and style of each: the texts hang beside the labels."""
        grid = Table.grid(padding=(0, 2, 0, 0))
        grid.add_column(no_wrap=True)
        grid.add_column(overflow="fold")
        for label, text, style in rows:
            grid.add_row(_cell(label, DIM), _cell(text, style))
        self._console.print(grid)

    def table(
        self,
        columns: Sequence[str],
        rows: Iterable[Sequence[str]],
        gap: int = 2,
        spans: Sequence[tuple[float, float]] = (),
    ) -> None:
        """Aligned columns, `gap` apart. One whose title starts with `<` is aligned left.

        Cells are wrapped rather than cut: no digit is ever lost. spans: begin and end of what each
        row is about, in seconds since attach, for a page whose timeline can show it.
        """
        table = Table(box=None, padding=(0, gap, 0, 0), header_style=DIM, pad_edge=False)
        for title in columns:
            left = title.startswith("<")
            table.add_column(
                Text(title.lstrip("<")),
                justify="left" if left else "right",
                overflow="fold",
            )
        for row in rows:
            table.add_row(*(_cell(cell) for cell in row))
        self._console.print(Padding(table, (0, 0, 0, 2)))

    def histogram(self, title: str, unit: str, buckets: Sequence[tuple[int, int, int]]) -> None:
        """A line and a bar for each bucket, as bcc's tools print them: least and greatest value,
        both inclusive, and how many calls there are."""
        most = max(number for _, _, number in buckets)
        self.line("")
        self.table(
            [f"<{title}, {unit}", "calls", "<distribution"],
            [
                [f"{low:>9} -> {high:<9}", count(number), f"|{_bar(number, most)}|"]
                for low, high, number in buckets
            ],
        )


def _bar(number: int, most: int) -> str:
    """Stars, rounded down as bcc does: a bucket with few calls has none."""
    return f"{'*' * (number * BAR_COLUMNS // most):<{BAR_COLUMNS}}"


def _cell(text: str, style: str = "") -> Text:
    return Text(visible(text), style=style, overflow="fold")


def count(value: int | None) -> str:
    """A whole number with thousands separators."""
    return ABSENT if value is None else f"{value:,}"


def mib(pages: int | None) -> str:
    """Balloon pages in MiB, which is what a person sets: whole ones, as a rule."""
    if pages is None:
        return ABSENT
    return f"{pages * BALLOON_PAGE_BYTES / 2**20:,.1f}".removesuffix(".0")


def gib(pages: int | None, digits: int = 2) -> str:
    """Balloon pages in GiB."""
    if pages is None:
        return ABSENT
    # Adding 0 turns the -0.0 of a small negative number into 0.
    return f"{round(pages * BALLOON_PAGE_BYTES / 2**30, digits) + 0:,.{digits}f}"


_LONG = ((2 * 86_400, 86_400, "days"), (2 * 3600, 3600, "h"), (600, 60, "min"))
"""From so many seconds on a time span is told in another unit, of so many."""


def seconds(value: float | None) -> str:
    """A time span in s, in ms or us if shorter than 1 of the larger unit, in min, h or days from 10
    minutes, 2 hours or 2 days on."""
    if value is None:
        return ABSENT
    for least, unit_s, unit in _LONG:
        if value >= least:
            return f"{value / unit_s:,.1f} {unit}"
    scale, unit = (1.0, "s") if value >= 1 or value == 0 else (1e3, "ms")
    if 0 < value < 1e-3:
        scale, unit = 1e6, "us"
    return f"{value * scale:,.1f} {unit}"


def exact_seconds(value: float) -> str:
    """A time span in s, and in a longer unit beside it where there is one."""
    longer = seconds(value)
    return f"{value:,.1f} s" + ("" if value < _LONG[-1][0] else f" ({longer})")


def number(value: float | None, digits: int = 2, unit: str = "") -> str:
    """A ratio or the like with its unit."""
    return ABSENT if value is None else f"{value:,.{digits}f}{unit}"


def bounded(text: str, at_least: bool) -> str:
    """A value, marked if it is a lower bound."""
    return f"> {text}" if at_least and text != ABSENT else text


def amplified(episode: dict[str, Any], unit: str = "x") -> str:
    """The amplification of an episode (metrics.md); of one after its target there is none."""
    if episode["direction"] is None:
        return ABSENT
    if episode["amplification"] is None:
        moved = episode["inflated_pages"] or episode["deflated_pages"]
        return UNBOUNDED if moved else ABSENT
    return bounded(number(episode["amplification"], 2, unit), episode["events_missing"])


def percent(value: float | None) -> str:
    """A share as a percentage with one decimal."""
    return ABSENT if value is None else f"{value * 100:.1f} %"


def times(number_of: int) -> str:
    """How often."""
    return "once" if number_of == 1 else f"{number_of:,} times"
