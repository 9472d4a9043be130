# SPDX-License-Identifier: Apache-2.0
"""Who took pages back out of the balloon, and why (metrics.md: cause of a leak)."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from balloontrace.analysis.base import Analysis, Result
from balloontrace.analysis.trace import Bools, Columns, Ints, Trace, known_pages, section
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


class Causes(Analysis):
    """Leaks by cause and actor: calls, pages given back, time spent."""

    name = "causes"
    requires = ("leak",)

    def run(self, trace: Trace) -> Result:
        """One row per cause and actor, most pages first; busy_s in seconds of wall clock."""
        columns = ("start_ns", "duration_ns", "done", "tid", "pid", "within", "flags")
        leaks = trace.events("leak", *columns)
        causes = cause_codes(trace, leaks)
        actors = _actor_codes(trace, leaks, causes)
        # Only a task is told apart by its name: a kernel worker's name changes from call to call.
        task_names, names = trace.names("leak")
        names_of = np.where(actors == len(ACTORS), task_names, -1)
        return Result(self.name, tables={self.name: _rows(causes, actors, names_of, names, leaks)})


def _actor_codes(
    trace: Trace, leaks: pd.DataFrame, causes: npt.NDArray[np.int8]
) -> npt.NDArray[np.int64]:
    """Who made each leak: an index in ACTORS, or len(ACTORS) for any other task."""
    shrinker = causes == CAUSE_NAMES.index("shrinker")
    conditions = {
        "worker": causes == CAUSE_NAMES.index("host"),
        "kswapd": shrinker & by_kswapd(trace, leaks),
        "inflation": shrinker & trace.marked(leaks, "within", "within", "worker"),
        "recorder": by_recorder(trace, leaks),
    }
    codes: npt.NDArray[np.int64] = np.select(
        [conditions[actor] for actor in ACTORS], list(range(len(ACTORS))), default=len(ACTORS)
    )
    return codes


def by_kswapd(trace: Trace, calls: pd.DataFrame) -> Bools:
    """Which calls a kswapd made."""
    kswapd: Bools = calls["tid"].isin(section(trace.header, "tasks").get("kswapd") or []).to_numpy()
    return kswapd | trace.marked(calls, "flags", "flags", "kswapd")


def by_recorder(trace: Trace, calls: pd.DataFrame) -> Bools:
    """Which calls the tracer's own processes made: the recorder, its netlink process, and those
    that attached the probes, each of which was gone when the recorder told of it."""
    tasks = section(trace.header, "tasks")
    own: Bools = calls["pid"].isin([tasks.get("recorder"), tasks.get("netlink")]).to_numpy()
    loaders = [(tasks.get("loader"), trace.header.get("attached_ns"))]
    loaders += [(change.get("loader"), change["t_ns"]) for change in trace.driver_changes]
    for pid, gone_ns in loaders:
        if pid is not None and gone_ns is not None:
            own = own | ((calls["pid"] == pid) & (calls["start_ns"] <= gone_ns)).to_numpy()
    return own


def _rows(
    causes: npt.NDArray[np.int8], actors: Ints, task_names: Ints, names: list[str], leaks: Columns
) -> list[dict[str, Any]]:
    """One row for each cause and actor that occurs, most pages first. task_names: -1 for an actor
    that is none of `names`."""
    kinds, labels = [*ACTORS, "task"], list(ACTORS.values())
    shape = len(CAUSE_NAMES), len(kinds), len(names) + 1
    groups = np.ravel_multi_index((causes, actors, task_names + 1), shape)
    calls, pages, busy_ns = np.zeros((3, np.prod(shape)), dtype=np.int64)
    np.add.at(calls, groups, 1)
    np.add.at(pages, groups, known_pages(leaks))
    np.add.at(busy_ns, groups, np.asarray(leaks["duration_ns"]))
    found = np.flatnonzero(calls)
    places = zip(*(axis.tolist() for axis in np.unravel_index(found, shape)), strict=True)
    rows = [
        {
            "cause": CAUSE_NAMES[cause],
            "actor": names[name - 1] if name else labels[actor],
            "actor_kind": kinds[actor],
            "calls": int(calls[group]),
            "pages": int(pages[group]),
            "busy_s": int(busy_ns[group]) / 1e9,
        }
        for group, (cause, actor, name) in zip(found.tolist(), places, strict=True)
    ]
    return sorted(rows, key=lambda row: (row["pages"], row["calls"]), reverse=True)
