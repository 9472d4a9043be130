# SPDX-License-Identifier: Apache-2.0
"""What the events and samples of one stream come to, taken in order of time.

Its memory does not grow with the stream: sums since the begin, and of each of the last seconds.
"""

from __future__ import annotations

from collections import deque
from typing import Any, Optional

from balloontrace.conditions.agreement import Agreement
from balloontrace.conditions.triggers import Moment, Triggers
from balloontrace.events import (
    BALLOON_PAGE_BYTES,
    CHUNK_PAGES,
    KINDS,
    LOSSES,
    OPEN_DURATION,
    UNKNOWN_PAGES,
    whole_pages,
)
from balloontrace.live import findings, view
from balloontrace.live.decoding import Decoding, Event
from balloontrace.live.episodes import NONE, TOWARD, Episodes
from balloontrace.live.seconds import (
    KEPT,
    MOST_TASKS,
    AckSum,
    CallSum,
    Second,
    Standing,
    TaskKey,
    Tasks,
    acks_of,
)
from balloontrace.sums import FIRST_BITS, SLOTS, Sum

SECOND_NS = 1_000_000_000

_MOST_SKIPPED = 120
"""Seconds between two things that are told, which are seconds of their own; behind a longer time
the window begins anew."""

_MOMENT_NS = 1_500_000_000
"""Where no sample comes for longer, the triggers look once a second."""

_LEAVES = frozenset(("remove", "freeze"))
"""Calls by which the driver leaves, and causes of what it gives back then."""

MOVERS = ("fill", "leak")

_HANDLED = frozenset(("target", "restore", "bind", *_LEAVES))
"""Kinds that end one stretch and begin another."""

_NOT_TRACED: dict[str, Any] = {"driver_identity": 0, "seams": {}}

_PAGED = frozenset(kind.name for kind in KINDS if kind.moves_pages)


def section(content: dict[str, Any], key: str) -> dict[str, Any]:
    """`content[key]` if that is an object, else an empty one."""
    value = content.get(key)
    return value if isinstance(value, dict) else {}


