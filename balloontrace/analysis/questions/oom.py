# SPDX-License-Identifier: Apache-2.0
"""When the guest ran out of memory: what the balloon gave back, and who was killed."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from balloontrace.analysis.base import Question, Result, Section, not_recorded
from balloontrace.analysis.fields import Field, Table, Unit
from balloontrace.analysis.trace.balloon_size import known_curve
from balloontrace.analysis.trace.cgroups import cgroups_of
from balloontrace.analysis.trace.oom_bursts import bouts
from balloontrace.analysis.trace.samples import UNREAD
from balloontrace.analysis.trace.trace import Trace, known_pages, section
from balloontrace.events import UNKNOWN_PAGES

NOTIFIER, KILL = "oom_notify", "oom_kill"


_BOUT = (
    Field("start_s", Unit.MOMENT),
    Field("end_s", Unit.MOMENT),
    Field("calls", Unit.NUMBER, "all but the recorder's own"),
    Field("pages", Unit.PAGES, "given back to them"),
    Field("recorder_calls", Unit.NUMBER),
    Field("recorder_pages", Unit.PAGES),
    Field("retaken_pages", Unit.PAGES, "taken again under the same target meanwhile, at least"),
    Field("notices", Unit.NUMBER, "configuration changes by the host"),
    Field("targets", Unit.NUMBER, "of these, with another target"),
    Field("sampled_s", Unit.SECONDS, "between the samples around it, which the rest is from"),
    Field("refaulted_pages", Unit.PAGES),
    Field("some_share", Unit.SHARE, "PSI: some task could not run for lack of memory"),
    Field("full_share", Unit.SHARE, "PSI: none could"),
)
"""See oom_bursts.bouts."""


def _happened(result: Result) -> bool:
    """Whether the guest ran out of memory at all."""
    counted = ("killed", "vmstat_killed", "notifier_calls")
    return not result.missing and any(result.scalars[key] for key in counted)


class Oom(Question):
    """Calls of the balloon's OOM notifier, and the victims of the OOM killer."""

    section = Section(
        "oom",
        "Out of memory",
        110,
        "what the balloon gave back when the guest ran out of memory, and who was killed",
        (
            Field(
                "notifier_calls", Unit.NUMBER, "how often the OOM killer asked the balloon first"
            ),
            Field("notifier_calls_in_vain", Unit.NUMBER, "those that freed nothing"),
            Field("notifier_pages", Unit.PAGES, "given back"),
            Field("notifier_s", Unit.SECONDS),
            Field("killed", Unit.NUMBER, "tasks"),
            Field(
                "vmstat_killed",
                Unit.NUMBER,
                "oom_kill of /proc/vmstat between first and last sample",
            ),
        ),
        (
            Table(
                "kills",
                (
                    Field("at_s", Unit.MOMENT),
                    Field("victim", Unit.TEXT),
                    Field("victim_pid", Unit.NUMBER),
                    Field(
                        "victim_cgroup",
                        Unit.TEXT,
                        "path of its control group; null: the root, or it was not seen before",
                    ),
                    Field("memcg", Unit.FLAG, "a memory cgroup was out of memory, not the guest"),
                    Field("needed_by", Unit.TEXT, "the task that needed memory"),
                    Field("needed_by_pid", Unit.NUMBER),
                    Field(
                        "needed_by_cgroup",
                        Unit.TEXT,
                        "path of its control group; null: the root, or not known",
                    ),
                    Field("balloon_pages", Unit.PAGES, "in the balloon at that moment"),
                ),
                "kills",
            ),
            Table("bouts", _BOUT, "bursts", "calls of the notifier less than 30 s apart"),
        ),
        first_screen=_happened,
    )
    optional = (NOTIFIER, KILL)

    def run(self, trace: Trace) -> Result:
        """Scalars: the notifier's calls, those that freed nothing, balloon pages, seconds; number
        of kills, and of those that the kernel counted. Table `kills`: one row per victim in order
        of time; table `bouts`: see oom_bursts.py. None: not recorded.
        """
        if not any(trace.recorded(kind) for kind in self.optional):
            return Result(self.name, missing=not_recorded(trace, self.optional))
        kills = _kills(trace) if trace.recorded(KILL) else None
        killed = None if kills is None else len(kills)
        scalars = _notifier(trace) | {"killed": killed}
        scalars["vmstat_killed"] = _counted(trace)
        spans = bouts(trace) if trace.recorded(NOTIFIER) else []
        return Result(self.name, scalars, {"kills": kills or [], "bouts": spans})


