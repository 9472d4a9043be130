# SPDX-License-Identifier: Apache-2.0
"""Free page reporting and hinting, for a terminal."""

from __future__ import annotations

from balloontrace.analysis.base import Result
from balloontrace.analysis.text.writer import Page, count, seconds, times


def show(page: Page, result: Result, verbose: bool) -> None:
    """Free page reporting and hinting, what of them was recorded."""
    reporting, hinting = result.scalars["reporting"], result.scalars["hinting"]
    if reporting is not None:
        page.line(
            f"reporting: {_calls(reporting['calls'])}, {count(reporting['pages'])} pages "
            f"reported, {seconds(reporting['total_s'])}"
            + (f", refused {times(reporting['refused'])}" if reporting["refused"] else "")
        )
    if hinting is not None:
        page.line(
            f"hinting: {_calls(hinting['calls'])}, {count(hinting['lent_pages'])} pages lent, "
            f"{count(hinting['returned_pages'])} taken back, {seconds(hinting['total_s'])}"
        )


def _calls(calls: int) -> str:
    return "1 call" if calls == 1 else f"{calls:,} calls"