class Tally:
    """One recording up to now.

    begin_ns: CLOCK_MONOTONIC of its second 0; now_ns: of what was taken last; sums: of every call
    so far, by row (sums.ROWS); seconds: the last ones, which are over; second: the one that is not;
    missed: returns that were not seen.
    """

    def __init__(self, name: str, header: dict[str, Any], begin_ns: int) -> None:
        """Raises UserError if the header does not describe events."""
        self.header, self.begin_ns, self.now_ns = header, begin_ns, begin_ns
        self.counted = bool(section(header, "counters"))
        self.decoding = None if self.counted else Decoding(name, header)
        self.sums: dict[str, Sum] = {}
        self.inflated, self.by_cause = 0, dict.fromkeys(view.OUT, 0)
        self.tasks = Tasks(16 * MOST_TASKS)
        self.events = self.missed = 0
        self.bytes = 0
        self.seconds: deque[Second] = deque(maxlen=KEPT)
        self._begin_second(0)
        guest = section(header, "guest")
        page_bytes = int(guest.get("page_size") or BALLOON_PAGE_BYTES)
        self._unit = max(1, page_bytes // BALLOON_PAGE_BYTES)
        size, exact = self._found(section(header, "vmstat_attach"))
        self.driver: Optional[str] = "attached" if section(header, "seams") else None
        repeat = bool(section(header, "watch"))
        self.episodes = Episodes(begin_ns, size, exact, repeat, self._unit)
        self._partial = self.decoding.bit("partial") if self.decoding else 0
        self._missed = self.decoding.bit("missed") if self.decoding else 0
        self._kswapd = self.decoding.bit("kswapd") if self.decoding else 0
        tasks = section(header, "tasks")
        self._kswapds = frozenset(tasks.get("kswapd") or ())
        self._own = frozenset(tasks.get(who) for who in ("recorder", "netlink"))
        self.balloon: dict[str, Any] = {}
        self._triggers = Triggers()
        self._negotiated(header)
        self.findings = findings.Findings()
        self._sample: dict[str, Any] = {}
        self._sampled_ns: Optional[int] = None
        self.memory = view.Memory(None, None, None, None, None)
        self.pressure = view.Pressure(None, None)
        self._moment_ns = begin_ns
        self._counters: dict[str, int] = {}
        self._agreement = Agreement(page_bytes)
        self._moves = self._looked_moves = self._drivers = 0
        self._suspected_ns: Optional[int] = None  # since when pages seem to be under way
        self._based_ns: Optional[int] = None  # when what is compared with was read
        self._lacks = False  # events are missing
        self._left: dict[str, Sum] = {}  # when the driver that was traced before left
        self._attached(header)
        self._look(begin_ns, {})

    # ---- what comes ----

    def event(self, t_ns: int, event: tuple[Any, ...]) -> None:
        """A call that returned, or one that is open at the end. t_ns: when it is told of."""
        if t_ns >= self._second_ends_ns:
            self._go_on(t_ns)
        self.now_ns = max(self.now_ns, t_ns)
        decoding = self.decoding
        if decoding is None:
            return
        _, took_ns, _, done, tid, pid, number, within, queue, flags, comm = event
        kind = decoding.kinds.get(number)
        if kind is None:
            return
        self.events += 1
        pages = 0 if done == UNKNOWN_PAGES or kind not in _PAGED else done
        second, row = self.second, kind
        if kind in MOVERS:
            self._moved(event[0])
        elif kind == "migrate" and self._based_ns is not None and event[0] <= self._based_ns:
            self._agreement.forget("migrate")  # as in _moved
        if kind == "fill":
            second.filled += pages
            self.inflated += pages
            self.episodes.move(t_ns, pages, False)
        elif kind == "leak":
            cause = decoding.cause(within)
            row = "leak " + cause
            second.leaked[cause] = second.leaked.get(cause, 0) + pages
            self.by_cause[cause] += pages
            if cause in _LEAVES and self.episodes.stretch.kind != NONE:
                # What the leaving driver gives back is told before its own call returns.
                self.episodes.leave(event[0])
            self.episodes.move(t_ns, -pages, cause == "shrinker")
            if cause in ("shrinker", "oom"):
                self._by_task(cause, tid, pid, within, flags, comm, pages)
        elif kind == "ack":
            row = "ack " + (decoding.queues.get(queue) or "other")
        elif kind in _HANDLED:
            self._control(kind, Event(*event))
        if flags & self._missed:
            self.missed += 1
        sum_ = self.sums.get(row)
        if sum_ is None:
            sum_ = self.sums[row] = Sum(0, 0, 0, 0, [0] * SLOTS)
        sum_.done += 0 if done == UNKNOWN_PAGES else done
        if took_ns == OPEN_DURATION:
            return
        sum_.calls += 1
        calls = second.calls.get(kind)
        if calls is None:
            calls = second.calls[kind] = CallSum()
        calls.calls += 1
        calls.pages += pages
        if took_ns:
            slot = (took_ns - 1).bit_length() - FIRST_BITS
            slot = 0 if slot < 0 else min(slot, SLOTS - 1)
            sum_.ns += took_ns
            sum_.slots[slot] += 1
            calls.ns += took_ns
            if took_ns > calls.longest_ns:
                calls.longest_ns = took_ns
            if kind == "ack":
                self._ack(row[4:], slot, took_ns)

    def sample(self, t_ns: int, content: dict[str, Any]) -> None:
        """What the slow sources said, or what was to be told."""
        self._go_on(t_ns)
        self.now_ns = max(self.now_ns, t_ns)
        if isinstance(content.get("driver"), dict):
            self._driver(t_ns, content["driver"])
        if not any(key in content for key in ("vmstat", "meminfo", "psi")):
            return
        vmstat = section(content, "vmstat")
        if self.counted:
            self._count(t_ns, vmstat)
        self._take(t_ns, content)
        self._agree(vmstat)
        self._look(t_ns, content)

    def trailer(self, content: dict[str, Any]) -> None:
        """The recording ended, all events before were told of."""
        ended_ns = content.get("ended_ns")
        if ended_ns is not None and ended_ns > self.now_ns:
            self._go_on(ended_ns)
            self.now_ns = ended_ns
        self._look(self.now_ns, {})
        counters = section(content, "counters")
        if any(section(counters, kind).get(name) for kind in MOVERS for name in LOSSES):
            self.episodes.doubt(self.now_ns)
        if self._suspected_ns is not None:  # what is under way was told before this
            self._lacks, self._suspected_ns = True, None
        detach = section(content, "vmstat_detach")
        after = section(detach, "after")
        if after and section(detach, "before") == after:
            self._looked_moves = self._moves
            for _ in range(2):  # at rest: the same twice
                self._agree(after)

    # ---- what it comes to ----

    @property
    def tells_of_moves(self) -> bool:
        """Whether what moves is known: not where nothing was traced, and the kernel has no
        counters."""
        return not self.counted or bool(self._counters)

    def standing(self) -> Standing:
        """How things stand now."""
        episodes, now_ns = self.episodes, self.now_ns
        return Standing(
            now_ns,
            episodes.size,
            episodes.target,
            self.driver,
            self.inflated,
            dict(self.by_cause),
            None if self.counted else episodes.churn_ratio,
            episodes.amplification,
            episodes.still_ns(now_ns),
            episodes.longest_still_ns(now_ns),
            self.memory,
            self.pressure,
            self.findings.seen(),
            self._said_agreement(),
            self.events,
            self.bytes,
        )

    def _said_agreement(self) -> view.Agreement:
        differences = self._agreement.differences
        known = {name: more for name, more in differences.items() if more is not None}
        if not known:
            return view.Agreement(None, "not yet compared with /proc/vmstat, the balloon moves")
        if wrong := [
            f"{name} by {more:+,}" for name, more in known.items() if self._is_wrong(more)
        ]:
            return view.Agreement(False, f"differs from /proc/vmstat: {', '.join(wrong)} pages")
        if underway := sum(known.values()):
            return view.Agreement(None, f"{-underway:,} pages are under way, or not told of")
        return view.Agreement(True, "agrees with /proc/vmstat")

    # ---- time ----

    def _go_on(self, t_ns: int) -> None:
        """End the seconds that are over, and let the triggers look if nobody has for long."""
        while t_ns - self._moment_ns > _MOMENT_NS:
            behind = t_ns - self._moment_ns > _MOST_SKIPPED * SECOND_NS
            self._look(t_ns if behind else self._moment_ns + SECOND_NS, {})
        number = max(0, t_ns - self.begin_ns) // SECOND_NS
        if number - self.second.number > _MOST_SKIPPED:
            self.seconds.clear()
            self.episodes.next_part()
            self._begin_second(number)
        while self.second.number < number:
            self._end_second()

    def _end_second(self) -> None:
        second, stretch = self.second, self.episodes.stretch
        begin_ns = self.begin_ns + second.number * SECOND_NS
        self.now_ns = max(self.now_ns, begin_ns + SECOND_NS)
        second.stands_still = stretch.kind == TOWARD and stretch.last_ns <= begin_ns
        second.stands_still &= not self.episodes.suspect
        second.part = self.episodes.next_part()
        second.standing = self.standing()
        self.seconds.append(second)
        self._begin_second(second.number + 1)

    def _begin_second(self, number: int) -> None:
        self.second = Second(number)
        self._second_ends_ns = self.begin_ns + (number + 1) * SECOND_NS

    def last(self, seconds: int) -> list[Second]:
        """Those of the last so many seconds, the one under way among them."""
        oldest = self.second.number - seconds
        return [one for one in self.seconds if one.number > oldest] + [self.second]

    def recent_acks(self) -> dict[str, AckSum]:
        """Of the last minute, by queue."""
        return acks_of(self.last(60))

    # ---- calls ----

    def _by_task(
        self, cause: str, tid: int, pid: int, within: int, flags: int, comm: bytes, pages: int
    ) -> None:
        """As analysis/questions/causes.py tells who made a leak."""
        decoding, comm = self.decoding, comm.split(b"\0", 1)[0]  # behind it is what was before
        if cause == "shrinker" and (tid in self._kswapds or flags & self._kswapd):
            key = TaskKey("kswapd", b"kswapd", 0, cause)
        elif cause == "shrinker" and decoding and within & decoding.within["worker"]:
            key = TaskKey("inflation", b"", 0, cause)
        elif pid in self._own:
            key = TaskKey("recorder", comm, pid, cause)
        else:
            key = TaskKey("task", comm, pid, cause)
        self.tasks.add(key, pages, 1)
        self.second.tasks.add(key, pages, 1)

    def _ack(self, queue: str, slot: int, took_ns: int) -> None:
        acks = self.second.acks.get(queue)
        if acks is None:
            acks = self.second.acks[queue] = AckSum()
        acks.slots[slot] += 1
        acks.longest_ns = max(acks.longest_ns, took_ns)

    def _control(self, kind: str, event: Event) -> None:
        """A call that ends one stretch and begins another."""
        if kind == "target":
            self.episodes.aim(event.start_ns, event.asked, event.done)
        elif kind in _LEAVES:
            self.episodes.leave(event.start_ns)
        elif kind == "restore" or event.done:
            self.episodes.come(event.start_ns)

    # ---- the driver ----

    def _driver(self, t_ns: int, content: dict[str, Any]) -> None:
        """It went, came, or could not be traced."""
        state = content.get("state")
        if state in ("absent", "gone"):
            self.driver = state
            self._traced = _NOT_TRACED
            self.episodes.leave(t_ns)
            self.episodes.gap()
            self._left = {row: Sum(0, 0, one.done, 0, []) for row, one in self.sums.items()}
            if state == "absent":
                self.episodes.size = 0  # without a driver there is no balloon
        elif state == "untraceable":
            self.driver, self._traced = state, _NOT_TRACED
            self.episodes.size = None  # it moves pages that nobody tells of
        elif state == "negotiated":
            self._negotiated(content)
        elif state == "attached":
            self.driver = state
            self._negotiated(content)
            size, exact = self._found(section(content, "vmstat_attach"))
            self.episodes.found(size, exact)
            if self.episodes.stretch.kind != TOWARD:
                self.episodes.come(t_ns)
            self._attached(content)

    def _negotiated(self, content: dict[str, Any]) -> None:
        """The balloon as it is described from now on."""
        self.balloon = section(content, "balloon")
        self._triggers.negotiated(self.balloon.get("features"))

    def _attached(self, content: dict[str, Any]) -> None:
        """What is compared with /proc/vmstat from now on."""
        seams = section(content, "seams")
        self._drivers += bool(seams)
        seams = {kind: seam for kind, seam in seams.items() if isinstance(seam, dict)}
        self._traced = {"driver_identity": self._drivers, "seams": seams}
        attach = section(content, "vmstat_attach")
        readings = {name: section(attach, name) for name in ("before", "after")}
        self._agreement.attached(self._left, readings, self._traced)
        self._based_ns = self.now_ns if self._agreement.is_based else None

    def _found(self, attach: dict[str, Any]) -> tuple[Optional[int], bool]:
        """Balloon pages by /proc/vmstat after attaching, and whether it stood still meanwhile."""
        before, after = section(attach, "before"), section(attach, "after")
        size = self._size_of(after)
        names = ("balloon_inflate", "balloon_deflate")
        stood = all(before.get(name) == after.get(name) for name in names)
        return size, stood and size is not None

    def _size_of(self, vmstat: dict[str, Any]) -> Optional[int]:
        inflated, deflated = vmstat.get("balloon_inflate"), vmstat.get("balloon_deflate")
        if inflated is None or deflated is None:
            return None
        return int(max(0, inflated - deflated)) * self._unit

    # ---- samples ----

    def _count(self, t_ns: int, vmstat: dict[str, int]) -> None:
        """Moves by counters alone, whose causes are not known. What was not read this time is in
        the next reading."""
        if self._size_of(vmstat) is None:
            return
        now = {name: vmstat[f"balloon_{name}"] for name in ("inflate", "deflate")}
        if self._counters:
            went_in, came_out = (
                max(0, now[name] - self._counters[name]) * self._unit for name in now
            )
            self.second.filled += went_in
            self.inflated += went_in
            self.by_cause["unknown"] += came_out
            leaked = self.second.leaked
            leaked["unknown"] = leaked.get("unknown", 0) + came_out
            self.episodes.move(t_ns, went_in, False)
            self.episodes.move(t_ns, -came_out, False)
        elif self.episodes.size is None:
            self.episodes.size = self._size_of(vmstat)
        self._counters = now

    def _take(self, t_ns: int, content: dict[str, Any]) -> None:
        """Memory, and pressure since the sample before."""
        meminfo = section(content, "meminfo")
        names = ("MemTotal", "MemAvailable", "MemFree", "SwapTotal", "SwapFree")
        if meminfo:
            self.memory = view.Memory(*(meminfo.get(name) for name in names))
        now = section(section(content, "psi"), "memory")
        before = section(section(self._sample, "psi"), "memory")
        span_us = (t_ns - (self._sampled_ns or t_ns)) / 1000
        some, full = (
            _share(now.get(name), before.get(name), span_us) for name in ("some_us", "full_us")
        )
        self.pressure = view.Pressure(some, full)
        self._sample, self._sampled_ns = content, t_ns

    def _agree(self, vmstat: dict[str, int]) -> None:
        """Compare with what the kernel counted, while nothing moves; where events are missing, the
        size is what it says then."""
        if self.counted or not vmstat:
            return
        moved = self._moves != self._looked_moves
        self._looked_moves = self._moves
        rests = self._agreement.look(self.sums, vmstat, self._traced, moved)
        counted = self._size_of(vmstat)
        if not rests or counted is None:
            return
        if self._based_ns is None:
            self._based_ns = self.now_ns
        differences = [self._agreement.differences[name] for name in ("inflate", "deflate")]
        wrong = any(map(self._is_wrong, differences))
        if not wrong and any(differences):
            self._suspected_ns = self._suspected_ns or self.now_ns
        self.episodes.suspect = self._suspected_ns is not None
        if self.episodes.suspect:
            return
        self.episodes.count(self.now_ns, counted)
        if wrong and counted != self.episodes.size:
            self.episodes.set_right(self.now_ns, counted)
        self.episodes.confirm()

    def _moved(self, start_ns: int) -> None:
        """A fill or leak is told of that began at a moment. What was taken for the pages of a call
        under way was none, if this is the next one and it began later: one moves pages at a time
        (balloon_lock in drivers/virtio/virtio_balloon.c)."""
        self._moves += 1
        if self._based_ns is not None and start_ns <= self._based_ns:
            # What is compared with may have had its pages: as where a segment of `watch` begins
            # while the host has not answered yet.
            self._based_ns = None
            self._agreement.forget()
            self.episodes.doubt_size()
        if self._suspected_ns is None:
            return
        if start_ns > self._suspected_ns:
            self._lacks = True
        else:  # it was under way: how much is missing is not known until the next rest
            found = self._agreement.differences
            found.update({name: None for name, more in found.items() if more})
        self._suspected_ns, self.episodes.suspect = None, False

    def _is_wrong(self, more: Optional[int]) -> bool:
        """Whether so many pages more than the kernel counted show that events are missing: fewer
        may be those of a call that has yet to return, as where the host answers late."""
        if not more:
            return False
        return self._lacks or not -CHUNK_PAGES <= more < 0

    def _look(self, t_ns: int, sample: dict[str, Any]) -> None:
        """Let the triggers look."""
        self._moment_ns = max(t_ns, self._moment_ns)
        if self.counted:
            return
        episodes = self.episodes
        there = self.driver not in ("gone", "absent")
        target = None if episodes.target is None else whole_pages(episodes.target, self._unit)
        moment = Moment(t_ns, self.sums, sample, episodes.size, target, there)
        self._triggers.fired(moment)
        self.findings.take(t_ns, (t_ns - self.begin_ns) / 1e9, self._triggers.holding, self)


def _share(now_us: Optional[int], before_us: Optional[int], span_us: float) -> Optional[float]:
    """Of a span, what a total grew by; None if that is not known."""
    if now_us is None or before_us is None or span_us <= 0:
        return None
    return min(1.0, max(0.0, (now_us - before_us) / span_us))
