# SPDX-License-Identifier: Apache-2.0
"""Refaults and swap over time, where there were any: what lack of memory did to the guest."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np

from balloontrace.analysis.trace.minutes import Minutes
from balloontrace.analysis.trace.samples import UNREAD
from balloontrace.analysis.trace.trace import Trace

SERIES = {
    "refaults": ("workingset_refault_file", "workingset_refault", "workingset_refault_anon"),
    "swapped_in": ("pswpin",),
    "swapped_out": ("pswpout",),
}
"""Series -> the columns of /proc/vmstat it is the sum of; no kernel has the first two of refaults
both."""


def reclaim(trace: Trace, most: int) -> list[dict[str, Any]]:
    """Pages of the guest per second between samples, exact over each row's time: `start_s`, `end_s`
    and SERIES (None: not recorded). No rows if nothing of it happened; at most about `most`."""
    minutes = Minutes(trace.samples)
    totals = {}
    for name, keys in SERIES.items():
        read = [key for key in keys if len(minutes.time_ns) and _whole(minutes, key)]
        if read:
            totals[name] = np.sum([minutes.column("vmstat", key) for key in read], axis=0)
    if not any((total != total[0]).any() for total in totals.values()):
        return []
    kept = range(0, len(minutes.time_ns), max(1, -(-len(minutes.time_ns) // most)))
    rows = []
    for first, last in pairwise(kept):
        span_s = int(minutes.time_ns[last] - minutes.time_ns[first]) / 1e9
        if span_s > 0:
            grown = {
                name: max(0, int(total[last] - total[first])) for name, total in totals.items()
            }
            rows.append(
                {
                    "start_s": trace.seconds(minutes.time_ns[first]),
                    "end_s": trace.seconds(minutes.time_ns[last]),
                    **{n: grown[n] / span_s if n in grown else None for n in SERIES},
                }
            )
    return rows


def _whole(minutes: Minutes, key: str) -> bool:
    """Whether every sample has it."""
    return bool((minutes.column("vmstat", key) != UNREAD).all())
