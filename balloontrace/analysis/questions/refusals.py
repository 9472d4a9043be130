# SPDX-License-Identifier: Apache-2.0
"""Tasks that the kernel refused address space, whatever memory was free."""

from __future__ import annotations

from typing import Any

import numpy as np

from balloontrace.analysis.base import Question, Result, Section
from balloontrace.analysis.fields import Field, Table, Unit
from balloontrace.analysis.trace.trace import Trace


def _any(result: Result) -> bool:
    """Whether any was."""
    return bool(result.tables.get("refusals"))


class Refusals(Question):
    """ENOMEM by the limit of committed memory (Documentation/mm/overcommit-accounting.rst), which
    a balloon lowers where the driver takes its pages from the total."""

    section = Section(
        "refusals",
        "Refused memory",
        115,
        "tasks refused address space because the limit of committed memory was reached (ENOMEM)",
        tables=(
            Table(
                "refusals",
                (
                    Field("task", Unit.TEXT, "its name", "task", never_null=True),
                    Field("pid", Unit.NUMBER, "process", "process", never_null=True),
                    Field("refused", Unit.NUMBER, "how often", "refused", never_null=True),
                    Field("first_s", Unit.MOMENT, title="first at s", never_null=True),
                    Field("last_s", Unit.MOMENT, title="last at s", never_null=True),
                ),
                "tasks",
            ),
        ),
        shown=_any,
        first_screen=_any,
    )
    requires = ("refuse",)

    def run(self, trace: Trace) -> Result:
        """One row per task, the most often refused first. A probe of a task may be refused on
        purpose: that is no failure of it."""
        calls = trace.calls("refuse")
        times, pids = np.asarray(calls["start_ns"]), np.asarray(calls["pid"])
        places, names = calls.names()
        rows: dict[tuple[int, str], dict[str, Any]] = {}
        for time_ns, pid, place in sorted(zip(times.tolist(), pids.tolist(), places, strict=True)):
            at_s = trace.seconds(time_ns)
            new = {"task": names[place], "pid": pid, "refused": 0, "first_s": at_s}
            row = rows.setdefault((pid, names[place]), new)
            row |= {"refused": row["refused"] + 1, "last_s": at_s}
        ordered = sorted(rows.values(), key=lambda row: -row["refused"])
        return Result(self.name, tables={self.name: ordered})
