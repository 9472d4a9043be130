# SPDX-License-Identifier: Apache-2.0
"""What ballooning cost the guest: time in the driver, tasks stalled there, pressure, delays."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

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


def _tasks(trace: Trace) -> list[dict[str, Any]]:
    """One row for each task that was in the driver's code and is not the size worker."""
    frames = [_stalls(trace, number) for number in range(len(STALLS))]
    frames = [frame for frame in frames if len(frame)] or frames[:1]
    calls = pd.concat(frames) if len(frames) > 1 else frames[0]
    del frames
    trace.forget_arrays()
    ack_ns = time_inside(calls, _acks_of_others(trace))
    actors, (codes, names) = _actors(trace, calls), trace.names_of(calls)
    codes[actors != _TASK] = -1
    # Sums by hand: a data frame's groups take several times the memory of what they are of.
    shape = len(ACTORS) + 1, len(names) + 1, len(STALLS)
    groups = actors  # ravel_multi_index makes copies
    codes += 1
    for length, axis in zip(shape[1:], (codes, calls["kind"].to_numpy()), strict=True):
        groups *= length
        groups += axis
    del codes, axis
    groups, found = pd.factorize(groups, sort=True)
    actor, name, kind = np.unravel_index(found, shape)
    table = pd.DataFrame({"actor": actor, "name": name - 1, "kind": kind})
    columns = {"ns": calls["duration_ns"], "ack_ns": ack_ns, "pages": calls["pages"], "calls": 1}
    for column, values in columns.items():
        sums = np.zeros(len(found), np.int64)
        np.add.at(sums, groups, np.asarray(values))
        table[column] = sums
    longest = np.full(len(found), np.iinfo(np.int64).min)
    np.maximum.at(longest, groups, calls["duration_ns"].to_numpy())
    table["longest"] = longest
    rows = [_row(trace, names, kinds) for _, kinds in table.groupby(["actor", "name"])]
    return sorted(rows, key=lambda row: (-float(row["stalled_s"]), -int(row["calls"])))


def _acks_of_others(trace: Trace) -> Iterator[pd.DataFrame]:
    """The waits for the host that were not the size worker's."""
    acks = trace.calls("ack")
    own = waits(trace)["ack"] & ~trace.marked(acks, "within", "within", "worker")
    return acks.pieces(own, *COLUMNS)


def _row(trace: Trace, names: list[str], kinds: pd.DataFrame) -> dict[str, Any]:
    """One task's row. kinds: sums of each kind of call it made."""
    actor, name = int(kinds["actor"].iloc[0]), int(kinds["name"].iloc[0])
    totals = kinds.sum()
    by_kind = {STALLS[kind]: ns for kind, ns in zip(kinds["kind"], kinds["ns"], strict=True)}
    recorded = {kind: trace.recorded(kind) for kind in STALLS}
    migrated = int(kinds["pages"][kinds["kind"] == STALLS.index("migrate")].sum())
    return {
        "actor": names[name] if actor == _TASK else list(ACTORS.values())[actor],
        "actor_kind": [*ACTORS, "task"][actor],
        "calls": int(totals["calls"]),
        "stalled_s": int(totals["ns"]) / 1e9,
        "longest_s": int(kinds["longest"].max()) / 1e9,
        "host_ack_s": int(totals["ack_ns"]) / 1e9 if trace.recorded("ack") else None,
        "freed_pages": int(totals["pages"]) - migrated,
        "migrated_pages": migrated if recorded["migrate"] else None,
        **{f"{k}_s": int(by_kind.get(k, 0)) / 1e9 if recorded[k] else None for k in STALLS},
    }


def _stalls(trace: Trace, number: int) -> pd.DataFrame:
    """The calls of one of STALLS that are outermost, and not the size worker's."""
    kind = STALLS[number]
    calls = trace.calls(kind)
    chosen = outermost(trace, kind) & ~of_worker(trace, kind)
    unit = 1 if kind == "leak" else trace.pages_per_page
    return calls.picked(chosen, *COLUMNS, "pid").assign(
        kind=np.int8(number), pages=known_pages(calls)[chosen] * unit
    )


def _actors(trace: Trace, calls: pd.DataFrame) -> npt.NDArray[np.int64]:
    """Who made each call: an index in ACTORS, or _TASK."""
    kinds = list(ACTORS)
    codes: npt.NDArray[np.int64] = np.select(
        [by_recorder(trace, calls), by_kswapd(trace, calls)],
        [kinds.index("recorder"), kinds.index("kswapd")],
        default=_TASK,
    )
    return codes
