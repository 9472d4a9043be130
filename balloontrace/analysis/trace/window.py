# SPDX-License-Identifier: Apache-2.0
"""A part of a recording, from one moment to another, as a trace of its own.

A call belongs to the window in which it ends, as its pages move at its end for the balloon's size;
a call that had not returned, to the end of the recording. So each call is in one of the windows
that a recording is cut into, and their totals add up. What a fill or a leak is made of (its waits
for the host, sleeps, reclaim and compaction) stays with it. A sample belongs to the window in which
it was taken.

What was before is known: the balloon's size, the target, and the driver are those of the recording
at that moment. What is said of the recording as a whole (its seams, what was lost, whether it
agrees with /proc/vmstat) holds for each part of it.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from balloontrace.analysis.trace.columns import Bools, Ints
from balloontrace.analysis.trace.task_delays import TaskDelays
from balloontrace.analysis.trace.trace import FOREVER, Trace
from balloontrace.recording.differences import Reference
from balloontrace.recording.reader import read_recording

PARTS = ("ack", "sleep", "reclaim", "compact")
"""Kinds of call that are made within a fill, or (an ack) within a leak."""


class Window(Trace):
    """What a recording has after one moment and up to another."""

    def __init__(self, entire: Trace, since_ns: int | None, until_ns: int | None) -> None:
        """since_ns, until_ns: CLOCK_MONOTONIC, within the recording and in order; None, or beyond
        its begin or end: all from its begin on, all up to its end."""
        begins = since_ns is None or since_ns <= entire.begin_ns
        ends = until_ns is None or until_ns >= entire.end_ns
        after_ns = -1 if begins or since_ns is None else since_ns
        last_ns = FOREVER if ends or until_ns is None else until_ns
        self._entire = entire
        chosen = {
            kind: _ends_within(entire, kind, after_ns, last_ns)
            for kind in entire.all_events.kinds()
        }
        events, self._kept = entire.all_events.chosen(chosen)
        super().__init__(
            entire.recording,
            events,
            entire.samples.within(after_ns, last_ns, _delays(entire, after_ns, last_ns)),
            max(entire.begin_ns, after_ns),
            min(entire.end_ns, last_ns),
            missed=entire.missed,
            after_ns=after_ns,
            until_ns=last_ns,
        )

    @property
    def entire(self) -> Trace:
        """The trace of the whole recording."""
        return self._entire

    @cached_property
    def attachments(self) -> list[dict[str, Any]]:
        """As of the recording."""
        return self._entire.attachments

    @cached_property
    def records(self) -> npt.NDArray[np.void]:
        """The window's events as they stand in the file."""
        return self._entire.records[self._kept]

    @cached_property
    def every_sample(self) -> list[dict[str, Any]]:
        """The window's samples as they stand in the file."""
        return [
            sample
            for sample in self._entire.every_sample
            if "t_ns" in sample and self.contains(int(sample["t_ns"]))
        ]

    def attached(self, kind: str) -> bool:
        """As of the recording."""
        return self._entire.attached(kind)

    def negotiated(self, kind: str) -> bool:
        """As of the recording."""
        return self._entire.negotiated(kind)

    def doubt(self, kind: str) -> str:
        """Why events of this kind may be missing: what is lost can be lost anywhere."""
        return self._entire.doubt(kind)

    @property
    def pages_missed(self) -> bool:
        """As of the recording."""
        return self._entire.pages_missed


def targets_of(trace: Trace) -> tuple[Ints, Ints]:
    """When each target was read, in order of time, and its pages (UNKNOWN_PAGES: not seen). In a
    window the first is the one that was set before, from the window's begin on."""
    targets = trace.events("target", "start_ns", "asked").sort_values("start_ns", kind="stable")
    time_ns, asked = targets["start_ns"].to_numpy(), targets["asked"].to_numpy()
    if trace.entire is trace:
        return time_ns, asked
    all_ns, all_asked = targets_of(trace.entire)
    before = int(np.searchsorted(all_ns, trace.after_ns, side="right"))
    if not before:
        return time_ns, asked
    return (
        np.concatenate(([trace.begin_ns], time_ns)),
        np.concatenate((all_asked[before - 1 : before], asked)),
    )


def _ends_within(trace: Trace, kind: int, after_ns: int, until_ns: int) -> Bools:
    """Which events with this number belong to a window."""
    calls = trace.all_events.of_kind(kind, trace.end_ns)
    ends = calls["end_ns"]
    for edge_ns in (after_ns, until_ns):
        if kind in [trace.number("kinds", part) for part in PARTS]:
            ends = _with_its_call(trace, kind, ends, edge_ns)
    inside: Bools = (ends > after_ns) & (ends <= until_ns)
    return inside


def _with_its_call(trace: Trace, kind: int, ends: Ints, edge_ns: int) -> Ints:
    """The ends of calls of one of PARTS, where one that ended before an edge is part of a fill or
    leak that goes on after it: the end of that."""
    for whole in ("fill", "leak"):
        calls = trace.calls(whole)
        reaching = np.flatnonzero((calls["start_ns"] < edge_ns) & (calls["end_ns"] > edge_ns))
        if not len(reaching):
            continue
        parts = trace.all_events.of_kind(kind, trace.end_ns)
        of_leak = trace.marked(parts, "within", "within", "leak")
        mine = (of_leak if whole == "leak" else ~of_leak) & (ends <= edge_ns)
        for place in reaching.tolist():
            begun = parts["start_ns"] >= calls["start_ns"][place]
            its = mine & begun & (parts["tid"] == calls["tid"][place])
            ends = np.where(its, calls["end_ns"][place], ends)
    return ends


def _delays(entire: Trace, after_ns: int, until_ns: int) -> TaskDelays:
    """The delays of the tasks that were read in a window, each from its last reading before."""
    if not entire.samples.delays.tasks or (after_ns < 0 and until_ns == FOREVER):
        return entire.samples.delays
    before, inside = TaskDelays(), TaskDelays()
    for sample in _delay_samples(entire):
        if (time_ns := int(sample.get("t_ns", FOREVER))) <= until_ns:
            (before if time_ns <= after_ns else inside).add(sample["delays"])
    inside.begin_with(before)
    return inside


def _delay_samples(entire: Trace) -> Iterator[dict[str, Any]]:
    """The samples with delays of tasks, which are read once more: only the first and last reading
    of each task was kept."""
    wanted = _DelaySamples()
    if entire.from_memory:
        for sample in entire.recording.samples:
            wanted.add(sample)
    else:
        read_recording(entire.recording.path, lambda *_: None, wanted)
    yield from wanted.found


class _DelaySamples:
    """Keeps samples with delays of tasks, and no others (reader.SampleTaker)."""

    def __init__(self) -> None:
        self.found: list[dict[str, Any]] = []

    def take(self, payload: bytes) -> bool:
        """Whether a sample, as it stands in the file, is of no interest."""
        return b'"delays"' not in payload

    def take_numbers(self, reference: Reference, numbers: Ints) -> bool:
        """Whether samples of numbers are of no interest: delays have names of tasks in them."""
        return True

    def add(self, sample: dict[str, Any]) -> bool:
        """Keep a sample if it has delays."""
        if isinstance(sample.get("delays"), dict):
            self.found.append(sample)
        return True
