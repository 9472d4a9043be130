# SPDX-License-Identifier: Apache-2.0
"""What the BPF programs leave in their maps, as it is read while they run: without a system call,
but for the calls that are open."""

from __future__ import annotations

from balloontrace import sums
from balloontrace.tracers.attach import state
from balloontrace.tracers.attach.control import Control
from balloontrace.tracers.machine import system_calls
from balloontrace.tracers.record.ring import ITEM_BYTES, Ring

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from balloontrace.sums import Sum
    from balloontrace.tracers.attach.handover import Handover

_STORM_SHARE = 16
"""Of the ring, a 16th."""


class Tracing:
    """The maps of a handover. control: the words that programs and reader share; ring: the events;
    storm_events: in the ring between two looks, from which on it is looked at more often."""

    def __init__(self, handover: Handover) -> None:
        """Raises OSError."""
        content, maps = handover.content, handover.maps
        self._maps, cpus = maps, content["possible_cpus"]
        self.control = Control(maps["control"])
        self.ring = Ring(maps["events"], content["ring_bytes"])
        self.storm_events = content["ring_bytes"] // ITEM_BYTES // _STORM_SHARE
        map_array = system_calls.map_array
        self._counters = map_array(maps["counters"], state.COUNTERS_BYTES * cpus)
        self._sums = map_array(maps["sums"], sums.BYTES * cpus)
        self._sent_stats = map_array(maps["sent_stats"], state.STATS_BYTES)
        self._target = map_array(maps["last_target"], state.TARGET_BYTES)

    def counters(self) -> dict[str, dict[str, int]]:
        """See state.sum_counters."""
        return state.sum_counters(self._counters[:])

    def raw_sums(self) -> bytes:
        """What `sums` is made of: it is the same as long as no call was added."""
        return self._sums[:]

    def sums(self) -> dict[str, Sum]:
        """See sums.of_rows."""
        return sums.of_rows(self._sums[:])

    def target_pages(self) -> int | None:
        """The target that the size worker read last; None: it has read none."""
        return state.last_target(self._target[:])

    def forget_target(self) -> None:
        """The next target that the size worker reads is an event, whichever it is: for a recording
        that begins while that one is in force."""
        self._target[: state.TARGET_BYTES] = bytes(state.TARGET_BYTES)

    def sent_stats(self) -> dict[str, Any]:
        """See state.sent_stats."""
        return state.sent_stats(self._sent_stats[:])

    def open_calls(self, fill_from: str) -> list[state.OpenCall]:
        """The traced calls that have not returned. fill_from: of state.FILL_FROM."""
        tasks = system_calls.map_entries(self._maps["calls"], state.TASK_BYTES)
        return list(state.open_calls(tasks, fill_from))
