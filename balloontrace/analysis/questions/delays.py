# SPDX-License-Identifier: Apache-2.0
"""What each task waited for during the recording, as the kernel counts it (taskstats)."""

from __future__ import annotations

from typing import Any

from balloontrace.analysis.base import Question, Result, Section, answered
from balloontrace.analysis.fields import Field, Table, Unit
from balloontrace.analysis.trace.cgroups import cgroups_of
from balloontrace.analysis.trace.task_delays import Task
from balloontrace.analysis.trace.trace import Trace, section

DELAYS = ("cpu", "blkio", "swapin", "reclaim", "thrashing", "compact", "wpcopy")
"""In the order of columns. `reclaim`: direct reclaim, the kernel's freepages; `cpu`: on the run
queue; `compact`: direct compaction; `wpcopy`: copying write-protected pages."""

TURN_ON = "sysctl kernel.task_delayacct=1 before the tasks start, or boot with delayacct"


GROUP = "path of its control group; null: the root, or not known"


class Delays(Question):
    """For each task that was read, the delays it gained."""

    section = Section(
        "delays",
        "Delays",
        130,
        "what tasks waited for, as the kernel counts it (taskstats)",
        (
            Field("delayacct", Unit.TEXT, "whether the kernel counted delays"),
            Field("since_boot", Unit.FLAG, "whether it did since it booted"),
        ),
        (
            Table(
                "tasks",
                (
                    Field("comm", Unit.TEXT, title="task"),
                    Field("tid", Unit.NUMBER, title="tid"),
                    Field(
                        "cgroup",
                        Unit.TEXT,
                        "path of its control group; null: the root, or not known",
                    ),
                    Field("kswapd", Unit.FLAG),
                    Field("readings", Unit.NUMBER),
                    *(Field(f"{delay}_s", Unit.SECONDS, title=delay) for delay in DELAYS),
                    *(Field(f"{delay}_count", Unit.NUMBER) for delay in DELAYS),
                ),
                "tasks",
            ),
        ),
        shown=answered,
    )

    def run(self, trace: Trace) -> Result:
        """Table `tasks`: per delay the seconds and how often, None if not known; the longest
        wait for memory first. Scalars: whether delays were counted at all."""
        blocks = [s for s in trace.recording.samples if "delays" in s or "delayacct" in s]
        state = next((block for block in blocks if "delayacct" in block), {})
        tasks = trace.samples.delays.tasks
        if not tasks:
            elsewhere = trace.is_part and trace.entire.samples.delays.tasks
            why = "task delays (none was read in the window)" if elsewhere else _why_none(blocks)
            return Result(self.name, missing=[why])
        counted = DELAYS if state.get("delayacct") not in ("off", "absent") else ("cpu",)
        rows = [_row(trace, task, counted) for task in tasks]
        rows.sort(key=_for_memory, reverse=True)
        scalars = {"delayacct": state.get("delayacct"), "since_boot": state.get("since_boot")}
        return Result(self.name, scalars, {"tasks": rows}, notes=_notes(trace, blocks, state, rows))


def _why_none(blocks: list[dict[str, Any]]) -> str:
    """Why there are no readings."""
    whys = [str(block["why"]) for block in blocks if block.get("delays") == "absent"]
    return "task delays" + (f" ({whys[0]})" if whys and whys[0] else "")


def _row(trace: Trace, task: Task, counted: tuple[str, ...]) -> dict[str, Any]:
    """One task's gains: `<delay>_s` and `<delay>_count`; None for what the kernel did not count."""
    row: dict[str, Any] = {
        "comm": str(task.last.get("comm")),
        "tid": task.tid,
        "cgroup": cgroups_of(trace).get(task.tid),
        "kswapd": task.tid in (section(trace.header, "tasks").get("kswapd") or []),
        "readings": task.readings,
    }
    first = task.first_if_older(trace.begin_ns)
    known = task.readings > 1 or not first
    for name in DELAYS:
        last = task.last.get(name)
        count = seconds = None
        if last is not None and known and name in counted:
            before = first.get(name) or (0, 0)
            count, seconds = int(last[0] - before[0]), int(last[1] - before[1]) / 1e9
        row |= {f"{name}_s": seconds, f"{name}_count": count}
    return row


def _for_memory(row: dict[str, Any]) -> tuple[float, float]:
    """What to sort by: the time lost to lack of memory, then to all else."""
    memory = ("reclaim", "thrashing", "compact", "swapin")
    own = sum(row[f"{name}_s"] or 0.0 for name in memory)
    return own, sum(row[f"{name}_s"] or 0.0 for name in DELAYS)


def _notes(
    trace: Trace,
    blocks: list[dict[str, Any]],
    state: dict[str, Any],
    rows: list[dict[str, Any]],
) -> list[str]:
    """What the readings do not cover."""
    notes = ["tasks seen in a sample of the events, read every few seconds until they ended"]
    if state.get("delayacct") == "off":
        notes.append(f"delay accounting was off: only cpu was counted; {TURN_ON}")
    elif state.get("delayacct") == "absent":
        notes.append("this kernel counts no delays (CONFIG_TASK_DELAY_ACCT)")
    elif not state.get("since_boot"):
        notes.append(
            "tasks that began before delay accounting was turned on, as most kernel threads did, "
            "count only cpu; boot with delayacct to count them all"
        )
    if once := sum(row["readings"] == 1 and row["cpu_s"] is None for row in rows):
        notes.append(f"{once:,} older tasks were read only once: their gain is not known")
    ends = [block for block in blocks if block.get("delays") in ("ended", "absent")]
    if ends:
        notes.append(f"no readings after {trace.seconds(ends[0]['t_ns']):,.1f} s: the reader ended")
    return notes
