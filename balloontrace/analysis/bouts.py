# SPDX-License-Identifier: Apache-2.0
"""Bouts of the OOM notifier: spans in which the guest lived on what the balloon gave back."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd

from balloontrace.analysis.causes import CAUSE_NAMES, by_recorder, cause_codes
from balloontrace.analysis.gaps import driver_gaps
from balloontrace.analysis.trace import Bools, Ints, Trace, known_pages, section

REST_S = 30.0
"""Calls further apart belong to different bouts. In the near-livelock of a crawling guest the
slowest call came 10 s after the one before."""

REFAULTS = ("workingset_refault_file", "workingset_refault")
"""Pages of files read again soon after reclaim evicted them, in /proc/vmstat; the second counted
all pages until 170b04b7ae49 (5.9) told those of files from anonymous ones."""


def bouts(trace: Trace) -> list[dict[str, Any]]:
    """The bouts of a recording that has `oom_notify`, in order of time.

    calls, pages: of the notifier; recorder_calls, recorder_pages: on behalf of the recorder itself,
    which are not in the former and make no bout of their own; retaken_pages: how many of `pages` at
    least the size worker took again before the last call, while the host's target stayed the same
    (what it takes when the need is over is no harm); notices: configuration changes by the host,
    and targets: those that changed the target, both within the bout. The samples before and after
    the bout (sampled_s apart) give refaulted_pages, and some_share and full_share, the shares of
    that time in which some task, or all, could not run for lack of memory (PSI). None: not
    recorded.
    """
    calls = trace.events("oom_notify").sort_values("start_ns", kind="stable")
    starts = calls["start_ns"].to_numpy()
    breaks = (np.flatnonzero(np.diff(starts) > REST_S * 1e9) + 1).tolist()
    parts = [calls.iloc[low:high] for low, high in pairwise([0, *breaks, len(calls)])]
    return [_bout(trace, part) for part in parts if not by_recorder(trace, part).all()]


def _bout(trace: Trace, calls: pd.DataFrame) -> dict[str, Any]:
    """One row of `bouts`; calls: those of the notifier in it, in order of time."""
    own = by_recorder(trace, calls)
    begin_ns, end_ns = int(calls["start_ns"].iloc[0]), int(calls["end_ns"].max())
    recorder_pages = _pages(trace, calls[own])
    retaken = _retaken(trace, begin_ns, end_ns)
    return {
        "start_s": trace.seconds(begin_ns),
        "end_s": trace.seconds(end_ns),
        "calls": int((~own).sum()),
        "pages": _pages(trace, calls[~own]),
        "recorder_calls": int(own.sum()),
        "recorder_pages": recorder_pages,
        "retaken_pages": None if retaken is None else max(0, retaken - recorder_pages),
        "notices": _count(trace, "notice", begin_ns, end_ns),
        "targets": _count(trace, "target", begin_ns, end_ns),
        **_sampled(trace, begin_ns, end_ns),
    }


def _pages(trace: Trace, calls: pd.DataFrame) -> int:
    """Balloon pages that these calls of the notifier gave back."""
    return int(known_pages(calls).sum()) * trace.pages_per_page


def _count(trace: Trace, kind: str, begin_ns: int, end_ns: int) -> int | None:
    """Events of a kind that began in a span."""
    if not trace.recorded(kind):
        return None
    starts = trace.events(kind)["start_ns"]
    return int(((starts >= begin_ns) & (starts <= end_ns)).sum())


def _retaken(trace: Trace, begin_ns: int, end_ns: int) -> int | None:
    """Pages that fills put back of those the notifier had given up, under one target each time.

    What the notifier gives up is a debt; fills pay it off; another target begins anew, and so does
    another life of the driver.
    """
    if not all(trace.recorded(kind) for kind in ("fill", "leak", "target")):
        return None
    time_ns, filled, given = _moves(trace)
    anew = [moment for moment in _beginnings(trace) if begin_ns < moment < end_ns]
    total = 0
    for low, high in pairwise([begin_ns, *anew, end_ns]):
        span = slice(*np.searchsorted(time_ns, (low, high), side="right"))
        debt = np.cumsum(given[span] - filled[span])
        if len(debt):
            # A fill without debt leaves none: the lowest point of the sum is the zero of the debt.
            left = int(debt[-1]) - min(0, int(debt.min()))
            total += int(given[span].sum()) - left
    return total


def _beginnings(trace: Trace) -> list[int]:
    """When the target changed, and when the driver left or came, in order of time."""
    moments = {gap.start_ns for gap in driver_gaps(trace)}
    for kind in ("target", "bind", "remove", "freeze", "restore"):
        moments |= set(trace.events(kind)["start_ns"].tolist())
    return sorted(moments)


def _moves(trace: Trace) -> tuple[Ints, Ints, Ints]:
    """End, pages filled, and pages given up by the notifier, of each fill and each such leak, in
    order of time."""
    fills, leaks = trace.events("fill"), trace.events("leak")
    leaks = leaks[_by_notifier(trace)]
    time_ns = np.concatenate([fills["end_ns"], leaks["end_ns"]])
    filled = np.concatenate([known_pages(fills), np.zeros(len(leaks), dtype=np.int64)])
    given = np.concatenate([np.zeros(len(fills), dtype=np.int64), known_pages(leaks)])
    order = np.argsort(time_ns, kind="stable")
    return time_ns[order], filled[order], given[order]


def _by_notifier(trace: Trace) -> Bools:
    mine: Bools = cause_codes(trace, trace.events("leak")) == CAUSE_NAMES.index("oom")
    return mine


def _sampled(trace: Trace, begin_ns: int, end_ns: int) -> dict[str, Any]:
    """What the slow sources counted from the last sample before a span to the first after it."""
    samples = trace.samples
    before = max((n for n, s in enumerate(samples) if s["t_ns"] <= begin_ns), default=0)
    after = min((n for n, s in enumerate(samples) if s["t_ns"] >= end_ns), default=-1)
    span_ns = samples[after]["t_ns"] - samples[before]["t_ns"] if samples else 0
    if span_ns <= 0:
        keys = ("sampled_s", "refaulted_pages", "some_share", "full_share")
        return dict.fromkeys(keys)
    one, other = samples[before], samples[after]
    name = next((name for name in REFAULTS if name in one["vmstat"]), REFAULTS[0])
    refaults = _gain(one["vmstat"], other["vmstat"], name)
    stalled, later = (section(section(sample, "psi"), "memory") for sample in (one, other))
    some_us, full_us = (_gain(stalled, later, key) for key in ("some_us", "full_us"))
    return {
        "sampled_s": span_ns / 1e9,
        "refaulted_pages": None if refaults is None else refaults * trace.pages_per_page,
        "some_share": None if some_us is None else some_us * 1000 / span_ns,
        "full_share": None if full_us is None else full_us * 1000 / span_ns,
    }


def _gain(before: dict[str, Any], after: dict[str, Any], key: str) -> int | None:
    """What a counter gained between two readings; None unless it is in both."""
    one, other = before.get(key), after.get(key)
    return None if one is None or other is None else int(other) - int(one)
