"""Bouts of the OOM notifier: spans in which the guest lived on what the balloon gave back."""

from __future__ import annotations

from dataclasses import dataclass
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

    calls, pages: of the notifier, recorder_calls, recorder_pages: on behalf of the recorder itself
    meanwhile, which make no bout of their own; retaken_pages: how many of `pages` at least the size
    worker took again before the last call, while the host's target stayed the same (what it takes
    when the need is over is no harm); notices: configuration changes by the host, and targets:
    those that changed the target, both within the bout. The samples before and after the bout
    (sampled_s apart) give refaulted_pages and full_share, the share of that time in which no task
    could run for lack of memory (PSI). None: not recorded.
    """
    calls = trace.events("oom_notify").sort_values("start_ns", kind="stable")
    own = by_recorder(trace, calls)
    others = calls[~own]
    if others.empty:
        return []
    starts, ends = others["start_ns"].to_numpy(), others["end_ns"].to_numpy()
    first = np.concatenate(([0], np.flatnonzero(np.diff(starts) > REST_S * 1e9) + 1))
    rows = []
    for low, high in pairwise([*first.tolist(), len(others)]):
        begin_ns, end_ns = int(starts[low]), int(ends[low:high].max())
        meanwhile = own & (calls["start_ns"] >= begin_ns) & (calls["start_ns"] <= end_ns)
        recorder_pages = _pages(trace, calls[meanwhile])
        retaken = _retaken(trace, begin_ns, end_ns)
        rows.append(
            {
                "start_s": trace.seconds(begin_ns),
                "end_s": trace.seconds(end_ns),
                "calls": high - low,
                "pages": _pages(trace, others.iloc[low:high]),
                "recorder_calls": int(meanwhile.sum()),
                "recorder_pages": recorder_pages,
                "retaken_pages": None if retaken is None else max(0, retaken - recorder_pages),
                "notices": _count(trace, "notice", begin_ns, end_ns),
                "targets": _count(trace, "target", begin_ns, end_ns),
                **_sampled(trace, begin_ns, end_ns),
            }
        )
    return rows


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


@dataclass(frozen=True)
class _Reading:
    """One sample: when, and what of it matters here."""

    t_ns: int
    refaults: int | None
    full_us: int | None


def _sampled(trace: Trace, begin_ns: int, end_ns: int) -> dict[str, Any]:
    """What the slow sources counted from the last sample before a span to the first after it."""
    samples = trace.samples
    before = max((n for n, s in enumerate(samples) if s["t_ns"] <= begin_ns), default=0)
    after = min((n for n, s in enumerate(samples) if s["t_ns"] >= end_ns), default=-1)
    if not samples or samples[after]["t_ns"] <= samples[before]["t_ns"]:
        return dict.fromkeys(("sampled_s", "refaulted_pages", "full_share"))
    one, other = _reading(samples[before]), _reading(samples[after])
    refaults = _gain(one.refaults, other.refaults)
    full_us = _gain(one.full_us, other.full_us)
    return {
        "sampled_s": (other.t_ns - one.t_ns) / 1e9,
        "refaulted_pages": None if refaults is None else refaults * trace.pages_per_page,
        "full_share": None if full_us is None else full_us * 1000 / (other.t_ns - one.t_ns),
    }


def _reading(sample: dict[str, Any]) -> _Reading:
    counters = sample["vmstat"]
    refaults = next((counters[name] for name in REFAULTS if name in counters), None)
    memory = section(section(sample, "psi"), "memory")
    return _Reading(int(sample["t_ns"]), refaults, memory.get("full_us"))


def _gain(before: int | None, after: int | None) -> int | None:
    return None if before is None or after is None else after - before
