# SPDX-License-Identifier: Apache-2.0
"""What took pages back out of the balloon, and who did (metrics.md: cause of a leak)."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from balloontrace.analysis.trace.trace import Bools, Columns, Trace, section
from balloontrace.events import CAUSES

CAUSE_NAMES = (*(cause for cause, _ in CAUSES), "unknown")

ACTORS = {
    "worker": "size worker",
    "kswapd": "kswapd",
    "inflation": "the balloon's own inflation",
    "recorder": "the recorder itself",
}
"""Kind of actor -> label; an actor of the kind `task` is called by its comm."""


def cause_codes(trace: Trace, calls: Columns) -> npt.NDArray[np.int8]:
    """For each of `calls` the index in CAUSE_NAMES of its cause (see events.CAUSES)."""
    codes = np.full(len(calls), len(CAUSES), dtype=np.int8)
    for code, (_, bit) in reversed(list(enumerate(CAUSES))):
        codes[trace.marked(calls, "within", "within", bit)] = code
    return codes


def by_reclaim(trace: Trace, leaks: Columns) -> Bools:
    """Which leaks the shrinker made."""
    made: Bools = cause_codes(trace, leaks) == CAUSE_NAMES.index("shrinker")
    return made


def actor_name(row: dict[str, Any]) -> str:
    """The actor of a row in words: a task cannot pass for one of ACTORS by its name."""
    return f"task {row['actor']}" if row["actor_kind"] == "task" else str(row["actor"])


def by_kswapd(trace: Trace, calls: pd.DataFrame) -> Bools:
    """Which calls a kswapd made."""
    kswapd = _is_any_of(calls["tid"], section(trace.header, "tasks").get("kswapd") or [])
    return kswapd | trace.marked(calls, "flags", "flags", "kswapd")


def by_recorder(trace: Trace, calls: pd.DataFrame) -> Bools:
    """Which calls the tracer's own processes made: the recorder, its netlink process, and those
    that attached the probes, each of which was gone when the recorder told of it."""
    tasks = section(trace.header, "tasks")
    own = _is_any_of(calls["pid"], [tasks.get("recorder"), tasks.get("netlink")])
    loaders = [(tasks.get("loader"), trace.header.get("attached_ns"))]
    loaders += [(change.get("loader"), change["t_ns"]) for change in trace.driver_changes]
    for pid, gone_ns in loaders:
        if pid is not None and gone_ns is not None:
            own |= _is_any_of(calls["pid"], [pid]) & (calls["start_ns"] <= gone_ns).to_numpy()
    return own


def _is_any_of(ids: pd.Series[int], few: list[int | None]) -> Bools:
    """Which of these are one of a few: a comparison with each takes a tenth of `isin`."""
    values = ids.to_numpy()
    found: Bools = np.zeros(len(values), bool)
    for one in few:
        if one is not None:
            found |= values == one
    return found
