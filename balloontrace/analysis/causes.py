"""Who took pages back out of the balloon, and why (metrics.md: cause of a leak)."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from balloontrace.analysis.base import Analysis, Result
from balloontrace.analysis.trace import Bools, Trace, known_pages, section
from balloontrace.events import CAUSES

CAUSE_NAMES = (*(cause for cause, _ in CAUSES), "unknown")

ACTORS = {
    "worker": "size worker",
    "kswapd": "kswapd",
    "inflation": "the balloon's own inflation",
    "recorder": "the recorder itself",
}
"""Kind of actor -> label; an actor of the kind `task` is called by its comm."""


def cause_codes(trace: Trace, frame: pd.DataFrame) -> npt.NDArray[np.int8]:
    """For each event of `frame` the index in CAUSE_NAMES of its cause (see events.CAUSES)."""
    codes = np.full(len(frame), len(CAUSES), dtype=np.int8)
    for code, (_, bit) in reversed(list(enumerate(CAUSES))):
        codes[trace.marked(frame, "within", "within", bit)] = code
    return codes


def by_reclaim(trace: Trace, leaks: pd.DataFrame) -> Bools:
    """Which leaks the shrinker made."""
    made: Bools = cause_codes(trace, leaks) == CAUSE_NAMES.index("shrinker")
    return made


def by_recorder(trace: Trace, calls: pd.DataFrame) -> Bools:
    """Which calls the recorder's own processes made."""
    tasks = section(trace.header, "tasks")
    mine: Bools = calls["pid"].isin([tasks.get("recorder"), tasks.get("netlink")]).to_numpy()
    return mine


def actor_name(row: dict[str, Any]) -> str:
    """The actor of a row in words: a task cannot pass for one of ACTORS by its name."""
    return f"task {row['actor']}" if row["actor_kind"] == "task" else str(row["actor"])


class Causes(Analysis):
    """Leaks by cause and actor: calls, pages given back, time spent."""

    name = "causes"
    requires = ("leak",)

    def run(self, trace: Trace) -> Result:
        """One row per cause and actor, most pages first; busy_s in seconds of wall clock."""
        leaks = trace.events("leak")
        causes = cause_codes(trace, leaks)
        actors = _actor_codes(trace, leaks, causes)
        # Only a task is told apart by its name: a kernel worker's name changes from call to call.
        task_names, names = trace.names("leak")
        table = pd.DataFrame(
            {
                "cause": causes,
                "actor": actors,
                "name": np.where(actors == len(ACTORS), task_names, -1),
                "pages": known_pages(leaks),
                "busy_ns": leaks["duration_ns"],
            }
        )
        return Result(self.name, tables={self.name: _rows(table, names)})


def _actor_codes(
    trace: Trace, leaks: pd.DataFrame, causes: npt.NDArray[np.int8]
) -> npt.NDArray[np.int64]:
    """Who made each leak: an index in ACTORS, or len(ACTORS) for any other task."""
    tasks = section(trace.header, "tasks")
    shrinker = causes == CAUSE_NAMES.index("shrinker")
    kswapd = leaks["tid"].isin(tasks.get("kswapd") or []).to_numpy()
    conditions = {
        "worker": causes == CAUSE_NAMES.index("host"),
        "kswapd": shrinker & kswapd,
        "inflation": shrinker & trace.marked(leaks, "within", "within", "worker"),
        "recorder": by_recorder(trace, leaks),
    }
    codes: npt.NDArray[np.int64] = np.select(
        [conditions[actor] for actor in ACTORS], list(range(len(ACTORS))), default=len(ACTORS)
    )
    return codes


def _rows(table: pd.DataFrame, names: list[str]) -> list[dict[str, Any]]:
    """One row for each cause and actor that occurs, most pages first."""
    groups = table.groupby(["cause", "actor", "name"])
    sums = groups.agg(calls=("pages", "size"), pages=("pages", "sum"), busy_ns=("busy_ns", "sum"))
    sums = sums.reset_index().sort_values(["pages", "calls"], ascending=False, kind="stable")
    kinds, labels = [*ACTORS, "task"], list(ACTORS.values())
    columns = (sums[column].tolist() for column in sums.columns)
    return [
        {
            "cause": CAUSE_NAMES[cause],
            "actor": names[name] if name >= 0 else labels[actor],
            "actor_kind": kinds[actor],
            "calls": calls,
            "pages": pages,
            "busy_s": busy_ns / 1e9,
        }
        for cause, actor, name, calls, pages, busy_ns in zip(*columns, strict=True)
    ]
