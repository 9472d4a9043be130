# SPDX-License-Identifier: Apache-2.0
"""What changed between an earlier dataset and this one, by kernel, and how sure that is.

Something is called worse or better only if the intervals of both sides lie apart. There is one
comparison for each measure, finding and kernel: each gets so much confidence that with that of the
option for all of them together (Bonferroni's correction) none of the claims is by chance. Each
recording counts once, as if it told nothing of the others: docs/guides/fleet.md says when it does.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pandas as pd

from balloontrace.analysis.confidence import (
    CONFIDENCE,
    Interval,
    Value,
    median,
    median_interval,
    share_interval,
)
from balloontrace.fleet.overview import MEASURES, Fleet, found_in, kernels

Row = dict[str, Any]

ALL = "all"
"""In place of a kernel: the recordings of all kernels, which may be others than before."""

WORSE, BETTER, NO_CLAIM, TOO_FEW = "worse", "better", "no claim", "too few"


@dataclass(frozen=True)
class Changes:
    """rows: of each comparison what was compared, both sides with their intervals, the ratio of
    the medians, and what is claimed; only_now, only_earlier: kernels with recordings on one side;
    versions: those of balloontrace that read either side; confidence: of each comparison."""

    rows: list[Row]
    only_now: list[str]
    only_earlier: list[str]
    versions: dict[str, list[str]]
    confidence: float


def changes_of(earlier: Fleet, now: Fleet) -> Changes:
    """Compare every measure, and the share of every finding, of all recordings, and of each kernel
    on both sides."""
    before, after = set(kernels([earlier])), set(kernels([now]))
    groups = [ALL, *(kernel for kernel in kernels([earlier, now]) if kernel in before & after)]
    sides = [(_of_kernel(earlier, name), _of_kernel(now, name), name) for name in groups]
    compared = [row for each in sides for row in _compared(earlier, now, *each)]
    confidence = 1 - (1 - CONFIDENCE) / max(1, len(compared))
    return Changes(
        rows=[_judged(row, math.sqrt(confidence)) for row in compared],
        only_now=sorted(after - before),
        only_earlier=sorted(before - after),
        versions={
            "earlier": sorted(map(str, earlier.guests["analysed_by"].unique())),
            "now": sorted(map(str, now.guests["analysed_by"].unique())),
        },
        confidence=confidence,
    )


def _of_kernel(fleet: Fleet, kernel: str) -> pd.DataFrame:
    guests = fleet.guests
    return guests if kernel == ALL else guests[guests["kernel"].eq(kernel)]


def _compared(
    earlier: Fleet, now: Fleet, before: pd.DataFrame, after: pd.DataFrame, kernel: str
) -> Iterator[Row]:
    """What can be compared of a kernel, without what comes of it."""
    for measure in MEASURES:
        sides = [guests[measure].dropna().astype(float).tolist() for guests in (before, after)]
        if all(sides):
            yield {"kernel": kernel, "what": measure, "is_share": False, "sides": sides}
    found = [
        {row["id"]: (row["recordings"], row["looked_for"]) for row in found_in(guests, of.findings)}
        for guests, of in ((before, earlier), (after, now))
    ]
    for name in sorted(found[0].keys() & found[1].keys()):
        shares = [found[0][name], found[1][name]]
        if any(number for number, _ in shares):
            yield {"kernel": kernel, "what": name, "is_share": True, "sides": shares}


def _judged(row: Row, confidence: float) -> Row:
    """The comparison with both values, their intervals, and what is claimed. confidence: of each
    side, so that both hold with its square."""
    side = _share if row["is_share"] else _median
    earlier, now = (side(values, confidence) for values in row["sides"])
    verdict = _verdict(earlier["interval"], now["interval"])
    return {
        **{key: row[key] for key in ("kernel", "what", "is_share")},
        "verdict": verdict,
        "earlier": _side(earlier),
        "now": _side(now),
        "ratio": _ratio(earlier["value"], now["value"]),
    }


def _median(values: list[float], confidence: float) -> Row:
    each = [Value(value) for value in values]
    interval = median_interval(each, confidence)
    return {"value": median(each).value, "recordings": len(values), "interval": interval}


def _share(share: tuple[int, int], confidence: float) -> Row:
    found, of = share
    interval = share_interval(found, of, confidence)
    return {"value": found / of, "recordings": of, "interval": interval}


def _verdict(earlier: Interval | None, now: Interval | None) -> str:
    """More is worse of all that is compared."""
    if earlier is None or now is None:
        return TOO_FEW
    if earlier.high is not None and now.low > earlier.high:
        return WORSE
    if now.high is not None and now.high < earlier.low:
        return BETTER
    return NO_CLAIM


def _side(side: Row) -> Row:
    interval: Interval | None = side["interval"]
    return {
        "value": side["value"],
        "low": interval.low if interval else None,
        "high": interval.high if interval else None,
        "recordings": side["recordings"],
    }


def _ratio(earlier: float, now: float) -> float | None:
    """Now by earlier; None if that is no number."""
    return now / earlier if 0 < earlier < math.inf and now < math.inf else None


def claims(changes: Changes) -> list[Row]:
    """What is claimed, what is worse first."""
    rows = [row for row in changes.rows if row["verdict"] in (WORSE, BETTER)]
    return sorted(rows, key=lambda row: row["verdict"] == BETTER)
