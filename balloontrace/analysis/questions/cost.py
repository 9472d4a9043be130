# SPDX-License-Identifier: Apache-2.0
"""What ballooning cost the guest: time in the driver, tasks stalled there, pressure, delays."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd

from balloontrace.analysis.base import Question, Result, Section
from balloontrace.analysis.fields import Field, Table, Unit
from balloontrace.analysis.questions.delays import DELAYS, Delays
from balloontrace.analysis.trace.calls import (
    COLUMNS,
    BusyTime,
    of_worker,
    outermost,
    time_inside,
    waits,
)
from balloontrace.analysis.trace.causes import ACTORS, by_kswapd, by_recorder
from balloontrace.analysis.trace.columns import Bools, Ints
from balloontrace.analysis.trace.pressure import MemoryPressure
from balloontrace.analysis.trace.trace import Trace, known_pages, section

STALLS = ("scan", "oom_notify", "leak", "migrate")
"""Kinds of call in which a task that wanted something else worked for the balloon."""

_TASK = len(ACTORS)


PRESSURE = (
    Field("psi_some_s", Unit.SECONDS, "some task stalled for memory"),
    Field("psi_full_s", Unit.SECONDS, "all of them stalled for memory"),
    Field("psi_span_s", Unit.SECONDS, "of so long between the first and the last sample"),
)
"""Of MemoryPressure, in a span of time."""

SPAN_COST = (
    Field("driver_busy_s", Unit.SECONDS, "wall clock in the driver without sleeps and host acks"),
    Field("driver_busy_share", Unit.SHARE, "of one CPU"),
    *PRESSURE,
)
"""What ballooning cost in a span of time, see SpanCost."""

_DELAYS = (
    Field("tasks", Unit.NUMBER, "whose delays were read"),
    Field("unknown", Unit.NUMBER, "of these, in no sum: read too seldom"),
    *(Field(f"{delay}_s", Unit.SECONDS) for delay in DELAYS),
)

_TASKS = (
    Field("actor", Unit.TEXT, "a task's name, or one of the other kinds", "stalled in the driver"),
    Field("actor_kind", Unit.TEXT, words=(*ACTORS, "task")),
    Field("calls", Unit.NUMBER, title="calls"),
    Field("stalled_s", Unit.SECONDS, "in the driver's code", "in all"),
    Field("longest_s", Unit.SECONDS, "call", "longest"),
    Field("host_ack_s", Unit.SECONDS, "of stalled_s, waiting for the host", "host ack"),
    Field("freed_pages", Unit.PAGES, "taken out of the balloon", "pages out"),
    Field("migrated_pages", Unit.PAGES, title="migrated"),
    *(Field(f"{kind}_s", Unit.SECONDS, f"of stalled_s, in {kind}") for kind in STALLS),
)


class Cost(Question):
    """Time spent on ballooning by anybody, and by whom it was not the business of.

    driver_busy_s is wall clock in outermost calls of the driver, without its sleeps and its waits
    for the host. It is not CPU time: a call that waits for a CPU, for a lock or for reclaim's
    writing is busy too, and what telling the host costs is not in it.
    """

    section = Section(
        "cost",
        "Cost",
        70,
        "what ballooning took from the guest",
        (*SPAN_COST, Field("delays", _DELAYS, "sums over the tasks of the section Delays")),
        (Table("tasks", _TASKS, "tasks", "who but the size worker was in the driver's code"),),
    )
    requires = ("leak",)
    optional = ("fill", "ack", "sleep", *STALLS)

    def run(self, trace: Trace) -> Result:
        """Scalars: see SpanCost, and `delays`; table `tasks`: who but the size worker was in the
        driver's code, longest first. Seconds; None if not recorded."""
        scalars = SpanCost(trace).between(trace.begin_ns, trace.end_ns)
        return Result(self.name, scalars | {"delays": _delays(trace)}, {"tasks": _tasks(trace)})


class SpanCost:
    """What ballooning cost in any span of a recording."""

    def __init__(self, trace: Trace) -> None:
        trace = trace.entire  # a call that reaches out of a window counts with the part inside
        self._pressure = MemoryPressure(trace)
        split = trace.recorded("ack") and trace.recorded("sleep")
        self._busy = BusyTime(trace) if split else None

    def between(self, start_ns: int, end_ns: int) -> dict[str, Any]:
        """`driver_busy_s` and `driver_busy_share`, of one CPU over the span (above 1 if several
        tasks were in the driver): None if waits and sleeps were not recorded. `psi_*`: see
        MemoryPressure."""
        busy = self._busy.between(start_ns, end_ns) if self._busy else None
        span_s = (end_ns - start_ns) / 1e9
        share = busy / span_s if busy is not None and span_s else None
        pressure = self._pressure.between(start_ns, end_ns)
        return {"driver_busy_s": busy, "driver_busy_share": share, **pressure}


