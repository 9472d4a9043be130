# SPDX-License-Identifier: Apache-2.0
"""Calls of a driver that is frozen: between virtballoon_freeze, which resets the device and deletes
its virtqueues, and virtballoon_restore, which makes them anew."""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd

from balloontrace.analysis.trace.trace import Bools, Trace

USES = ("fill", "leak", "report", "hint", "migrate")
"""What uses the virtqueues. A scan and an OOM notification use them in their leaks, and an ack lies
in a fill, a leak or a migration."""

_IDLE = ("fill", "leak", "hint")
"""Calls of these kinds that did nothing may have ended before they came to a virtqueue."""


_COLUMNS = ("record", "start_ns", "end_ns", "open", "done", "within", "flags")


@dataclass(frozen=True)
class Frozen:
    """A time in which the driver was frozen. calls: those that used it then, in order of time:
    kind, start_ns, end_ns, record; until_ns: it was restored, or the recording ended."""

    since_ns: int
    until_ns: int
    restored: bool
    calls: pd.DataFrame


def frozen_of(trace: Trace) -> list[Frozen]:
    """Each time between a freeze that returned and the restore, or bind, after it; none where a
    restore may be missing."""
    if trace.doubt("restore") or trace.doubt("bind"):
        return []
    freezes = trace.events("freeze")
    came = sorted(
        at for kind in ("restore", "bind") for at in trace.events(kind)["start_ns"].tolist()
    )
    found = []
    for since_ns in freezes["end_ns"][~freezes["open"]].tolist():
        until_ns = next((at_ns for at_ns in came if at_ns >= since_ns), None)
        end_ns = trace.end_ns if until_ns is None else until_ns
        calls = _calls(trace, since_ns, end_ns)
        found.append(Frozen(since_ns, end_ns, until_ns is not None, calls))
    return found


def _calls(trace: Trace, since_ns: int, until_ns: int) -> pd.DataFrame:
    """Calls that began in a time, or were under way when it began, but for those of the freeze."""
    frames = []
    for kind in USES:
        calls = trace.events(kind, *_COLUMNS)
        mine = (calls["end_ns"] > since_ns) & (calls["start_ns"] < until_ns) & _used(kind, calls)
        mine &= ~trace.marked(calls, "within", "within", "freeze")
        mine &= ~trace.marked(calls, "flags", "flags", "missed")
        frames.append(calls[mine].assign(kind=kind))
    joined = pd.concat(frames, ignore_index=True)
    return joined.sort_values("start_ns", kind="stable", ignore_index=True)


def _used(kind: str, calls: pd.DataFrame) -> Bools:
    """Whether each call got as far as a virtqueue."""
    used: Bools = ((calls["done"] > 0) | calls["open"] | (kind not in _IDLE)).to_numpy()
    return used
