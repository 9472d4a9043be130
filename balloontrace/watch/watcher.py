# SPDX-License-Identifier: Apache-2.0
"""The watcher: what a recorder is to one recording, for months.

It has the recorder's place in the loop (tracers/record/recorder.py). Without segments no event is
written, and it only reads sums and the guest's counters.
"""

from __future__ import annotations

import os
import time

from balloontrace import __version__, sums
from balloontrace.conditions.agreement import Agreement
from balloontrace.conditions.triggers import Moment, Progress
from balloontrace.errors import UserError
from balloontrace.events import BALLOON_PAGE_BYTES, whole_pages
from balloontrace.tracers.attach.follow import Follower
from balloontrace.tracers.record.not_run import NotRun
from balloontrace.tracers.record.recorder import BLOCK_BYTES, STORM_INTERVAL_S, own_costs
from balloontrace.tracers.record.ring import ITEM_BYTES
from balloontrace.tracers.record.tracing import Tracing
from balloontrace.tracers.samplers import OF_A_TRACE, Samplers
from balloontrace.tracers.samplers.vmstat import balloon_counters
from balloontrace.watch.boundary import Boundary
from balloontrace.watch.metrics import ASKED, RESTART, Reading

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from balloontrace.conditions.triggers import Triggers
    from balloontrace.tracers.attach.handover import Handover
    from balloontrace.tracers.record.marks import Marks
    from balloontrace.watch.dumps import Dumps
    from balloontrace.watch.segments import Segments

IDLE_S, UNTOLD_S, BUSY_S = 30.0, 10.0, 1.0
"""From one look to the next: while the balloon is at rest and nobody waits for memory, of which the
kernel tells, or where it does not tell of waiting; and else."""

CHANGED_NS = 60_000_000_000
"""For so long after a driver went or came it does not sleep for long."""

RETRY_S = 10.0
"""From one attempt to the next to begin a segment, while the disk is full."""

SEGMENT = "segment"
"""Why a segment ended, if the watcher goes on."""

_PAGES_PER_PAGE = os.sysconf("SC_PAGE_SIZE") // BALLOON_PAGE_BYTES

_UNDERWAY = ("ack", "leak", "migrate")
"""Calls within which the kernel has counted pages. Not the size worker's: it sleeps in one where
there is no memory, for as long as that lasts."""

_TRIES, _PAUSE_S = 5, 0.002
"""To read sums and events together, while calls are made all the time."""


class Kept:
    """What is kept. after_s: for how long a recording goes on after its trigger."""

    __slots__ = ("after_s", "dumps", "segments")

    def __init__(self, segments: Segments, dumps: Dumps, after_s: float) -> None:
        self.segments, self.dumps, self.after_s = segments, dumps, after_s

    def take_over(self, say: Callable[[str], None]) -> None:
        """Keep what an earlier watcher has left in the same place. say: tells people a line. Raises
        UserError if that cannot be kept, and no other begun beside it."""
        left = self.segments.left()
        if not left:
            return
        first, *more = self.dumps.take_over(left, RESTART)
        also = f" and {len(more)} more, for the disk has no room for one of all" if more else ""
        say(f"what was kept before is in {first}{also}")

    def tidy(self, say: Callable[[str], None]) -> None:
        """Delete old recordings, if there are too many."""
        try:
            self.dumps.delete_old()
        except UserError as error:
            say(str(error))

    @property
    def left_out(self) -> dict[str, int]:
        """What was not kept, of metrics.UNKEPT."""
        return {"events": self.segments.events_left_out, "recordings": self.dumps.left_out}


