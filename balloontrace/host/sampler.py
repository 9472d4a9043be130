# SPDX-License-Identifier: Apache-2.0
"""What is written of a source and of the hypervisor's process, sample by sample."""

from __future__ import annotations

import time
from typing import Any

from balloontrace import __version__
from balloontrace.host import process
from balloontrace.host.source import Facts, Reading, Source, Statistics
from balloontrace.recording.host_lines import (
    ACTUAL,
    CLOCK,
    MEMORY,
    SEEN,
    STATE,
    STATISTICS,
    TARGET,
    VCPUS,
    HostLog,
)

_PROPORTIONAL_EVERY_S = 10.0
_COST_SHARE = 0.01
"""At most, of the time, for the share of what is shared: of a large guest it takes a second."""

_STATISTICS_EVERY_S = 1.0


class Sampler:
    """Writes a source's samples into a log."""

    def __init__(self, source: Source, log: HostLog) -> None:
        self._source, self._log = source, log
        self._pid = source.facts.pid
        self._threads = _threads(source.facts)
        self._target: int | None = None
        self._asked_ns: int | None = None
        self._state: str | None = None
        self._next_proportional_s = self._next_statistics_s = 0.0

    def begin(
        self, interval_s: float, clocks: bool, sets_targets: bool = False, **facts: Any
    ) -> None:
        """Write the first line, and the first sample.

        clocks: whether pairs of them will come; sets_targets: whether who sets targets writes them
        into the log; facts: more of the first line. Raises UserError if the source does not answer.
        """
        about, asked_ns = self._source.facts, time.monotonic_ns()
        now = self._source.read(statistics=True)
        told = {
            TARGET: sets_targets or now.target_bytes is not None,
            ACTUAL: now.actual_bytes is not None,
            STATISTICS: now.statistics is not None,
            STATE: now.state is not None,
            MEMORY: self._pid is not None and bool(process.memory(self._pid)),
            VCPUS: bool(self._threads),
            CLOCK: clocks,
        }
        self._log.begin(
            tool=f"balloontrace {__version__}",
            hypervisor=about.hypervisor,
            version=about.version,
            memory_bytes=about.memory_bytes,
            pid=self._pid,
            interval_s=interval_s,
            vfio=process.has_vfio(self._pid) if self._pid is not None else None,
            tells=[name for name, is_told in told.items() if is_told],
            **facts,
        )
        self._write(now, asked_ns, time.monotonic_ns())

    def sample(self) -> Reading:
        """Write a sample, which is returned. Raises UserError if the source does not answer."""
        due = time.monotonic() >= self._next_statistics_s
        asked_ns = time.monotonic_ns()
        reading = self._source.read(statistics=due)
        self._write(reading, asked_ns, time.monotonic_ns())
        return reading

    def _write(self, reading: Reading, asked_ns: int, t_ns: int) -> None:
        """asked_ns: when the source was; t_ns: when all was answered."""
        if reading.state is not None and reading.state != self._state:
            self._state = reading.state
            self._log.write(STATE, t_ns, state=reading.state)
        if reading.target_bytes is not None and reading.target_bytes != self._target:
            self._target = reading.target_bytes
            self._log.write(
                TARGET, t_ns, bytes=reading.target_bytes, by=SEEN, after_ns=self._asked_ns
            )
        self._asked_ns = asked_ns  # what is seen changed next was still so then
        if reading.actual_bytes is not None:
            self._log.write(ACTUAL, t_ns, bytes=reading.actual_bytes)
        now_s = t_ns / 1e9
        if reading.statistics is not None:
            self._next_statistics_s = now_s + _STATISTICS_EVERY_S
            self._write_statistics(reading.statistics, t_ns)
        if self._pid is not None:
            self._write_process(self._pid, now_s)

    def _write_statistics(self, told: Statistics, t_ns: int) -> None:
        age_s = None if told.age_s is None else round(told.age_s, 3)
        interval_s = told.polling_interval_s
        self._log.write(
            STATISTICS, t_ns, values=told.values, age_s=age_s, polling_interval_s=interval_s
        )

    def _write_process(self, pid: int, now_s: float) -> None:
        memory: dict[str, int | None] = {**process.memory(pid)}
        if memory and now_s >= self._next_proportional_s:
            started_s = time.monotonic()
            memory["pss_bytes"] = process.proportional(pid)
            took_s = time.monotonic() - started_s
            self._next_proportional_s = now_s + max(_PROPORTIONAL_EVERY_S, took_s / _COST_SHARE)
        if memory:
            self._log.write(MEMORY, None, **memory)
        if spent := process.processors(pid, self._threads):
            self._log.write(VCPUS, None, **spent)


def _threads(facts: Facts) -> tuple[int, ...]:
    """Those that it tells, if they are the process's: within a container they have other ids."""
    if facts.pid is None:
        return ()
    if facts.vcpu_threads and process.has_threads(facts.pid, facts.vcpu_threads):
        return facts.vcpu_threads
    return process.vcpu_threads(facts.pid)
