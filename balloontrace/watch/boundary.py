# SPDX-License-Identifier: Apache-2.0
"""A moment between two segments: what had been counted by then, since the watcher began.

A segment's header says it of its begin (`begun`), its trailer of its end, and a reader takes the
difference: so a header and a later trailer account for all that is between them, be it one segment
or many.
"""

from __future__ import annotations

from balloontrace import sums as sums_of_calls

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from balloontrace.sums import Sum

_LOST = ("lost", "untracked", "missed")


class Boundary:
    """The moment, and what was counted by then.

    t_ns: CLOCK_MONOTONIC; events: read from the ring; vmstat: the balloon's counters `before` and
    `after`, between which the ring was read to its end; underway: kind -> calls that were open
    then; sums: None if they could not be read together with the events, for more came all the time;
    not_run: see NotRun.since.
    """

    __slots__ = ("counters", "events", "not_run", "sums", "t_ns", "underway", "vmstat")

    def __init__(
        self,
        t_ns: int,
        events: int,
        counters: dict[str, dict[str, int]],
        sums: dict[str, Sum] | None,
        vmstat: dict[str, dict[str, int]],
        underway: dict[str, int],
        not_run: dict[str, int],
    ) -> None:
        self.t_ns, self.events, self.counters, self.sums = t_ns, events, counters, sums
        self.vmstat, self.underway, self.not_run = vmstat, underway, not_run

    def counted(self) -> dict[str, Any]:
        """`begun` of a header, and the same of a trailer. Of one segment a call that was lost while
        its boundary was made can be counted for its neighbour."""
        return {
            "counters": self.counters,
            "events": self.events,
            "lost_events": sum(counts[name] for counts in self.counters.values() for name in _LOST),
            "returns_missed": sum(counts["missed"] for counts in self.counters.values()),
            "sums": None if self.sums is None else sums_of_calls.as_json(self.sums),
            **self.not_run,
        }

    def as_begin(self) -> dict[str, Any]:
        """What a header says that begins here."""
        begun = {"begun": self.counted(), "underway": self.underway}
        return {"attached_ns": self.t_ns, "vmstat_attach": self.vmstat, **begun}

    def as_end(self) -> dict[str, Any]:
        """What a trailer says that ends here."""
        counted = self.counted()
        counted["counters"] = {
            kind: {**counts, "open": self.underway.get(kind, 0)}
            for kind, counts in self.counters.items()
        }
        opened = {"open_calls": sum(self.underway.values())}
        return {"ended_ns": self.t_ns, "vmstat_detach": self.vmstat, **counted, **opened}
