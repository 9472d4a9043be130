# SPDX-License-Identifier: Apache-2.0
"""Bouts of the OOM notifier: spans in which the guest lived on what the balloon gave back."""

from __future__ import annotations

from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np

from balloontrace.analysis.trace.causes import CAUSE_NAMES, by_recorder, cause_codes
from balloontrace.analysis.trace.gaps import driver_gaps
from balloontrace.analysis.trace.pressure import SHARES
from balloontrace.analysis.trace.samples import UNREAD
from balloontrace.analysis.trace.trace import Bools, Ints, Trace, known_pages, per_trace
from balloontrace.thresholds import BOUT_REST_S

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
    asked = _Calls(
        calls["start_ns"].to_numpy(),
        calls["end_ns"].to_numpy(),
        known_pages(calls) * trace.pages_per_page,
        np.asarray(by_recorder(trace, calls)),
    )
    breaks = np.flatnonzero(np.diff(asked.starts) > BOUT_REST_S * 1e9) + 1
    parts = [slice(*ends) for ends in pairwise([0, *breaks.tolist(), len(calls)])]
    return [_bout(trace, asked, part) for part in parts if not asked.own[part].all()]


class _Calls(NamedTuple):
    """The notifier's calls in order of time: starts and ends in ns, balloon pages, and whether the
    recorder made them."""

    starts: Ints
    ends: Ints
    pages: Ints
    own: Bools


def _bout(trace: Trace, asked: _Calls, part: slice) -> dict[str, Any]:
    """One row of `bouts`; part: its calls among all."""
    own, pages = asked.own[part], asked.pages[part]
    begin_ns, end_ns = int(asked.starts[part][0]), int(asked.ends[part].max())
    recorder_pages = int(pages[own].sum())
    retaken = _retaken(trace, begin_ns, end_ns)
    return {
        "start_s": trace.seconds(begin_ns),
        "end_s": trace.seconds(end_ns),
        "calls": int((~own).sum()),
        "pages": int(pages[~own].sum()),
        "recorder_calls": int(own.sum()),
        "recorder_pages": recorder_pages,
        "retaken_pages": None if retaken is None else max(0, retaken - recorder_pages),
        "notices": _between(_said(trace)["notice"], begin_ns, end_ns),
        "targets": _between(_said(trace)["target"], begin_ns, end_ns),
        **_sampled(trace, begin_ns, end_ns),
    }


@per_trace
def _said(trace: Trace) -> dict[str, Ints | None]:
    """When the host changed the configuration (`notice`), and when the target (`target`), each in
    order of time; None: not recorded."""
    return {
        kind: np.sort(trace.calls(kind)["start_ns"]) if trace.recorded(kind) else None
        for kind in ("notice", "target")
    }


def _between(moments: Ints | None, begin_ns: int, end_ns: int) -> int | None:
    """How many moments are in a span, both ends included."""
    if moments is None:
        return None
    return int(moments.searchsorted(end_ns, side="right") - moments.searchsorted(begin_ns))


def _retaken(trace: Trace, begin_ns: int, end_ns: int) -> int | None:
    """Pages that fills put back of those the notifier had given up, under one target each time.

    What the notifier gives up is a debt; fills pay it off; another target begins anew, and so does
    another life of the driver.
    """
    if not all(trace.recorded(kind) for kind in ("fill", "leak", "target")):
        return None
    time_ns, filled, given = _moves(trace)
    beginnings = _beginnings(trace)
    first, last = beginnings.searchsorted(begin_ns, side="right"), beginnings.searchsorted(end_ns)
    anew = beginnings[first:last].tolist()
    total = 0
    for low, high in pairwise([begin_ns, *anew, end_ns]):
        span = slice(*np.searchsorted(time_ns, (low, high), side="right"))
        debt = np.cumsum(given[span] - filled[span])
        if len(debt):
            # A fill without debt leaves none: the lowest point of the sum is the zero of the debt.
            left = int(debt[-1]) - min(0, int(debt.min()))
            total += int(given[span].sum()) - left
    return total


@per_trace
def _beginnings(trace: Trace) -> Ints:
    """When the target changed, and when the driver left or came, in order of time."""
    kinds = ("target", "bind", "remove", "freeze", "restore")
    gaps = np.array([gap.start_ns for gap in driver_gaps(trace)], dtype=np.int64)
    return np.unique(np.concatenate([gaps, *(trace.calls(kind)["start_ns"] for kind in kinds)]))


@per_trace
def _moves(trace: Trace) -> tuple[Ints, Ints, Ints]:
    """End, pages filled, and pages given up by the notifier, of each fill and each such leak, in
    order of time."""
    fills, leaks = trace.calls("fill"), trace.calls("leak")
    notified = cause_codes(trace, leaks) == CAUSE_NAMES.index("oom")
    given_back = known_pages(leaks)[notified]
    time_ns = np.concatenate([fills["end_ns"], leaks["end_ns"][notified]])
    filled = np.concatenate([known_pages(fills), np.zeros_like(given_back)])
    given = np.concatenate([np.zeros(len(fills), dtype=np.int64), given_back])
    order = np.argsort(time_ns, kind="stable")
    return time_ns[order], filled[order], given[order]


def _sampled(trace: Trace, begin_ns: int, end_ns: int) -> dict[str, Any]:
    """What the slow sources counted from the last sample before a span to the first after it."""
    samples = trace.entire.samples
    times = samples.time_ns
    before = max(0, int(times.searchsorted(begin_ns, side="right")) - 1)
    after = min(len(times) - 1, int(times.searchsorted(end_ns)))
    span_ns = int(times[after] - times[before]) if len(times) else 0
    if span_ns <= 0:
        keys = ("sampled_s", "refaulted_pages", "some_share", "full_share")
        return dict.fromkeys(keys)

    def gained(source: str, *names: str) -> int | None:
        """Of the first of these counters that the kernel has."""
        for name in names:
            one, other = (samples.number(source, name, at) for at in (before, after))
            if one != UNREAD:
                return other - one if other != UNREAD else None
        return None

    refaults = gained("vmstat", *REFAULTS)
    some_us, full_us = (gained("memory", f"{share}_us") for share in SHARES)
    return {
        "sampled_s": span_ns / 1e9,
        "refaulted_pages": None if refaults is None else refaults * trace.pages_per_page,
        "some_share": None if some_us is None else some_us * 1000 / span_ns,
        "full_share": None if full_us is None else full_us * 1000 / span_ns,
    }