def _counted(trace: Trace) -> int | None:
    """Kills that `oom_kill` of /proc/vmstat counted between the first sample and the last (since
    commit 8e675f7af507 "mm/oom_kill: count global and memory cgroup oom kills", in v4.13)."""
    counts = trace.samples.column("vmstat", "oom_kill")
    counts = counts[counts != UNREAD]
    return int(counts[-1] - counts[0]) if len(counts) else None


def _notifier(trace: Trace) -> dict[str, Any]:
    """How often the OOM killer asked the balloon first, and what that gave."""
    if not trace.recorded(NOTIFIER):
        return dict.fromkeys(
            ("notifier_calls", "notifier_calls_in_vain", "notifier_pages", "notifier_s")
        )
    calls = trace.events(NOTIFIER)
    pages = known_pages(calls)
    known = ~calls["open"].to_numpy() & (calls["done"].to_numpy() != UNKNOWN_PAGES)
    known &= ~trace.marked(calls, "flags", "flags", "missed")
    judged = known.any() or not len(calls)
    return {
        "notifier_calls": len(calls),
        "notifier_calls_in_vain": int((pages[known] == 0).sum()) if judged else None,
        "notifier_pages": int(pages.sum()) * trace.pages_per_page,
        "notifier_s": int(calls["duration_ns"].sum()) / 1e9,
    }


def _kills(trace: Trace) -> list[dict[str, Any]]:
    """The victims.

    A rung that loses something may not see the victim's name, nor tell the guest's OOM from a
    memory cgroup's. balloon_pages: in the balloon at that moment.
    """
    kills = trace.events(KILL)
    codes, names = trace.names(KILL)
    whole = not section(trace.seams, KILL).get("loses")
    in_memcg = trace.marked(kills, "flags", "flags", "memcg").tolist()
    needers = _notified(trace)
    curve = known_curve(trace)
    columns = (kills[column].tolist() for column in ("start_ns", "done", "tid", "pid"))
    rows = []
    for start_ns, victim_pid, tid, pid, code, memcg in zip(
        *columns, codes.tolist(), in_memcg, strict=True
    ):
        victim = names[code] or None
        rows.append(
            {
                "at_s": trace.seconds(start_ns),
                "victim": victim,
                "victim_pid": None if victim_pid == UNKNOWN_PAGES else victim_pid,
                "victim_cgroup": cgroups_of(trace).get(victim_pid),
                "memcg": True if memcg else False if whole else None,
                "needed_by": victim if pid == victim_pid else _needer(needers, tid, start_ns),
                "needed_by_pid": pid,
                "needed_by_cgroup": cgroups_of(trace).get(tid),
                "balloon_pages": curve.size_after(curve.steps_until(start_ns)) if curve else None,
            }
        )
    return sorted(rows, key=lambda kill: float(kill["at_s"]))


def _notified(trace: Trace) -> pd.DataFrame:
    """Who called the notifier and when: the OOM killer's next step is the choice of a victim."""
    entire = trace.entire  # it may have asked just before a window began
    calls = entire.events(NOTIFIER)
    codes, names = entire.names(NOTIFIER)
    # As objects: a name need not be UTF-8, which pandas' own strings must be.
    comm = np.array(names, dtype=object)[codes]
    return calls[["tid", "start_ns"]].assign(comm=pd.Series(comm, calls.index, dtype=object))


def _needer(calls: pd.DataFrame, tid: int, at_ns: int) -> str | None:
    """The name of a task by its last call of the notifier; None if it made none."""
    mine = calls[(calls["tid"] == tid) & (calls["start_ns"] <= at_ns)]
    return None if mine.empty else str(mine["comm"].iloc[-1])
