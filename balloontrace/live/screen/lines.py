# SPDX-License-Identifier: Apache-2.0
"""A line of text in parts, each with a style, and the numbers in it in words."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from rich.cells import cell_len, set_cell_size

from balloontrace.escape import visible
from balloontrace.events import BALLOON_PAGE_BYTES

PLAIN, STRONG, DIM, GOOD, WARN, BAD, TITLE = (
    *("plain", "strong", "dim", "good", "warn", "bad", "title"),
)
"""Styles. No line needs its colour to be understood."""

NOT_KNOWN = "not known"


class Part(NamedTuple):
    """Text that is fit to print, in one style."""

    text: str
    style: str = PLAIN


Line = tuple[Part, ...]


def part(text: str, style: str = PLAIN) -> Part:
    """A part of what may be hostile text."""
    return Part(visible(text), style)


def width_of(line: Sequence[Part]) -> int:
    """Columns that a line takes."""
    return sum(cell_len(each.text) for each in line)


def fitted(line: Sequence[Part], width: int) -> Line:
    """The line in exactly so many columns: cut, with a dot for what was cut, or filled."""
    out: list[Part] = []
    left = width
    for each in line:
        size = cell_len(each.text)
        if size > left:
            out.append(
                Part(set_cell_size(each.text, max(0, left - 1)) + "…" * (left > 0), each.style)
            )
            left = 0
            break
        out.append(each)
        left -= size
    return (*out, Part(" " * left)) if left else tuple(out)


def spread(left: Sequence[Part], right: Sequence[Part], width: int) -> Line:
    """Two parts of a line, one at either end; the right one gives way."""
    gap = width - width_of(left) - width_of(right)
    if gap < 1:
        return fitted(left, width)
    return (*left, Part(" " * gap), *right)


def pages(count: float | None) -> str:
    """Balloon pages in words."""
    return NOT_KNOWN if count is None else f"{count:,.0f}"


def mib(count: float | None) -> str:
    """Balloon pages as MiB."""
    return NOT_KNOWN if count is None else size(count * BALLOON_PAGE_BYTES)


def size(count: float | None) -> str:
    """Bytes in words, in four digits."""
    if count is None:
        return NOT_KNOWN
    for unit, bytes_of in (("TiB", 1 << 40), ("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)):
        if count >= bytes_of:
            number = count / bytes_of
            return f"{number:,.1f} {unit}" if number < 1000 else f"{number:,.0f} {unit}"
    return f"{count:.0f} B"


def seconds(count: float | None) -> str:
    """A duration in words."""
    if count is None:
        return NOT_KNOWN
    for unit, scale in (("s", 1.0), ("ms", 1e3), ("us", 1e6)):
        if count * scale >= 1 or unit == "us":
            return f"{count * scale:,.1f} {unit}"
    return ""


def percent(share: float | None) -> str:
    """A share in words."""
    return NOT_KNOWN if share is None else f"{share * 100:.1f} %"


def ratio(number: float | None) -> str:
    """A ratio in words."""
    return NOT_KNOWN if number is None else f"{number:,.2f}"