class Watcher:
    """From attachment to the end. say: tells people a line."""

    def __init__(
        self,
        handover: Handover,
        options: dict[str, Any],
        kept: Kept | None,
        triggers: Triggers,
        marks: Marks | None,
        say: Callable[[str], None],
        told_of_pressure: bool = False,
    ) -> None:
        """Begins to watch. told_of_pressure: the loop wakes when tasks wait for memory. Raises
        UserError if the probes do not fire."""
        self._idle_s = IDLE_S if told_of_pressure else UNTOLD_S
        self._kept, self._triggers, self._marks, self._say = kept, triggers, marks, say
        self._tracing = Tracing(handover)
        tell = kept.segments.sample if kept else _ignore
        self._follower = Follower(handover, options, self._tracing.control, tell)
        self._samplers, self._not_run = Samplers(OF_A_TRACE), NotRun()
        page_bytes = os.sysconf("SC_PAGE_SIZE")
        self._agreement, self._progress = Agreement(page_bytes), Progress()
        self._events = self._written_events = 0
        self._raw = b""
        self._target: int | None = None
        self._sums = self._tracing.sums()
        self._sample: dict[str, Any] = {}
        self._stall_us = -1
        self._findings: dict[str, int] = {}
        self._dumps: dict[str, int] = {}
        self._fired: list[dict[str, Any]] = []
        self._dump_at_s = self._begin_at_s = 0.0
        self._stats_answers = 0
        self._attached, self._changed_ns = self._follower.is_there, -CHANGED_NS
        self.reading_ns = 0
        """What it took to make the metrics' page the last time."""
        self._started_s = time.time()
        self._begun_ns = time.monotonic_ns()
        self.sample_interval_s = BUSY_S
        begun = self._follower.begin()
        self._agreement.attached(self._sums, begun["vmstat_attach"], self._follower.content)
        if kept:
            self._begin_segment(kept.segments, self._boundary(begun["vmstat_attach"]))
        self.sample()

    # ---- the loop's ----

    def drain(self, sample_follows: bool = False) -> float:
        """Move what is in the ring to the segment; returns the seconds until the next time."""
        # No call of a driver that is not there can wake the loop: `follow` looks for it.
        interval_s = self.sample_interval_s if self._follower.is_there else BUSY_S
        if not self._kept:
            while self._tracing.ring.read(BLOCK_BYTES):
                pass  # what woke us, and tells nothing
            return interval_s
        moved = 0
        while span := self._tracing.ring.read(BLOCK_BYTES):
            self._kept.segments.events(span, sample_follows)
            moved += len(span) // ITEM_BYTES
        self._events += moved
        self._tracing.control["read"] = self._events
        storm = moved > self._tracing.storm_events
        return STORM_INTERVAL_S if storm else interval_s

    def sample(self) -> None:
        """Look at the guest, and at what the look demands."""
        self._sample = self._samplers.read()
        now_ns = time.monotonic_ns()
        self._follower.note(self._sample.get("vmstat", {}))
        self._look(now_ns)
        if self._kept:
            self._write(self._kept.segments, now_ns)
            self._keep(self._kept, now_ns / 1e9)

    def follow(self) -> None:
        """See whether the driver went or came, and what was marked."""
        self._follower.check()
        if self._marks and self._kept:
            for mark in self._marks.read(self._begun_ns):
                self._kept.segments.sample(mark)
            if self._marks.dump:
                self.want(ASKED)

    def detach(self) -> None:
        """Detach every probe."""
        self._follower.detach()

    @property
    def not_fired(self) -> dict[str, Any]:
        """`watch` of the header of what nothing led to."""
        return {"fired": [], "idle_interval_s": self._idle_s}

    def finish(self, reason: str, command: dict[str, Any] | None = None) -> None:
        """Write what was to be kept, and end the last segment. command: what it was made for, see
        Command.finish."""
        if not self._kept:
            return
        if self._marks:
            self._marks.refuse()
        self.follow()
        if self._fired:
            self._dump(self._kept)
        trailer = self._trailer(self._boundary(), reason)
        self._kept.segments.end({**trailer, "command": command})

    # ---- looking ----

    def _look(self, now_ns: int) -> None:
        """Take in what the sums and the sample say."""
        waits = self._waits_for_the_host()  # before the sums, in which it is when it has returned
        raw = self._tracing.raw_sums()
        moved = raw != self._raw
        if moved:
            self._raw, self._sums = raw, sums.of_rows(raw)
        vmstat = self._sample.get("vmstat", {})
        self._agreement.look(self._sums, vmstat, self._follower.content, moved or waits)
        size = size_pages(vmstat)
        attached = self._follower.is_there
        if (target := self._tracing.target_pages()) is not None:
            self._target = target
        aim = None if self._target is None else whole_pages(self._target, _PAGES_PER_PAGE)
        moment = Moment(now_ns, self._sums, self._sample, size, aim, attached)
        self._progress.add(moment)
        self._triggers.negotiated(self._follower.content["balloon"]["features"])
        for finding in self._triggers.fired(moment):
            self._findings[finding] = self._findings.get(finding, 0) + 1
            self._say(f"{finding} fired")
            self.want(finding)
        if attached != self._attached:
            self._attached, self._changed_ns = attached, now_ns
        changed = now_ns - self._changed_ns < CHANGED_NS
        busy = self._stalls() or moved or changed or self._fired
        self.sample_interval_s = BUSY_S if busy or self._moves() else self._idle_s

    def _moves(self) -> bool:
        """Whether a call was added meanwhile; if not, the next one wakes the loop."""
        self._tracing.control["idle"] = 1
        return self._tracing.raw_sums() != self._raw

    def _waits_for_the_host(self) -> bool:
        """Whether pages are under way that the kernel has counted and the sums have not: a fill is
        summed up when the host has them, a leak when it returns."""
        opened = self._tracing.open_calls(self._follower.fill_from)
        return any(call.call in _UNDERWAY for call in opened)

    @property
    def was_called(self) -> bool:
        """Whether it slept for long, and a call came."""
        return self.sample_interval_s > BUSY_S and not self._tracing.control["idle"]

    def _stalls(self) -> bool:
        """Whether any task waited for memory since the last look, or that is not known."""
        before = self._stall_us
        self._stall_us = self._sample.get("psi", {}).get("memory", {}).get("some_us", -1)
        return self._stall_us != before

    def reading(self) -> Reading:
        """What the metrics are of: sums as they are now, the rest as of the last look."""
        content, costs = self._follower.content, own_costs()
        return Reading(
            sums=self._tracing.sums(),
            counters=self._tracing.counters(),
            size_pages=size_pages(self._sample.get("vmstat", {})),
            target_pages=self._target,
            differences=self._agreement.differences,
            progress_pages=self._progress.progress_pages,
            no_progress_ns=self._progress.no_progress_ns,
            findings=self._findings,
            dumps=self._dumps,
            kept_bytes=self._kept.segments.size if self._kept else 0,
            unkept=self._kept.left_out if self._kept else None,
            reading_ns=self.reading_ns,
            attached=self._follower.is_traced,
            means=content["means"]["used"] or "",
            version=__version__,
            kernel=os.uname().release,
            cpu_ns=int(costs["cpu_s"] * 1e9),
            rss_bytes=costs["rss_bytes"],
            started_s=self._started_s,
        )

    # ---- keeping ----

    def want(self, why: str) -> None:
        """Keep a recording of what led here, and of what comes next, unless there were too many;
        why: of metrics.DUMPED_FOR."""
        kept = self._kept
        if not kept:
            return
        now_ns = time.monotonic_ns()
        if not self._fired:
            if not kept.dumps.may_have_another(now_ns / 1e9):
                self._say(f"no recording of {why} is kept: there were enough in this hour")
                return
            kept.segments.held = True
            self._dump_at_s = now_ns / 1e9 + kept.after_s
            self.sample_interval_s = BUSY_S
        self._fired.append({"finding": why, "t_ns": now_ns})
        kept.segments.sample({"t_ns": now_ns, "mark": f"watch: {why}"})

    def _write(self, segments: Segments, now_ns: int) -> None:
        segments.sample({"t_ns": now_ns, **self._sample})
        segments.write_held()
        stats = self._tracing.sent_stats()
        if stats["answers"] != self._stats_answers:
            self._stats_answers = stats["answers"]
            segments.sample({"t_ns": now_ns, "stats": stats})
        if self._events != self._written_events:
            self._written_events = self._events
            segments.sync()

    def _keep(self, kept: Kept, now_s: float) -> None:
        """Begin and end segments, and recordings, when it is time."""
        if self._fired and now_s >= self._dump_at_s:
            self._dump(kept)
        elif kept.segments.is_due(now_s):
            boundary = self._boundary()
            kept.segments.end(self._trailer(boundary, SEGMENT))
            self._begin_segment(kept.segments, boundary)
        elif not kept.segments.is_open and now_s >= self._begin_at_s:
            self._begin_segment(kept.segments, self._boundary())
        while kept.segments.failures:
            self._say(kept.segments.failures.pop())

    def _dump(self, kept: Kept) -> None:
        """Make one recording of the segments, and go on."""
        fired, self._fired = self._fired, []
        boundary, segments = self._boundary(), kept.segments
        segments.end(self._trailer(boundary, "watch"))
        path = kept.dumps.path(fired[0]["finding"])
        try:
            segments.join(path, {"watch": {**self.not_fired, "fired": fired}})
            for each in fired:
                self._dumps[each["finding"]] = self._dumps.get(each["finding"], 0) + 1
            self._say(f"wrote {path}; next: balloontrace report {path}")
            kept.dumps.delete_old()
        except UserError as error:
            self._say(str(error))
        segments.held = False
        self._begin_segment(segments, boundary)

    def _begin_segment(self, segments: Segments, boundary: Boundary) -> None:
        header = {
            **self._follower.content,
            "clock": {"monotonic_ns": time.monotonic_ns(), "realtime_ns": time.time_ns()},
            **boundary.as_begin(),
            "absent_samplers": self._samplers.absent,
            "watch": self.not_fired,
            **({"marks": True} if self._marks else {}),
        }
        try:
            segments.begin(header, boundary.t_ns / 1e9)
        except UserError as error:
            self._begin_at_s = time.monotonic() + RETRY_S
            self._say(str(error))
            return
        self._tracing.forget_target()
        self._follower.tell_absent()
        segments.sample({"t_ns": boundary.t_ns, **self._samplers.read()})

    def _trailer(self, end: Boundary, reason: str) -> dict[str, Any]:
        proof = {"begin": self._follower.proved, "end": self._follower.still_fires()}
        told = {"reason": reason, **end.as_end(), "proof": proof}
        return {**told, "recorder": own_costs(), "command": None}

    def _boundary(self, vmstat: dict[str, dict[str, int]] | None = None) -> Boundary:
        """This moment. vmstat: where it is that of attaching, before which nothing is traced."""
        before = balloon_counters()
        underway: dict[str, int] = {}
        for call in self._tracing.open_calls(self._follower.fill_from):
            underway[call.kind] = underway.get(call.kind, 0) + 1
        counters, summed = self._counted()
        vmstat = vmstat or {"before": before, "after": balloon_counters()}
        not_run, now_ns = self._not_run.since(), time.monotonic_ns()
        return Boundary(now_ns, self._events, counters, summed, vmstat, underway, not_run)

    def _counted(self) -> tuple[dict[str, dict[str, int]], dict[str, sums.Sum] | None]:
        """Counters, and sums if they are of the events that were read, and of those lost."""
        for _ in range(_TRIES):
            self.drain()
            counters, summed = self._tracing.counters(), self._tracing.sums()
            lost = sum(counts["lost"] for counts in counters.values())
            calls = sum(row.calls for row in summed.values())
            if calls == self._tracing.control["written"] + lost == self._events + lost:
                return counters, summed
            time.sleep(_PAUSE_S)
        return counters, None


def _ignore(sample: dict[str, Any]) -> None:
    """Where none are kept."""


def size_pages(vmstat: dict[str, int]) -> int | None:
    """Balloon pages that the guest has given, by /proc/vmstat; None: it does not say."""
    pages = vmstat.get("nr_balloon_pages")
    if pages is None:
        inflated, deflated = vmstat.get("balloon_inflate"), vmstat.get("balloon_deflate")
        if inflated is None or deflated is None:
            return None
        pages = inflated - deflated
    return pages * _PAGES_PER_PAGE
