# SPDX-License-Identifier: Apache-2.0
"""When no driver was traced, and what the guest's own counters say moved meanwhile."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from balloontrace.analysis.trace.trace import Trace, per_trace, section

INFLATED, DEFLATED, MIGRATED = "balloon_inflate", "balloon_deflate", "balloon_migrate"
"""Counters in /proc/vmstat, in pages of the kernel."""


@dataclass
class Gap:
    """From the driver's leaving, or a start without one, to the next attachment.

    start_ns: the end of the driver's last `remove` if that was seen, else noticed_ns; noticed_ns:
    when the recorder noticed: every event from before is of the driver before; end_ns: the first
    sign of the new probes, the recording's end if there is none (`open`); absent: there was no
    driver before; left, found: the readings {before, after} of /proc/vmstat at either end, between
    which the last and the first traced page moved; attached: what the new probes found, empty if
    open; whys: why a driver that was there could not be traced; seen_ns: when that was said first;
    untraced_before: it begins as such a driver left.
    """

    start_ns: int
    noticed_ns: int
    end_ns: int
    absent: bool
    left: dict[str, Any]
    found: dict[str, Any] = field(default_factory=dict)
    attached: dict[str, Any] = field(default_factory=dict)
    whys: list[str] = field(default_factory=list)
    seen_ns: int | None = None
    untraced_before: bool = False

    @property
    def untraced_ns(self) -> tuple[int, int] | None:
        """From when on and until when a driver was there that could not be traced; None: none."""
        return None if self.seen_ns is None else (self.seen_ns, self.end_ns)

    @property
    def found_ns(self) -> int:
        """From when on the balloon has the size that was found: by a driver that was not traced it
        was moved until the end."""
        return self.noticed_ns + 1 if self.seen_ns is None else self.end_ns

    @property
    def open(self) -> bool:
        """Whether no driver was attached to again."""
        return not self.attached

    def moved(self, counter: str, unit: int) -> tuple[int, int] | None:
        """Least and most balloon pages that `counter` counted in the gap; unit: balloon pages in a
        page of the kernel. None if either end was not read."""
        left, found = reading(self.left, counter), reading(self.found, counter)
        if left is None or found is None:
            return None
        return (found[0] - left[1]) * unit, (found[1] - left[0]) * unit


_WAYS = {"in": INFLATED, "out": DEFLATED}
_ENDS = ("before", "after")


def reading(pair: dict[str, Any], counter: str) -> tuple[int, int] | None:
    """`counter` in the readings {before, after}; None unless it is in both."""
    before, after = (section(pair, at).get(counter) for at in _ENDS)
    return None if before is None or after is None else (int(before), int(after))


@per_trace
def driver_gaps(trace: Trace) -> list[Gap]:
    """The gaps of a recording in order of time; of a window, those that reach into it, whole."""
    if trace.entire is not trace:
        return [
            gap
            for gap in driver_gaps(trace.entire)
            if gap.start_ns <= trace.until_ns and gap.end_ns > trace.after_ns
        ]
    gaps: list[Gap] = []
    for change in trace.driver_changes:
        state, now = change.get("state"), change["t_ns"]
        is_open = bool(gaps) and gaps[-1].open
        if state == "gone" and is_open and gaps[-1].seen_ns is not None:
            # The driver that could not be traced left, too.
            gaps[-1].end_ns, gaps[-1].found = now, section(change, "vmstat")
            left = gaps[-1].found
            gaps.append(Gap(now, now, trace.end_ns, False, left, untraced_before=True))
        elif state in ("absent", "gone") and not is_open:
            since = gaps[-1].end_ns if gaps else trace.begin_ns
            start = since if state == "absent" else _left_ns(trace, since, now)
            left = section(change, "vmstat")
            gaps.append(Gap(start, now, trace.end_ns, state == "absent", left))
        elif state == "untraceable" and is_open:
            gaps[-1].whys.append(str(change.get("why")))
            gaps[-1].seen_ns = gaps[-1].seen_ns or now
        elif state == "attached":
            if not is_open:  # the sample that told of the leaving is lost
                gaps.append(Gap(now, now, now, absent=False, left={}))
            gaps[-1].end_ns = _first_sign(trace, gaps[-1].noticed_ns, now)
            gaps[-1].found, gaps[-1].attached = section(change, "vmstat_attach"), change
    if gaps and gaps[-1].open:
        gaps[-1].found = _last_readings(trace, gaps[-1].noticed_ns)
    return gaps


def moved_unseen(trace: Trace, counter: str) -> tuple[int, int] | None:
    """Least and most balloon pages that `counter` counted in all gaps; None if not known. Of a gap
    that a window has a part of, all may have moved outside."""
    moved = [_moved_within(trace, gap, counter) for gap in driver_gaps(trace)]
    known = [bounds for bounds in moved if bounds is not None]
    if len(known) < len(moved):
        return None
    return sum(low for low, _ in known), sum(high for _, high in known)


def _moved_within(trace: Trace, gap: Gap, counter: str) -> tuple[int, int] | None:
    bounds = gap.moved(counter, trace.pages_per_page)
    whole = trace.contains(gap.start_ns) and gap.end_ns <= trace.until_ns
    return bounds if whole or bounds is None else (0, bounds[1])


def said_unseen(trace: Trace) -> str:
    """How many pages moved in all gaps, in words; empty if it is known that none did."""
    moved = {way: moved_unseen(trace, counter) for way, counter in _WAYS.items()}
    if all(bounds == (0, 0) for bounds in moved.values()):
        return ""
    return " and ".join(f"{pages_between(bounds)} {way}" for way, bounds in moved.items())


def pages_between(bounds: tuple[int, int] | None) -> str:
    """A number of pages that is known, known to lie between two, or not known, in words."""
    if bounds is None:
        return "an unknown number"
    low, high = bounds
    return f"{low:,}" if low == high else f"{low:,} to {high:,}"


def _left_ns(trace: Trace, since_ns: int, noticed_ns: int) -> int:
    """When the driver left the device for the last time, if that was seen and it did not come back
    before the recorder noticed; else noticed_ns."""

    def last(kind: str, column: str) -> int:
        moments = trace.events(kind)[column].to_numpy()
        return int(moments[(moments > since_ns) & (moments <= noticed_ns)].max(initial=0))

    if not trace.recorded("remove"):
        return noticed_ns
    removed = last("remove", "end_ns")
    return removed if removed > last("bind", "start_ns") else noticed_ns


def _first_sign(trace: Trace, noticed_ns: int, attached_ns: int) -> int:
    """When the new probes were first known to be there: the recorder hears of it late."""
    sign = trace.all_events.first_start_after(noticed_ns)
    return attached_ns if sign is None else min(attached_ns, sign)


def _last_readings(trace: Trace, since_ns: int) -> dict[str, Any]:
    """The last readings of the balloon's counters: those at detach, or of the last sample."""
    detach = section(trace.trailer, "vmstat_detach")
    if detach:
        return detach
    later = np.flatnonzero(trace.samples.time_ns >= since_ns)
    return dict.fromkeys(_ENDS, trace.samples.counters(later[-1])) if len(later) else {}
