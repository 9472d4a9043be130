# SPDX-License-Identifier: Apache-2.0
"""Who took pages back out of the balloon, and why."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from balloontrace.analysis.base import Question, Result, Section, always
from balloontrace.analysis.fields import Field, Shape, Table, Unit
from balloontrace.analysis.trace.causes import (
    ACTORS,
    CAUSE_NAMES,
    by_kswapd,
    by_recorder,
    cause_codes,
)
from balloontrace.analysis.trace.cgroups import cgroups_of, groups_of
from balloontrace.analysis.trace.gaps import DEFLATED, moved_unseen, pages_between
from balloontrace.analysis.trace.trace import Columns, Ints, Trace, known_pages


class Causes(Question):
    """Leaks by cause and actor: calls, pages given back, time spent."""

    section = Section(
        "causes",
        "Causes",
        60,
        "who took pages out of the balloon, and why",
        tables=(
            Table(
                "causes",
                (
                    Field("cause", Unit.TEXT, "what made the leak", words=CAUSE_NAMES),
                    Field(
                        "actor", Unit.TEXT, "who made it: a task's name, or one of the other kinds"
                    ),
                    Field("actor_kind", Unit.TEXT, words=(*ACTORS, "task")),
                    Field(
                        "cgroups",
                        Unit.TEXT,
                        "paths of the control groups of the tasks of that name, as far as known",
                        shape=Shape.ARRAY,
                    ),
                    Field("calls", Unit.NUMBER),
                    Field("pages", Unit.PAGES, "given back"),
                    Field("busy_s", Unit.SECONDS, "wall clock in the calls"),
                ),
                "causes",
            ),
        ),
        first_screen=always,
    )
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
        rows = _rows(causes, actors, names_of, names, leaks)
        _name_cgroups(trace, rows, names_of, names, leaks)
        notes = []
        if (unseen := moved_unseen(trace, DEFLATED)) != (0, 0):
            out = pages_between(unseen)
            notes.append(f"not counted: {out} out while the driver was not traced")
        return Result(self.name, tables={self.name: rows}, notes=notes)


def _name_cgroups(
    trace: Trace, rows: list[dict[str, Any]], names_of: Ints, names: list[str], leaks: pd.DataFrame
) -> None:
    """Add `cgroups` to each row: those of the tasks of its name."""
    of_name: dict[str, list[str]] = {}
    if cgroups_of(trace):
        tids = leaks["tid"].to_numpy()
        for code in np.unique(names_of[names_of >= 0]).tolist():
            of_name[names[code]] = groups_of(trace, np.unique(tids[names_of == code]).tolist())
    for row in rows:
        row["cgroups"] = of_name.get(row["actor"], []) if row["actor_kind"] == "task" else []


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
