# SPDX-License-Identifier: Apache-2.0
"""Times in which the recorder took no sample though the guest's clock went on: its host did not run
it, or so little in it was run that the recorder's turn never came."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from balloontrace.analysis.trace.trace import Trace, section

LEAST_S = 5.0
"""The recorder samples once a second, is locked in memory, and does nothing that waits. In guests
without hardware virtualisation the first sample came after up to 3.7 s."""

LEAST_INTERVALS = 5
"""And so many times the usual interval, the median."""

LEAST_IDLE_INTERVALS = 2
"""And so many times the interval at which `watch` looks at a balloon at rest."""

_EDGE_NS = 1_000_000_000
"""So near to either sample the guest may have been run: just before and after it was not."""


@dataclass(frozen=True)
class SampleGaps:
    """How many there were, how long together; the longest: start_ns, end_ns; None if none. silent:
    whether no event began in that either, but for its edges."""

    number: int
    total_ns: int
    longest: tuple[int, int] | None
    silent: bool


def sample_gaps(trace: Trace) -> SampleGaps | None:
    """The gaps of a whole recording; those that reach into a suspend, in which nothing runs, are
    none. None: not known, for samples are missing or the suspends were not seen."""
    suspends = _suspends(trace)
    if trace.recording.missing_blocks or trace.recording.damage or suspends is None:
        return None
    time_ns = np.sort(trace.samples.time_ns)
    took_ns = np.diff(time_ns)
    if not len(took_ns):
        return SampleGaps(0, 0, None, silent=False)
    idle_s = float(section(trace.header, "watch").get("idle_interval_s") or 0)
    usual_s = LEAST_INTERVALS * float(np.median(took_ns)) / 1e9
    least_ns = max(LEAST_S, usual_s, LEAST_IDLE_INTERVALS * idle_s) * 1e9
    gaps = [
        (int(time_ns[place]), int(time_ns[place + 1]))
        for place in np.flatnonzero(took_ns >= least_ns)
    ]
    gaps = [
        (start_ns, end_ns)
        for start_ns, end_ns in gaps
        if not any(start_ns < woke_ns and end_ns > slept_ns for slept_ns, woke_ns in suspends)
    ]
    longest = max(gaps, key=lambda gap: gap[1] - gap[0], default=None)
    silent = longest is not None and _silent(trace, *longest)
    return SampleGaps(len(gaps), sum(end - start for start, end in gaps), longest, silent)


def _suspends(trace: Trace) -> list[tuple[int, int]] | None:
    """From each freeze's begin to the end of the restore after it; None: the guest was suspended,
    and no freeze was seen."""
    freezes = sorted(trace.events("freeze")["start_ns"].tolist())
    if trace.suspended_ns and not freezes:
        return None
    woke = sorted(trace.events("restore")["end_ns"].tolist())
    return [
        (slept_ns, next((at_ns for at_ns in woke if at_ns > slept_ns), trace.end_ns))
        for slept_ns in freezes
    ]


def _silent(trace: Trace, start_ns: int, end_ns: int) -> bool:
    """Whether no event began between two samples, but right after the one or before the other."""
    sign = trace.all_events.first_start_after(start_ns + _EDGE_NS)
    return sign is None or sign >= end_ns - _EDGE_NS
