# SPDX-License-Identifier: Apache-2.0
"""What every output of `live` shows: one moment of a guest, which nothing changes any more.

Pages are balloon pages, 4 KiB. None is what is not known, never 0. Text from the guest is as it
came: an output makes it harmless (balloontrace/escape.py). Standard library only, Python 3.9: it
runs in guests.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Optional

from balloontrace.events import CAUSES

OUT = (*(cause for cause, _ in CAUSES), "unknown")
"""Causes of a leak, in the order in which outputs show them."""

TRACING, SILENT, ENDED, CLOSED = "tracing", "silent", "ended", "closed"
"""States of a stream: blocks come; none came for SILENT_S; its trailer came; it was closed, or its
file ceased to be there, without one."""

SILENT_S = 5.0
"""By the clock of who reads. A recorder writes at least one block a second."""


@dataclass(frozen=True)
class Guest:
    """Who is traced. kernel, hostname: as it names itself; memory_bytes: as its header says, of
    RAM; behaviour: how its driver gives memory back, a key of driver_behaviour.DESCRIPTIONS, None
    before the header came; by_counters: nothing is traced, and only counters are read."""

    hostname: Optional[str]
    kernel: Optional[str]
    memory_bytes: Optional[int]
    behaviour: Optional[str]
    by_counters: bool


@dataclass(frozen=True)
class Flow:
    """Pages a second. inflated: into the balloon; deflated: out of it, by cause (OUT, all keys);
    span_s: of how many seconds it is the mean. Pages that an event could not see are in neither."""

    inflated: Optional[float]
    deflated: Optional[Mapping[str, float]]
    span_s: float

    @property
    def out(self) -> Optional[float]:
        """Out of the balloon, all causes."""
        return None if self.deflated is None else sum(self.deflated.values())


@dataclass(frozen=True)
class Column:
    """One column of the graph. begin_s: since attach; size_pages, target_pages: at its end;
    inflated, deflated: pages a second in it; by_reclaim: of the latter, the shrinker's and the OOM
    notifier's; no_progress_s: of its seconds, those in which the balloon was on its way to a
    target all the time, and came no closer. None: nothing was seen of that time."""

    begin_s: float
    size_pages: Optional[int]
    target_pages: Optional[int]
    inflated: Optional[float]
    deflated: Optional[float]
    by_reclaim: Optional[float]
    no_progress_s: Optional[float]


@dataclass(frozen=True)
class Graph:
    """The last time up to the moment. columns: oldest first, each of column_s seconds; cells: so
    wide each can be in the width that was asked for."""

    columns: tuple[Column, ...]
    column_s: float
    cells: int


@dataclass(frozen=True)
class Progress:
    """How the balloon came on (docs/concepts/metrics.md).

    inflated_pages, deflated_pages, by_cause: since the stream began, None if not known;
    churn_ratio: of what moved,
    the share that was undone within its episode; now_churn_ratio: the same of the last minute, as
    `report --since` has it; amplification: of the episode under way, pages moved toward the target
    for each that was gained, None if none was; no_progress_s: of the episode under way, for how
    long up to now the balloon came no closer to its target, None if it has reached it or there is
    none; longest_no_progress_s: of all episodes up to now.
    """

    inflated_pages: Optional[int]
    deflated_pages: Optional[int]
    by_cause: Optional[Mapping[str, int]]
    churn_ratio: Optional[float]
    now_churn_ratio: Optional[float]
    amplification: Optional[float]
    no_progress_s: Optional[float]
    longest_no_progress_s: Optional[float]


@dataclass(frozen=True)
class Task:
    """Who gave pages back to the guest. kind: `kswapd`, `inflation` (the balloon's own, whose
    allocations reclaim), `recorder` (ourselves) or `task`; comm: hostile text; pid: 0 of several
    tasks that are told of together; cause: `shrinker` or `oom`; pages, calls: since the stream
    began; last_minute_pages: of these."""

    comm: str
    pid: int
    kind: str
    cause: str
    pages: int
    calls: int
    last_minute_pages: int


@dataclass(frozen=True)
class Calls:
    """Calls of one kind (events.KINDS) in the last minute. pages: what they did, None if that is
    none for this kind or could not be seen; total_s, longest_s: from entry to return."""

    kind: str
    calls: int
    pages: Optional[int]
    total_s: float
    longest_s: float


@dataclass(frozen=True)
class Acks:
    """How long the host took to acknowledge what the driver told it, in the last minute, by queue.
    median_s, p99_s: no ack took longer than so much for a half, and for 99 of 100 (the limits of
    the slots of sums.py, each twice the one before); longest_s: exact."""

    queue: str
    calls: int
    median_s: float
    p99_s: float
    longest_s: float


@dataclass(frozen=True)
class Memory:
    """Of the last sample, in bytes."""

    total: Optional[int]
    available: Optional[int]
    free: Optional[int]
    swap_total: Optional[int]
    swap_free: Optional[int]


@dataclass(frozen=True)
class Pressure:
    """Of the time between the last two samples, the share in which some task, and in which all that
    could run, waited for memory (PSI): 0 to 1."""

    some: Optional[float]
    full: Optional[float]


@dataclass(frozen=True)
class Host:
    """What the host says (docs/host.md). state: of the guest; target_pages: what it wants,
    actual_pages: what it was told that is in the balloon; resident_bytes: of the hypervisor's
    process, huge pages among them; gained_bytes: by how much that is less than in the first sample,
    below 0: more; statistics_age_s: of what the guest sent last on the statistics queue, None also
    if it never did; polling_interval_s: how often it is asked, 0: it is not; said: of the file, for
    people, empty while it grows."""

    hypervisor: Optional[str]
    state: Optional[str]
    target_pages: Optional[int]
    actual_pages: Optional[int]
    resident_bytes: Optional[int]
    gained_bytes: Optional[int]
    statistics_age_s: Optional[float]
    polling_interval_s: Optional[int]
    said: str


@dataclass(frozen=True)
class Fired:
    """A finding (docs/findings.md). since_s: since attach, when it began to fire; until_s: when it
    was last true; firing: whether it is now; sentence: what it says, with numbers of then."""

    id: str
    since_s: float
    until_s: float
    firing: bool
    sentence: str


@dataclass(frozen=True)
class Losses:
    """What is missing. events: lost for lack of room, or not tracked, None until a trailer says so;
    missed: returns that were not seen; left_out: events that a slow reader left no room for;
    blocks: that the sequence shows to be missing; damage_bytes: that held no valid block."""

    events: Optional[int]
    missed: int
    left_out: Optional[int]
    blocks: int
    damage_bytes: int

    @property
    def some(self) -> bool:
        """Whether anything is known to be missing."""
        return bool(self.events or self.missed or self.left_out or self.blocks or self.damage_bytes)


@dataclass(frozen=True)
class Agreement:
    """Whether the traced totals are those of /proc/vmstat, looked at when the balloon was last at
    rest. agrees: None if that is not known (yet); sentence: for people."""

    agrees: Optional[bool]
    sentence: str


@dataclass(frozen=True)
class Stream:
    """Where it comes from. state: TRACING and so on, of a moment walked back to always that; said:
    the same for people, as `no block for 5 s` or `ended: duration`; events_per_s, bytes_per_s: of
    the last second that was whole; events, bytes: since it began; saved_as: the file that it is
    saved to."""

    name: str
    state: str
    said: str
    events_per_s: float
    bytes_per_s: float
    events: int
    bytes: int
    saved_as: Optional[str]


@dataclass(frozen=True)
class View:
    """One moment.

    t_ns: CLOCK_MONOTONIC of the guest, None before anything came; seconds: since attach; wall_ns:
    the guest's clock, since 1970; live: whether this is the latest there is (False: walked back);
    size_pages, target_pages: in the balloon, and what the host wants; share_of_ram: the size's, 0
    to 1; driver: `attached`, `gone`, `absent`, `untraceable`, or None if not known; host: None if
    its view is not given, or what it said of this moment is not known.
    """

    guest: Guest
    t_ns: Optional[int]
    seconds: Optional[float]
    wall_ns: Optional[int]
    live: bool
    size_pages: Optional[int]
    target_pages: Optional[int]
    share_of_ram: Optional[float]
    driver: Optional[str]
    last_second: Flow
    last_minute: Flow
    graph: Graph
    progress: Progress
    tasks: tuple[Task, ...]
    calls: tuple[Calls, ...]
    acks: tuple[Acks, ...]
    memory: Memory
    pressure: Pressure
    findings: tuple[Fired, ...]
    losses: Losses
    agreement: Agreement
    stream: Stream
    host: Optional[Host]
