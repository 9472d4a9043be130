# SPDX-License-Identifier: Apache-2.0
"""Runs of free page hinting: from the first block that is lent to the host until the last is back
(virtio_balloon_report_free_page, return_free_pages_to_mm)."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import zip_longest

from balloontrace.analysis.trace.trace import FOREVER, Trace, known_pages, section
from balloontrace.events import UNKNOWN_PAGES

RETURNED = "returned"
RECLAIMED = "reclaimed"
LEFT = "driver left"
AGAIN = "lent again"
LENT = "lent"
OPEN = "under way"
ENDS = (RETURNED, RECLAIMED, LEFT, AGAIN, LENT, OPEN)
"""How a run ended: the host had done, and the driver took back what was left; reclaim had taken all
of it before; the driver left; the host asked for pages anew; it did not: they were still lent when
the recording ended, or were still being lent."""


@dataclass(frozen=True)
class HintRun:
    """One run. start_ns, lent_ns: the first block was lent, all were; end_ns: the end by `ended`,
    one of ENDS, None: not known. Balloon pages; None: not seen."""

    start_ns: int
    lent_ns: int
    end_ns: int
    lent_pages: int | None
    returned_pages: int | None
    reclaimed_pages: int | None
    ended: str | None


def hint_runs(trace: Trace) -> list[HintRun]:
    """All runs in order of time; calls that lent nothing are none."""
    calls = trace.events("hint").sort_values("start_ns", kind="stable")
    back = trace.marked(calls, "flags", "flags", "returned")
    lending = calls[~back & ((calls["done"] > 0) | calls["open"])]
    columns = (lending[name].tolist() for name in ("start_ns", "end_ns", "done", "open"))
    runs = list(zip(*columns, strict=True))
    returned = calls[back]
    given = list(zip(returned["end_ns"].tolist(), returned["done"].tolist(), strict=True))
    return [
        _run(trace, run, given, following[0] if following else FOREVER)
        for run, following in zip_longest(runs, runs[1:])
        if run
    ]


def _run(
    trace: Trace, run: tuple[int, int, int, bool], given: list[tuple[int, int]], until_ns: int
) -> HintRun:
    """One run. given: when the driver took pages back, and how many; until_ns: the next run."""
    start_ns, lent_ns, done, is_open = run
    lent = None if done == UNKNOWN_PAGES or is_open else done
    back = [(at_ns, pages) for at_ns, pages in given if start_ns < at_ns <= until_ns]
    # A rung that cannot tell the two apart shows no call as one that took blocks back.
    unseen = not given and bool(section(trace.seams, "hint").get("loses"))
    reclaimed, last_ns = _reclaimed(trace, start_ns, until_ns)
    left_ns = _driver_left(trace, start_ns, until_ns)
    ended: str | None = LENT
    end_ns = trace.end_ns
    if is_open:
        ended = OPEN
    elif back:
        ended, end_ns = RETURNED, back[-1][0]
    elif lent is not None and reclaimed is not None and reclaimed >= lent:
        ended, end_ns = RECLAIMED, last_ns
    elif left_ns is not None:
        ended, end_ns = LEFT, left_ns
    elif until_ns < FOREVER:
        ended, end_ns = AGAIN, until_ns
    elif unseen:
        ended = None
    returned = None if unseen else sum(pages for _, pages in back)
    return HintRun(start_ns, lent_ns, end_ns, lent, returned, reclaimed, ended)


def _reclaimed(trace: Trace, start_ns: int, until_ns: int) -> tuple[int | None, int]:
    """What the shrinker's scans took of what was lent: all that they freed and no leak within them
    did; None if they were not recorded. And when the last one did."""
    if not (trace.recorded("scan") and trace.recorded("leak")):
        return None, 0
    scans, leaks = trace.events("scan"), trace.events("leak")
    scans = scans[(scans["start_ns"] >= start_ns) & (scans["end_ns"] <= until_ns)]
    inside = trace.marked(leaks, "within", "within", "scan")
    leaks = leaks[inside & (leaks["start_ns"] >= start_ns) & (leaks["end_ns"] <= until_ns)]
    freed = int(known_pages(scans).sum()) * trace.pages_per_page
    ends_ns = scans["end_ns"][scans["done"] > 0]
    return max(0, freed - int(known_pages(leaks).sum())), int(ends_ns.max()) if len(ends_ns) else 0


def _driver_left(trace: Trace, start_ns: int, until_ns: int) -> int | None:
    """When the driver first left in a time; None: it stayed."""
    starts = [at for kind in ("remove", "freeze") for at in trace.events(kind)["start_ns"].tolist()]
    return min((at_ns for at_ns in starts if start_ns < at_ns <= until_ns), default=None)