def _delays(trace: Trace) -> dict[str, Any] | None:
    """Sums over the tasks whose delays were read, without kswapd and the tracer's own; None if
    there are none.

    A task's `cpu` delay is its wait for a CPU; the others are None where they were not counted.
    unknown: tasks that are in no sum, for they were read too seldom.
    """
    result = Delays().run(trace)
    tasks = section(trace.header, "tasks")
    own = (tasks.get("recorder"), tasks.get("netlink"))
    rows = [
        row for row in result.tables.get("tasks", []) if not row["kswapd"] and row["tid"] not in own
    ]
    if not rows:
        return None
    sums: dict[str, Any] = {"tasks": len(rows), "unknown": sum(map(_unknown, rows))}
    for delay in DELAYS:
        known = [row[f"{delay}_s"] for row in rows if row[f"{delay}_s"] is not None]
        sums[f"{delay}_s"] = sum(known) if known else None
    return sums


def _unknown(row: dict[str, Any]) -> bool:
    return all(row[f"{delay}_s"] is None for delay in DELAYS)


class _Sums(NamedTuple):
    """Of the calls of one of STALLS that one actor made; actor: an index in ACTORS, or _TASK, whose
    name is given."""

    actor: int
    name: str
    kind: str
    calls: int
    ns: int
    ack_ns: int
    longest_ns: int
    pages: int


def _tasks(trace: Trace) -> list[dict[str, Any]]:
    """One row for each task that was in the driver's code and is not the size worker."""
    of_task: dict[tuple[int, str], list[_Sums]] = {}
    for kind in STALLS:
        for sums in _sums(trace, kind):
            of_task.setdefault((sums.actor, sums.name), []).append(sums)
    rows = [_row(trace, of_task[task]) for task in sorted(of_task)]
    return sorted(rows, key=lambda row: (-float(row["stalled_s"]), -int(row["calls"])))


def _sums(trace: Trace, kind: str) -> Iterator[_Sums]:
    """Each actor's calls of a kind. What is outermost does not overlap what is of another kind, so
    that each can be looked at alone."""
    stalls = outermost(trace, kind) & ~of_worker(trace, kind)
    if not stalls.any():
        return
    calls = trace.calls(kind).picked(stalls, *COLUMNS, "pid")
    trace.forget_arrays()
    ack_ns = time_inside(calls, _acks_of_others(trace))
    actors, (codes, names) = _actors(trace, calls), trace.names_of(calls)
    codes[actors != _TASK] = -1
    codes += 1
    # Sums by hand: a data frame's groups take several times the memory of what they are of.
    shape = len(ACTORS) + 1, len(names) + 1
    groups = actors  # ravel_multi_index makes copies
    groups *= shape[1]
    groups += codes
    del codes
    groups, found = pd.factorize(groups, sort=True)

    def summed(values: Ints | int) -> list[int]:
        sums = np.zeros(len(found), np.int64)
        np.add.at(sums, groups, values)
        return [int(value) for value in sums]

    durations_ns = calls["duration_ns"].to_numpy()
    longest_ns = np.full(len(found), np.iinfo(np.int64).min)
    np.maximum.at(longest_ns, groups, durations_ns)
    numbers = summed(1), summed(durations_ns), summed(ack_ns), longest_ns.tolist()
    pages = summed(_pages(trace, kind, stalls))
    actor, name = (places.tolist() for places in np.unravel_index(found, shape))
    for who, place, *sums in zip(actor, name, *numbers, pages, strict=True):
        yield _Sums(who, ["", *names][place], kind, *sums)


def _acks_of_others(trace: Trace) -> Iterator[pd.DataFrame]:
    """The waits for the host that were not the size worker's."""
    acks = trace.calls("ack")
    own = waits(trace)["ack"] & ~trace.marked(acks, "within", "within", "worker")
    return acks.pieces(own, *COLUMNS)


def _row(trace: Trace, sums: list[_Sums]) -> dict[str, Any]:
    """One task's row. sums: of each kind of call it made."""
    actor, name = sums[0].actor, sums[0].name
    by_kind = {one.kind: one for one in sums}
    recorded = {kind: trace.recorded(kind) for kind in STALLS}
    migrated = by_kind["migrate"].pages if "migrate" in by_kind else 0
    return {
        "actor": name if actor == _TASK else list(ACTORS.values())[actor],
        "actor_kind": [*ACTORS, "task"][actor],
        "calls": sum(one.calls for one in sums),
        "stalled_s": sum(one.ns for one in sums) / 1e9,
        "longest_s": max(one.longest_ns for one in sums) / 1e9,
        "host_ack_s": sum(one.ack_ns for one in sums) / 1e9 if trace.recorded("ack") else None,
        "freed_pages": sum(one.pages for one in sums) - migrated,
        "migrated_pages": migrated if recorded["migrate"] else None,
        **{
            f"{kind}_s": (by_kind[kind].ns if kind in by_kind else 0) / 1e9
            if recorded[kind]
            else None
            for kind in STALLS
        },
    }


def _pages(trace: Trace, kind: str, stalls: Bools) -> Ints:
    """What each of these calls gave back, or moved: balloon pages."""
    pages = known_pages(trace.calls(kind))[stalls]
    return pages if kind == "leak" else pages * trace.pages_per_page


def _actors(trace: Trace, calls: pd.DataFrame) -> npt.NDArray[np.int64]:
    """Who made each call: an index in ACTORS, or _TASK."""
    kinds = list(ACTORS)
    codes: npt.NDArray[np.int64] = np.select(
        [by_recorder(trace, calls), by_kswapd(trace, calls)],
        [kinds.index("recorder"), kinds.index("kswapd")],
        default=_TASK,
    )
    return codes
