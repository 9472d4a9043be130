# SPDX-License-Identifier: Apache-2.0
"""A recording of the guest's own counters: no events, no BPF, no privilege.

Totals are exact, for they are those of /proc/vmstat; what happened between two readings is not
known. It has the recorder's place in the loop (recorder.py).
"""

from __future__ import annotations

import time

from balloontrace.tracers.record.not_run import NotRun
from balloontrace.tracers.record.recorder import own_costs, write_end
from balloontrace.tracers.samplers import OF_A_TRACE, Samplers
from balloontrace.tracers.samplers.kernel_threads import KernelThreads
from balloontrace.tracers.samplers.vmstat import BALLOON_COUNTERS, balloon_counters

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from balloontrace.recording.writer import Writer
    from balloontrace.tracers.record.marks import Marks

SAMPLE_INTERVAL_S = 0.1
FOLLOW_INTERVAL_S = 1.0
WRITE_EVERY = 10
"""Samples that are understood and written together, for half the cost. Who kills the recorder
(SIGKILL) takes less than a second with it."""


class CounterRecorder:
    """One recording from header to trailer."""

    sample_interval_s = SAMPLE_INTERVAL_S

    def __init__(
        self, content: dict[str, Any], writer: Writer, options: dict[str, Any], marks: Marks | None
    ) -> None:
        """Writes the header and the first sample. content: description.of_counters.

        Raises UserError if the file takes no more.
        """
        self._writer = writer
        self._sync, self._marks = options["sync"], marks
        self._samplers = Samplers((*OF_A_TRACE, KernelThreads))
        self._not_run, self._begun_ns = NotRun(), time.monotonic_ns()
        self._samples = 0
        self._unwritten: list[tuple[int, list[Any]]] = []
        self._last: dict[str, Any] = {}
        now = balloon_counters()
        self._writer.header({
            **content,
            "attached_ns": self._begun_ns,
            "absent_samplers": self._samplers.absent,
            "vmstat_attach": {"before": now, "after": now},
            "counters": {"interval_s": SAMPLE_INTERVAL_S},
            **({"marks": True} if marks else {}),
        })  # fmt: skip
        self.sample()

    @property
    def bytes_written(self) -> int:
        """Size of the recording so far."""
        return self._writer.bytes_written

    def drain(self, sample_follows: bool = False) -> float:
        """There is no ring."""
        return FOLLOW_INTERVAL_S

    def sample(self) -> None:
        """See what the counters say now; with `sync`, it is on the disk then."""
        self._unwritten.append((time.monotonic_ns(), self._samplers.texts()))
        self._samples += 1
        if self._sync or self._samples % WRITE_EVERY == 0:
            self._write()

    def _write(self) -> None:
        unwritten, self._unwritten = self._unwritten, []
        for number, (t_ns, texts) in enumerate(unwritten, 1):
            self._last = self._samplers.values(texts)
            self._writer.sample({"t_ns": t_ns, **self._last}, more_follow=number < len(unwritten))
        if self._sync:
            self._writer.sync()

    def follow(self) -> None:
        """Write what was marked."""
        if self._marks:
            for mark in self._marks.read(self._begun_ns):
                self._write()  # in the order of time
                self._writer.sample(mark)

    def finish(self, reason: str, command: dict[str, Any] | None) -> dict[str, Any]:
        """Read once more and write the trailer; returns the trailer."""
        if self._marks:
            self._marks.refuse()
        self.follow()
        self.sample()
        self._write()
        vmstat = self._last.get("vmstat", {})
        now = {name: vmstat[name] for name in BALLOON_COUNTERS if name in vmstat}
        trailer = {
            "reason": reason,
            "ended_ns": time.monotonic_ns(),
            **self._not_run.since(),
            "vmstat_detach": {"before": now, "after": now},
            "events": 0,
            "lost_events": 0,
            "samples": self._samples,
            "cpu": self._last.get("cpu"),
            "recorder": own_costs(),
            "command": command,
        }
        write_end(self._writer, trailer, self._marks, self._sync)
        return trailer

    def detach(self) -> None:
        """Nothing is attached."""
