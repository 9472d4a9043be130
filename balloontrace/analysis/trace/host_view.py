# SPDX-License-Identifier: Apache-2.0
"""The host's view that is laid beside a recording."""

from __future__ import annotations

from functools import cached_property
from typing import Any

import numpy as np

from balloontrace.analysis.trace.columns import Ints
from balloontrace.analysis.trace.trace import Trace, section
from balloontrace.errors import EXIT_USAGE, UserError
from balloontrace.events import BALLOON_PAGE_BYTES
from balloontrace.recording.host_clock import HostClock, Moment, by_wall_clocks
from balloontrace.recording.host_lines import (
    ACTUAL,
    CLOCK,
    MEMORY,
    SEEN,
    STATE,
    TARGET,
    HostLines,
    read_host,
    resident_bytes,
)


class HostView:
    """lines: as they stand in the file; clock: from the host's moments to the guest's."""

    def __init__(
        self,
        lines: HostLines,
        boot_id: str | None = None,
        guests: dict[str, Any] | None = None,
    ) -> None:
        """boot_id: of the recording: pairs of another boot of the guest are of no use; guests: the
        guest's own pair of CLOCK_MONOTONIC and wall clock, in its recording."""
        self.lines = lines
        pairs = [line for line in lines.of(CLOCK) if boot_id in (None, line.get("boot_id"))]
        self.clock = HostClock(pairs, lines.of(STATE), by_wall_clocks(lines.begin, guests or {}))

    @cached_property
    def targets(self) -> list[HostTarget]:
        """What the host wanted, in order of time; one that it sent again is no other."""
        found: list[HostTarget] = []
        for line in self.lines.of(TARGET):
            if "bytes" not in line:
                continue
            pages = int(line["bytes"]) // BALLOON_PAGE_BYTES
            if found and found[-1].pages == pages:
                found[-1].sent += 1
                continue
            t_ns, seen = int(line["t_ns"]), line.get("by") == SEEN
            after_ns = line.get("after_ns") if seen else t_ns
            found.append(HostTarget(pages, None if after_ns is None else min(after_ns, t_ns), t_ns))
        return found

    @cached_property
    def actual(self) -> tuple[Ints, Ints]:
        """Moments of the host's clock, and the balloon pages that it was told then."""
        lines = [line for line in self.lines.of(ACTUAL) if "bytes" in line]
        times, told = _columns(lines, lambda line: line["bytes"])
        return times, told // BALLOON_PAGE_BYTES

    @cached_property
    def resident(self) -> tuple[Ints, Ints]:
        """Moments of the host's clock, and the bytes of the host's memory that the hypervisor's
        process had, those of huge pages among them."""
        lines = [line for line in self.lines.of(MEMORY) if resident_bytes(line) is not None]
        return _columns(lines, resident_bytes)

    def set_at(self, target: HostTarget) -> Moment | None:
        """When it was set, by the guest's clock; None: not known, or before anybody looked."""
        if target.after_ns is None:
            return None
        at = self.clock.at((target.after_ns + target.by_ns) // 2)
        wide_ns = (target.by_ns - target.after_ns + 1) // 2
        return None if at is None else Moment(at.ns, at.error_ns + wide_ns)

    def by_guests_clock(self, trace: Trace, series: tuple[Ints, Ints]) -> tuple[Ints, Ints]:
        """What of a series with the host's moments is within a trace, with the guest's."""
        moments = [self.clock.at(ns) for ns in series[0].tolist()]
        known = [
            (at.ns, value)
            for at, value in zip(moments, series[1].tolist(), strict=True)
            if at is not None and trace.begin_ns <= at.ns <= trace.end_ns
        ]
        times, values = np.array(sorted(known), dtype=np.int64).reshape(-1, 2).T
        return times, values

    def last_ns(self) -> int:
        """The last moment of the host's clock that a line has."""
        return max(
            (told[-1]["t_ns"] for told in self.lines.events.values() if told),
            default=int(self.lines.begin["t_ns"]),
        )


class HostTarget:
    """A target: balloon pages; set between two moments of the host's clock, which are one where the
    host itself tells, and None where it stood before anybody looked; sent: how often in a row."""

    def __init__(self, pages: int, after_ns: int | None, by_ns: int) -> None:
        self.pages, self.after_ns, self.by_ns, self.sent = pages, after_ns, by_ns, 1


def _columns(lines: list[dict[str, Any]], value: Any) -> tuple[Ints, Ints]:
    times = np.array([line["t_ns"] for line in lines], dtype=np.int64)
    return times, np.array([value(line) for line in lines], dtype=np.int64)


def lay_beside(trace: Trace, path: str) -> None:
    """Give the trace, and what is cut of it later, the host's view in a file.

    Raises UserError if that cannot be read, or is of another guest, or of this one's other boot.
    """
    lines, boot_id = read_host(path), section(trace.header, "guest").get("boot_id")
    told = {line["boot_id"] for line in lines.of(CLOCK) if "boot_id" in line}
    if boot_id and told and boot_id not in told:
        raise UserError(
            f"{path} is of another guest, or of another boot of this one",
            "lay those beside each other that were recorded at the same time",
            EXIT_USAGE,
        )
    guests = section(trace.header, "clock")
    trace.host = HostView(lines, boot_id if told else None, guests)
