# SPDX-License-Identifier: Apache-2.0
"""What the sections of the text report say, kept as blocks for a page of HTML."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from balloontrace.analysis.text.writer import BAD, DIM, GOOD, WARN, Page, count
from balloontrace.escape import visible

ROWS = 200
"""At most so many rows of a table: the page stays small whatever the recording's size."""

LINE_CHARACTERS = 4000
"""The same for one line or cell: with many no-progress spans it is long."""

_CLASSES = {GOOD: "good", WARN: "warn", BAD: "bad", DIM: "dim"}


@dataclass
class Block:
    """One paragraph, list of facts, table or histogram; kind: `line`, `facts`, `table`,
    `histogram`. All is fit to print but not escaped."""

    kind: str
    text: str = ""
    style: str = ""
    columns: list[tuple[str, bool]] = field(default_factory=list)
    """Title, and whether the column is numbers."""
    rows: list[list[str]] = field(default_factory=list)
    styles: list[str] = field(default_factory=list)
    hidden: int = 0
    """Rows that are left out."""
    spans: list[tuple[float, float]] = field(default_factory=list)
    """Begin and end of what each row is about, in seconds since attach; empty: of none."""
    bars: list[float] = field(default_factory=list)
    """Length of each row's bar, in percent of the longest; 0: none."""


@dataclass
class Section:
    """A heading with its blocks."""

    title: str
    blocks: list[Block] = field(default_factory=list)


class Blocks(Page):
    """Collects what is written on a page, in sections."""

    def __init__(self) -> None:
        self.sections: list[Section] = [Section("")]

    def heading(self, title: str) -> None:
        """Begin a section."""
        self.sections.append(Section(visible(title)))

    def line(self, text: str, style: str = "") -> None:
        """A paragraph."""
        self._add(Block("line", _fit(text), _CLASSES.get(style, "")))

    def facts(self, rows: Iterable[tuple[str, str, str]]) -> None:
        """Labels and texts, each with its style."""
        kept = list(rows)[:ROWS]
        texts = [[_fit(label), _fit(text)] for label, text, _ in kept]
        styles = [_CLASSES.get(style, "") for _, _, style in kept]
        self._add(Block("facts", rows=texts, styles=styles))

    def table(
        self,
        columns: Sequence[str],
        rows: Iterable[Sequence[str]],
        gap: int = 2,
        spans: Sequence[tuple[float, float]] = (),
    ) -> None:
        """A table; a column whose title starts with `<` is text. spans: see Block."""
        cells = [[_fit(cell) for cell in row] for row in rows]
        titles = [(title.lstrip("<"), not title.startswith("<")) for title in columns]
        hidden = max(0, len(cells) - ROWS)
        kept = list(spans[:ROWS])
        self._add(Block("table", columns=titles, rows=cells[:ROWS], hidden=hidden, spans=kept))

    def histogram(self, title: str, unit: str, buckets: Sequence[tuple[int, int, int]]) -> None:
        """A table of which each row has a bar."""
        most = max(number for _, _, number in buckets)
        self._add(
            Block(
                "histogram",
                text=_fit(title),
                columns=[(unit, True), ("calls", True)],
                rows=[[f"{low:,} to {high:,}", count(number)] for low, high, number in buckets],
                bars=[float(f"{number / most * 100:.3g}") for _, _, number in buckets],
            )
        )

    def _add(self, block: Block) -> None:
        self.sections[-1].blocks.append(block)


def _fit(text: str) -> str:
    """`text` as it is shown."""
    if len(text) > LINE_CHARACTERS:
        text = f"{text[:LINE_CHARACTERS]} … (cut; report --json has all of it)"
    return visible(text)
