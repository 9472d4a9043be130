# SPDX-License-Identifier: Apache-2.0
"""Each counter as it was traced and as the guest counts it, for a terminal."""

from __future__ import annotations

from typing import Any

from balloontrace.analysis.base import Result
from balloontrace.analysis.questions.reconciliation import COUNTERS
from balloontrace.analysis.text.writer import ABSENT, BAD, GOOD, WARN, Page, count


def show(page: Page, result: Result, verbose: bool) -> None:
    """Each counter as it was traced and as the guest counts it."""
    scalars = result.scalars
    style = {True: GOOD, False: BAD, None: WARN}[scalars["agrees"]]
    page.line(scalars["summary"], style)
    page.table(
        [
            *("<counter", "traced", "/proc/\nvmstat", "differ-\nence", "lowest", "highest"),
            *("in lost\nevents", "moved un-\ntraced"),
        ],
        [_counter(scalars, name) for name in COUNTERS],
    )
    page.line("balloon pages; lowest and highest: the bounds where exactness cannot be claimed")
    if scalars["sums_agree"]:
        page.line(
            "events of every kind are as many as the BPF programs summed up beside them", GOOD
        )
    for differing in scalars["sums_differing"]:
        page.line(f"not what the BPF programs summed up: {differing}", BAD)


def _counter(scalars: dict[str, Any], name: str) -> list[str]:
    traced, vmstat = scalars[f"traced_{name}"], scalars[f"vmstat_{name}"]
    bounds = scalars[f"bounds_{name}"] or (None, None)
    untraced = scalars[f"untraced_{name}"]
    return [
        COUNTERS[name][1],
        count(traced),
        count(vmstat),
        ABSENT if traced is None or vmstat is None else f"{traced - vmstat:+,}".replace("+0", "0"),
        *map(count, bounds),
        count(scalars[f"lost_{name}"]),
        ABSENT if untraced is None else " to ".join(dict.fromkeys(map(count, untraced))),
    ]
