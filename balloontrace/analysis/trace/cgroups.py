# SPDX-License-Identifier: Apache-2.0
"""Which control group a task was in, as the recorder saw it."""

from __future__ import annotations

from collections.abc import Iterable

from balloontrace.analysis.trace.trace import Trace, per_trace


@per_trace
def cgroups_of(trace: Trace) -> dict[int, str]:
    """Thread id -> path of its control group; tasks of the root, and those that had ended when they
    were looked for, are not in it. A thread id comes again only after all others."""
    found: dict[int, str] = {}
    for sample in trace.entire.recording.samples:
        groups = sample.get("cgroups")
        if isinstance(groups, dict):
            found |= {int(tid): path for tid, path in groups.items() if isinstance(path, str)}
    return found


def groups_of(trace: Trace, tids: Iterable[int]) -> list[str]:
    """The control groups of these tasks, each once."""
    known = cgroups_of(trace)
    return sorted({known[tid] for tid in tids if tid in known})
