# SPDX-License-Identifier: Apache-2.0
"""What the guest's own counters say, where nothing was traced (`record --counters`)."""

from __future__ import annotations

from typing import Any

from balloontrace.analysis.base import Question, Result, Section, answered
from balloontrace.analysis.fields import Field, Table, Unit
from balloontrace.analysis.questions.cost import PRESSURE
from balloontrace.analysis.trace.counters import back_and_forth, moved_of
from balloontrace.analysis.trace.pressure import MemoryPressure
from balloontrace.analysis.trace.trace import Trace, section

_CPU = {
    "kswapd_ns": "kswapd_cpu_s",
    "kcompactd_ns": "kcompactd_cpu_s",
    "kworker_ns": "kworker_cpu_s",
}
"""Key in the trailer -> field."""


class Counters(Question):
    """Moves in both directions, CPU time of the kernel's threads, pressure: at the resolution of
    the readings. Totals are in the section of that name, and exact."""

    section = Section(
        "counters",
        "By the guest's counters",
        32,
        "what `record --counters` knows beside the totals; null: the recording was traced",
        (
            Field("interval_s", Unit.SECONDS, "from one reading to the next"),
            Field("readings", Unit.NUMBER, "in the recording"),
            Field("back_and_forth_s", Unit.SECONDS, "in which pages moved in both directions"),
            Field("kswapd_cpu_s", Unit.SECONDS),
            Field("kcompactd_cpu_s", Unit.SECONDS),
            Field("kworker_cpu_s", Unit.SECONDS, "of the size worker, at most: it shares threads"),
            *PRESSURE,
        ),
        (
            Table(
                "back_and_forth",
                (
                    Field("start_s", Unit.MOMENT, title="from s"),
                    Field("end_s", Unit.MOMENT, title="to s"),
                    Field("inflated_pages", Unit.PAGES, title="in"),
                    Field("deflated_pages", Unit.PAGES, title="out"),
                    Field("net_pages", Unit.PAGES, title="net"),
                    Field(
                        "longest_no_progress_s",
                        Unit.SECONDS,
                        "while the balloon was no larger than before in the stretch",
                        "longest without progress",
                    ),
                ),
                "stretches",
                "in and out from each reading to the next, with pauses of at most 1 s",
            ),
        ),
        shown=answered,
        first_screen=answered,
    )

    def run(self, trace: Trace) -> Result:
        """CPU times are of the whole recording, also in a window of it; None: not recorded."""
        if trace.counter_interval_s is None:
            return Result(self.name, missing=["counters (they are what record --counters reads)"])
        moved = moved_of(trace)
        stretches = back_and_forth(moved) if moved else []
        cpu = section(trace.trailer, "cpu")
        scalars: dict[str, Any] = {
            "interval_s": trace.counter_interval_s,
            "readings": len(trace.samples),
            "back_and_forth_s": sum(one.end_ns - one.start_ns for one in stretches) / 1e9
            if moved
            else None,
            **{key: cpu[name] / 1e9 if name in cpu else None for name, key in _CPU.items()},
            **MemoryPressure(trace).between(trace.begin_ns, trace.end_ns),
        }
        rows = [
            {
                "start_s": trace.seconds(one.start_ns),
                "end_s": trace.seconds(one.end_ns),
                "inflated_pages": one.inflated_pages,
                "deflated_pages": one.deflated_pages,
                "net_pages": one.inflated_pages - one.deflated_pages,
                "longest_no_progress_s": one.longest_no_progress_ns / 1e9,
            }
            for one in stretches
        ]
        return Result(self.name, scalars, {"back_and_forth": rows})
