# SPDX-License-Identifier: Apache-2.0
"""How long tasks of the guest stalled for lack of memory, as the kernel counts it (PSI)."""

from __future__ import annotations

from typing import Any

import numpy as np

from balloontrace.analysis.trace.samples import UNREAD
from balloontrace.analysis.trace.trace import Trace

SHARES = ("some", "full")
"""At least one task stalled; all tasks that were not idle stalled."""


class MemoryPressure:
    """The memory totals of /proc/pressure in the samples of a trace, about one a second."""

    def __init__(self, trace: Trace) -> None:
        totals = {share: trace.samples.column("memory", f"{share}_us") for share in SHARES}
        read = np.logical_and.reduce([total != UNREAD for total in totals.values()])
        time_ns = trace.samples.time_ns[read]  # a copy, in which can be searched
        self._time_ns, self._total_us = time_ns, totals
        if not read.all():
            self._total_us = {share: total[read] for share, total in totals.items()}
        if (time_ns[1:] < time_ns[:-1]).any():
            order = np.argsort(time_ns, kind="stable")
            self._time_ns = time_ns[order]
            self._total_us = {share: total[order] for share, total in self._total_us.items()}

    def between(self, start_ns: int, end_ns: int) -> dict[str, Any]:
        """Seconds stalled between the first and the last sample within a span, and the seconds
        between these two; None where there are fewer than two. What is before the first and after
        the last is not in it."""
        first = int(np.searchsorted(self._time_ns, start_ns, side="left"))
        last = int(np.searchsorted(self._time_ns, end_ns, side="right")) - 1
        if last <= first:
            return dict.fromkeys(("psi_some_s", "psi_full_s", "psi_span_s"))
        return {
            **{
                f"psi_{share}_s": int(total[last] - total[first]) / 1e6
                for share, total in self._total_us.items()
            },
            "psi_span_s": int(self._time_ns[last] - self._time_ns[first]) / 1e9,
        }
