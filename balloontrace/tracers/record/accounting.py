# SPDX-License-Identifier: Apache-2.0
"""What became of every call: pure functions of what the BPF programs counted, and left open."""

from __future__ import annotations

from balloontrace import events
from balloontrace.tracers.attach import state

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from typing import Any

    from balloontrace.tracers.attach.state import OpenCall

_MOVERS = ("fill", "leak")
"""Kinds whose events are wanted even if the return was missed: their acks told their pages."""


def believed(
    opened: Sequence[OpenCall], stacks: Mapping[int, str], functions: Mapping[str, Sequence[str]]
) -> list[OpenCall]:
    """Those of `opened` that are open indeed.

    stacks: thread id -> its kernel stack as /proc tells it, '' if it does not; tasks that are gone
    are not there; functions: call -> names of the functions that it is. A task is in the innermost
    call that its stack shows, and in those around it: the callers' own return addresses may be
    hidden by return probes. Where there is no stack to see, a task that is alive is believed.
    """
    found: list[OpenCall] = []
    for tid in dict.fromkeys(call.tid for call in opened):
        if tid not in stacks:
            continue
        calls = sorted((c for c in opened if c.tid == tid), key=lambda call: call.start_ns)
        while calls and stacks[tid] and not _is_in(stacks[tid], functions.get(calls[-1].call, ())):
            calls.pop()
        found += calls
    return found


def _is_in(stack: str, names: Iterable[str]) -> bool:
    return any(f" {name}+" in stack for name in names) or not names


def account(
    counters: Mapping[str, Mapping[str, int]], opened: Sequence[OpenCall], there: Sequence[OpenCall]
) -> dict[str, dict[str, int]]:
    """`counters` of the trailer. there: those of `opened` that are believed.

    `unpaired` is what nothing accounts for: calls entered less all that state.ENDS names.
    """
    total = {kind: dict(counts) for kind, counts in counters.items()}
    for kind, counts in total.items():
        still = [call for call in opened if call.kind == kind]
        # Whether a run of the size worker is a fill is known, and counted, when it returns.
        counts["entered"] += sum(1 for call in still if call.call == "worker")
        counts["open"] = sum(1 for call in there if call.kind == kind)
        counts["missed"] += len(still) - counts["open"]
        counts["unpaired"] = max(0, counts["entered"] - sum(counts[end] for end in state.ENDS))
    return total


def last_events(opened: Sequence[OpenCall], there: Sequence[OpenCall]) -> bytes:
    """The events of the calls that are open, and of fills and leaks that only seem to be."""
    missed = [call for call in opened if call not in there and call.kind in _MOVERS]
    return b"".join(
        [*(call.event for call in there), *(events.as_missed(call.event) for call in missed)]
    )


def losses(counters: Mapping[str, Mapping[str, int]]) -> int:
    """Calls of which the recording has no event, or none with a duration, though it should."""
    return sum(counts[name] for counts in counters.values() for name in events.LOSSES)


def unpaired(counters: Mapping[str, Mapping[str, int]]) -> int:
    """Calls that nothing accounts for."""
    return sum(counts["unpaired"] for counts in counters.values())


def returns_missed(counters: Mapping[str, Mapping[str, int]]) -> int:
    """Calls whose return was not seen."""
    return sum(counts["missed"] for counts in counters.values())


def summary(trailer: Mapping[str, Any], size: int, path: str) -> list[str]:
    """What is said at the end of a recording of `size` bytes."""
    lines = _traced(trailer) if "counters" in trailer else _counted(trailer)
    lines[0] = f"{trailer['reason']}: {lines[0]}, {size / 1024:,.0f} KiB"
    if trailer.get("left_out"):
        lines.append(
            f"warning: {trailer['left_out']:,} events were left out, for which the reader was too "
            "slow; the report says that blocks are missing"
        )
    if trailer["command"] and trailer["command"]["status"]:
        lines.append(f"the command ended with status {trailer['command']['status']}")
    if trailer["command"] and trailer["command"]["status"] is None:
        lines.append("warning: the command could not be ended, and runs on")
    if not trailer["vmstat_detach"]["before"]:
        lines.append(
            "warning: /proc/vmstat of this kernel has no balloon counters to check against"
        )
    if path != "-":
        lines.append(f"wrote {path}; next: balloontrace report {path}")
    return lines


def _traced(trailer: Mapping[str, Any]) -> list[str]:
    """How many events there are, and what is wrong with them."""
    counters = trailer["counters"]
    lost, missed = trailer["lost_events"], trailer["returns_missed"]
    lines = [
        f"{trailer['events']:,} events ({counters['fill']['written']:,} fills, "
        f"{counters['leak']['written']:,} leaks), {lost:,} lost"
    ]
    if lost:
        lines.append(f"warning: {lost:,} events were lost; the report says which, and what to do")
    if missed:
        lines.append(f"warning: the returns of {missed:,} calls were not seen; see the report")
    if trailer["proof"]["end"] is False:
        lines.append("warning: the probes no longer fire; nothing is known of what came last")
    return lines


def _counted(trailer: Mapping[str, Any]) -> list[str]:
    """The same of a recording without events (record/counters.py)."""
    return [f"{trailer['samples']:,} readings of the guest's counters, nothing traced"]
