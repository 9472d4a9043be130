# SPDX-License-Identifier: Apache-2.0
"""Whether something goes wrong right now, told from sums and samples of the last minute.

Each condition is that of the finding of its name (docs/findings.md), by the numbers of
thresholds.py. The findings see each call; here there is one reading a second, and what lies between
two of them is taken for what says least: a false alarm is worse than silence.
"""

from __future__ import annotations

from balloontrace.events import BALLOON_PAGE_BYTES
from balloontrace.sums import SLOTS, Sum, longest_ns
from balloontrace.thresholds import (
    AVAILABLE_SHARE,
    AWAY_S,
    BOUT_REST_S,
    FEW_SLOW_ACKS,
    FULL_SHARE,
    HELD_SHARE,
    MAJOR_FAULTS_PER_S,
    MEMCG_BALLOON_SHARE,
    MINUTE_NS,
    MOVED_SHARE,
    ONLY_STALLS_PER_S,
    PUFF_NS,
    PUFFS,
    RECLAIMED_PAGES,
    RETAKEN_PAGES,
    RETAKEN_SHARE,
    SLOW_ACK_S,
    SLOW_ACKS_SHARE,
    SLOW_ACKS_TOTAL_S,
    STALLS_PER_S,
    STANDSTILL_S,
    STARVED_NS,
    SWAP_INS_PER_S,
    is_no_op,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from typing import Any

FINDINGS = (
    *("busy-no-op", "oom-ping-pong", "out-of-puff", "slow-host-ack", "held-under-pressure"),
    *("oom-kill", "driver-gone"),
)
"""What can fire. `oom-kill` is any kill beside an inflated balloon, of which the findings are
killed-beside-balloon and memcg-oom; the others are findings."""

GAP_NS = 90_000_000_000
"""Moments further apart, by far more than a watcher at rest sleeps (watcher.py: IDLE_S), or in the
wrong order: the guest was suspended or did not run, or is a snapshot that was restored. What was
seen before says nothing of now, and all begins anew."""

MOST_NS = 2_000_000_000
"""No more counts of the time from one moment to the next: a clock that jumps by less than GAP_NS is
no standstill."""

CALM_NS = 60_000_000_000
"""What has fired fires again only after its condition was false for so long."""

LASTS_NS = 5_000_000_000
"""A busy no-op goes on for so long: a burst of reclaim at the begin of an inflation is none, when
that is seen whole. A worker out of puff slept within so long: its sleeps are 0.2 s apart."""

MOST_KEPT = 128
"""Readings, if moments come faster than one a second."""

_NOTHING = Sum(0, 0, 0, 0, [0] * SLOTS)
_LIVES = ("bind", "remove", "freeze", "restore")
"""Calls that end a life of the driver, or begin one."""

_AGAIN = ("workingset_refault_file", "workingset_refault_anon", "pgmajfault", "pswpin")
"""Of /proc/vmstat: what is read or swapped in again."""


def _slot_of(duration_ns: float) -> int:
    """The slot of a histogram that holds such a duration."""
    limits = ((slot, longest_ns(slot)) for slot in range(SLOTS))
    return next(slot for slot, limit in limits if limit is None or duration_ns <= limit)


_PUFFS_FROM = _slot_of(PUFF_NS)
_SLOW_FROM = _slot_of(SLOW_ACK_S * 1e9) + 1
"""The first slot of which all are slow; those of 100 to 134 ms share one with faster ones."""
_LIMITS_NS = [longest_ns(slot) or 0 for slot in range(SLOTS)]


class Moment:
    """What is known at one moment.

    t_ns: CLOCK_MONOTONIC; sums: of every call so far, as sums.of_rows gives them; sample: `vmstat`,
    `meminfo` and `psi` as the samplers give them, what this kernel lacks left out; size_pages,
    target_pages: balloon pages, None if not known, the target in whole pages of the guest
    (events.whole_pages); attached: whether the driver is there.
    """

    __slots__ = ("attached", "sample", "size_pages", "sums", "t_ns", "target_pages")

    def __init__(
        self,
        t_ns: int,
        sums: dict[str, Sum],
        sample: dict[str, Any],
        size_pages: int | None,
        target_pages: int | None,
        attached: bool,
    ) -> None:
        self.t_ns, self.sums, self.sample = t_ns, sums, sample
        self.size_pages, self.target_pages, self.attached = size_pages, target_pages, attached


def _counted_ns(before_ns: int, now_ns: int) -> int | None:
    """How much of the time between two moments counts; None: a gap."""
    return min(now_ns - before_ns, MOST_NS) if 0 < now_ns - before_ns <= GAP_NS else None


class _Reading:
    """What is kept of a moment: totals, in balloon pages, ns and calls, and the size then.

    lived_ns: time that counts (MOST_NS) until then.
    """

    _COUNTERS = (
        *("filled", "leaked", "reclaimed", "given", "notified", "killed", "targets", "lives"),
        *("sleeps", "slept_ns", "slow_acks", "slow_least_ns", "ack_ns", "fast_most_ns"),
        *("moving_ns", "removed", "bound"),
    )
    _FACTS = (
        *("t_ns", "lived_ns", "size", "target", "attached", "sampled"),
        *("total", "available", "full_us", "stalls", "again", "kills_counted"),
    )
    __slots__ = (*_COUNTERS, *_FACTS)

    def __init__(self, moment: Moment, lived_ns: int) -> None:
        self.t_ns, self.lived_ns = moment.t_ns, lived_ns
        self.size, self.target = moment.size_pages, moment.target_pages
        self.attached, self.sampled = moment.attached, bool(moment.sample)
        self._take_moves(moment.sums)
        self._take_waits(moment.sums)
        self._take_sample(moment.sample)

    def _take_moves(self, sums: dict[str, Sum]) -> None:
        fill, leaks = sums.get("fill", _NOTHING), _rows(sums, "leak ")
        self.filled, self.leaked = fill.done, sum(leak.done for leak in leaks)
        self.moving_ns = fill.ns + sum(leak.ns for leak in leaks)
        self.reclaimed = sums.get("leak shrinker", _NOTHING).done
        self.given = sums.get("leak oom", _NOTHING).done
        self.notified = sums.get("oom_notify", _NOTHING).calls
        self.killed = sums.get("oom_kill", _NOTHING).calls
        self.targets = sums.get("target", _NOTHING).calls
        self.removed = sums.get("remove", _NOTHING).calls
        self.bound = sums.get("bind", _NOTHING).done
        self.lives = sum(sums.get(name, _NOTHING).calls for name in _LIVES)

    def _take_waits(self, sums: dict[str, Sum]) -> None:
        sleep, acks = sums.get("sleep", _NOTHING), _rows(sums, "ack ")
        self.sleeps, self.slept_ns = sum(sleep.slots[_PUFFS_FROM:]), sleep.ns
        counts = [sum(slot) for slot in zip(*(ack.slots for ack in acks))] or _NOTHING.slots
        self.slow_acks = sum(counts[_SLOW_FROM:])
        # Each took longer than the slot below holds, and the others at most what theirs hold.
        slow = zip(counts[_SLOW_FROM:], _LIMITS_NS[_SLOW_FROM - 1 :])
        self.slow_least_ns = sum(number * least for number, least in slow)
        self.ack_ns = sum(ack.ns for ack in acks)
        fast = zip(counts[:_SLOW_FROM], _LIMITS_NS)
        self.fast_most_ns = sum(number * most for number, most in fast)

    def _take_sample(self, sample: dict[str, Any]) -> None:
        vmstat, meminfo = sample.get("vmstat", {}), sample.get("meminfo", {})
        self.total: int | None = meminfo.get("MemTotal")
        self.available: int | None = meminfo.get("MemAvailable")
        self.full_us: int | None = sample.get("psi", {}).get("memory", {}).get("full_us")
        stalls = [count for name, count in vmstat.items() if name.startswith("allocstall")]
        self.stalls: int | None = sum(stalls) if stalls else None
        self.again = tuple(vmstat.get(name, 0) for name in _AGAIN)
        self.kills_counted: int | None = vmstat.get("oom_kill")

    @property
    def tells_of_pressure(self) -> bool:
        """Whether the sample has what shows that a guest starves."""
        known = (self.size, self.total, self.available, self.full_us, self.stalls)
        return None not in known

    @property
    def held_bytes(self) -> int:
        """In the balloon; 0 if that is not known."""
        return (self.size or 0) * BALLOON_PAGE_BYTES

    def follows(self, before: _Reading) -> bool:
        """Whether these totals go on from those before: others are of programs loaded anew."""
        return all(getattr(self, name) >= getattr(before, name) for name in self._COUNTERS)


def _rows(sums: dict[str, Sum], prefix: str) -> list[Sum]:
    return [row for name, row in sums.items() if name.startswith(prefix)]


def _puffs(since: _Reading, now: _Reading) -> int:
    """Sleeps for want of a page. Where reclaim is not traced, sleeps of its own may be among them,
    of 100 ms: so many as the time that was slept makes, at most."""
    return min(now.sleeps - since.sleeps, (now.slept_ns - since.slept_ns) // PUFF_NS)


class _Way:
    """What was done under one target: on the way to it, since it was first seen, or after it was
    reached, since then.

    mark: the furthest size on the way up; short: since when the balloon is short of its target;
    still_ns: for how long of that it did not get further though the worker slept for want of pages,
    and longest_still_ns: at most.
    """

    __slots__ = ("begin", "longest_still_ns", "mark", "reached", "short", "still_ns", "upward")

    def __init__(self, begin: _Reading) -> None:
        size, target = begin.size or 0, begin.target or 0
        self.begin, self.mark = begin, size
        self._catch_up(begin)
        self.upward, self.reached = size < target, size == target

    def _catch_up(self, now: _Reading) -> None:
        self.short = now
        self.still_ns = self.longest_still_ns = 0

    def follow(self, before: _Reading, now: _Reading) -> None:
        """Go on to the next reading under the same target."""
        size, target = now.size or 0, now.target or 0
        filled = now.filled - before.filled
        # If all of it went in first: it may have been reached, and left again since.
        most = (before.size or 0) + filled
        if not self.reached and (most >= target if self.upward else size <= target):
            self.reached, self.begin = True, now
            self._catch_up(now)
        elif size >= target:
            self._catch_up(now)
        elif size > self.mark or (self.reached and filled):
            self.still_ns = 0
        elif self.still_ns or _puffs(before, now):
            # It may have got further, and have lost that to the OOM notifier since: half counts.
            sure = most <= self.mark
            self.still_ns += (now.lived_ns - before.lived_ns) // (1 if sure else 2)
        self.longest_still_ns = max(self.longest_still_ns, self.still_ns)
        self.mark = max(self.mark, size)

    def was_no_op(self, now: _Reading) -> bool:
        """Whether reclaim took back much of what went in on this way."""
        begin = self.begin
        return is_no_op(now.filled - begin.filled, now.reclaimed - begin.reclaimed)


class _OomBout:
    """Calls of the OOM notifier, none long after the one before (BOUT_REST_S), and how much of what
    they gave back the worker took again before the last of them: at least.

    It is counted as in analysis/trace/oom_bursts.py; of one interval the fills come first, which
    leaves most of the debt unpaid. That the watcher itself asked for memory cannot be told from
    sums; it keeps its own locked, and allocates next to nothing.
    """

    __slots__ = ("_debt", "_repaid", "given", "last_ns", "retaken")

    def __init__(self) -> None:
        self.last_ns: int | None = None
        self._begin()

    def _begin(self) -> None:
        self.given = self.retaken = self._debt = self._repaid = 0

    def follow(self, before: _Reading, now: _Reading, same_target: bool) -> None:
        """Go on to the next reading."""
        given, filled = now.given - before.given, now.filled - before.filled
        if now.notified > before.notified or given:
            if not self.goes_on(now):
                self._begin()
            self.last_ns = now.lived_ns
            self.given += given
            self.retaken = self._repaid
        if not same_target:
            self._debt = 0
            return
        paid = min(filled, self._debt)
        self._repaid += paid
        self._debt += given - paid

    def goes_on(self, now: _Reading) -> bool:
        """Whether a call would still belong to it."""
        return self.last_ns is not None and now.lived_ns - self.last_ns <= BOUT_REST_S * 1e9


class _Absence:
    """Since when the driver is away: its functions are gone, or it left the device. Where none was
    there from the begin, nobody left."""

    __slots__ = ("_unbound", "since_ns")

    def __init__(self) -> None:
        self.since_ns: int | None = None
        self._unbound = False

    def follow(self, before: _Reading, now: _Reading) -> None:
        """Go on to the next reading."""
        came = now.bound > before.bound or (now.attached and not before.attached)
        works = now.filled > before.filled or now.targets > before.targets
        if now.removed > before.removed:
            self._unbound = not came
        elif came or works:
            self._unbound = False
        if now.attached and not self._unbound:
            self.since_ns = None
        elif self.since_ns is None and before.attached:
            self.since_ns = now.lived_ns


class Triggers:
    """Which findings fire, moment by moment."""

    def __init__(
        self, wanted: Iterable[str] = FINDINGS, features: Sequence[str] | None = None
    ) -> None:
        """wanted: of FINDINGS; features: see negotiated. Raises ValueError of an id that is not in
        FINDINGS."""
        wanted = set(wanted)
        if unknown := sorted(wanted - set(FINDINGS)):
            raise ValueError(f"no such trigger: {', '.join(unknown)}")
        self._wanted = [name for name in FINDINGS if name in wanted]
        self.negotiated(features)
        self._lived_ns = 0
        self._begin_anew()

    def negotiated(self, features: Sequence[str] | None) -> None:
        """What driver and device agree upon from now on, by name; none at all: not known. Without
        deflate_on_oom the driver takes the balloon's pages out of MemTotal; where that is not
        known, what needs RAM fires only if it would either way."""
        self._deflate_on_oom = "deflate_on_oom" in features if features else None

    def _begin_anew(self) -> None:
        self._readings: list[_Reading] = []
        self._true_ns: dict[str, int] = {}
        self._absence = _Absence()
        self._forget_calls()

    def _forget_calls(self) -> None:
        self._way: _Way | None = None
        self._bout = _OomBout()

    @property
    def kept(self) -> int:
        """How many readings are kept: of a minute, and never more than MOST_KEPT."""
        return len(self._readings)

    def fired(self, moment: Moment) -> list[str]:
        """What fires now, in the order of FINDINGS: once a bout (CALM_NS). Moments come in order of
        time, about one a second."""
        if self._readings:
            counted_ns = _counted_ns(self._readings[-1].t_ns, moment.t_ns)
            if counted_ns is None:
                self._begin_anew()
            self._lived_ns += counted_ns or 0
        self._take(_Reading(moment, self._lived_ns))
        return [name for name in self._wanted if self._holds(name) and self._begins(name)]

    @property
    def holding(self) -> list[str]:
        """What is true at the last moment, whether it has fired before or not."""
        return [name for name in self._wanted if self._true_ns.get(name) == self._lived_ns]

    def _take(self, now: _Reading) -> None:
        before = self._readings[-1] if self._readings else None
        if before:
            self._absence.follow(before, now)
            if now.follows(before):
                self._follow_calls(before, now)
            else:
                self._readings = []
                self._forget_calls()
        if self._way is None and None not in (now.size, now.target):
            self._way = _Way(now)
        self._readings.append(now)
        oldest_ns = now.lived_ns - MINUTE_NS
        while len(self._readings) > MOST_KEPT or self._readings[0].lived_ns < oldest_ns:
            del self._readings[0]

    def _follow_calls(self, before: _Reading, now: _Reading) -> None:
        # The host may have set another target and this one again.
        same = (before.target, before.targets) == (now.target, now.targets)
        same = same and before.lives == now.lives and before.attached == now.attached
        known = None not in (before.size, now.size, now.target)
        if not same or not known:
            self._way = None
        elif self._way:
            self._way.follow(before, now)
        self._bout.follow(before, now, same and known)

    def _holds(self, name: str) -> bool:
        """Whether its condition, the method of its name, is true now."""
        return bool(getattr(self, f"_{name.replace('-', '_')}")())

    def _begins(self, name: str) -> bool:
        """Whether a condition that is true now was false for CALM_NS before."""
        last_ns = self._true_ns.get(name)
        self._true_ns[name] = self._lived_ns
        return last_ns is None or self._lived_ns - last_ns >= CALM_NS

    def _within(self, time_ns: int) -> _Reading:
        """The oldest reading of the last so many ns."""
        oldest_ns = self._lived_ns - time_ns
        return next(one for one in self._readings if one.lived_ns >= oldest_ns)

    def _busy_no_op(self) -> bool:
        """Of all that went in on this way, and in the last minute. There the balloon also grew by
        less than reclaim took: what is a no-op only for now, and not when the inflation is seen
        whole, does not fire."""
        way, now = self._way, self._readings[-1]
        if way is None or not (way.upward or way.reached) or not way.was_no_op(now):
            return False
        since = max(self._within(MINUTE_NS), way.begin, key=lambda one: one.lived_ns)
        reclaimed = now.reclaimed - since.reclaimed
        grown = (now.size or 0) - (since.size or 0)
        lasts = now.lived_ns - way.begin.lived_ns >= LASTS_NS
        return lasts and reclaimed >= RECLAIMED_PAGES and grown < reclaimed

    def _oom_ping_pong(self) -> bool:
        bout = self._bout
        least = max(RETAKEN_PAGES, RETAKEN_SHARE * bout.given)
        return bout.goes_on(self._readings[-1]) and bout.retaken >= least

    def _out_of_puff(self) -> bool:
        """Whether the target will be reached is not known yet: so it must be late in any case, and
        asleep now."""
        way, now = self._way, self._readings[-1]
        if way is None or (now.size or 0) >= (now.target or 0) or way.was_no_op(now):
            return False
        late = way.longest_still_ns >= STANDSTILL_S * 1e9
        slept = _puffs(way.short, now) >= PUFFS
        return late and slept and _puffs(self._within(LASTS_NS), now) > 0

    def _slow_host_ack(self) -> bool:
        """The time in slow acks is what they took at least, by their slots. Few of them may be a
        guest that was stopped meanwhile, of which the finding is less sure: they do not fire."""
        since, now = self._within(MINUTE_NS), self._readings[-1]
        least_ns = now.slow_least_ns - since.slow_least_ns
        others_ns = now.fast_most_ns - since.fast_most_ns
        slow_ns = max(least_ns, now.ack_ns - since.ack_ns - others_ns)
        moving_ns = now.moving_ns - since.moving_ns
        enough_ns = max(SLOW_ACKS_TOTAL_S * 1e9, SLOW_ACKS_SHARE * moving_ns)
        return now.slow_acks - since.slow_acks >= FEW_SLOW_ACKS and slow_ns >= enough_ns

    def _held_under_pressure(self) -> bool:
        """As analysis/trace/starvation.py. Not without PSI, where the finding itself is of low
        certainty, nor where the host asks for less or the worker may be who stalls."""
        now = self._readings[-1]
        if not now.sampled:  # it is as it was a moment ago
            before = self._readings[-2:-1]
            last_ns = self._true_ns.get("held-under-pressure")
            return bool(before) and last_ns == before[0].lived_ns
        if not now.tells_of_pressure:
            return False
        ram, most_ram = self._ram(now)
        little = AVAILABLE_SHARE * ram
        if (now.available or 0) >= little or now.held_bytes < HELD_SHARE * most_ram:
            return False
        since = self._rest_begins(MOVED_SHARE * ram)
        long = now.lived_ns - since.lived_ns >= STARVED_NS
        if not long or (since.available or 0) >= little or not _starves(since, now):
            return False
        begin = self._way.begin if self._way else since
        first = min(begin, since, key=lambda one: one.lived_ns)
        return not (_only_stalls(since, now) and _puffs(first, now))

    def _ram(self, now: _Reading) -> tuple[int, int]:
        """The guest's memory in bytes, the balloon's pages among it: at least, and at most."""
        total = now.total or 0
        least = total + now.held_bytes * (self._deflate_on_oom is False)
        return least, total + now.held_bytes * (self._deflate_on_oom is not True)

    def _rest_begins(self, moved_bytes: float) -> _Reading:
        """The first reading since which the balloon stood still, and was not to get smaller."""
        since = self._readings[-1]
        for one in reversed(self._readings):
            moved = abs(one.held_bytes - since.held_bytes) > moved_bytes
            lowered = one.target is not None and one.target < (one.size or 0)
            if moved or lowered or (one.sampled and not one.tells_of_pressure):
                break
            if one.sampled:
                since = one
        return since

    def _oom_kill(self) -> bool:
        """Any kill: whether the guest was out of memory or a memory cgroup, the analysis tells."""
        now = self._readings[-1]
        before = next((one for one in self._readings[-2::-1] if one.sampled), None)
        if before is None or not now.sampled:  # when memory is read next it is seen
            return False
        counted = None not in (before.kills_counted, now.kills_counted)
        killed = now.killed > before.killed
        killed |= counted and (now.kills_counted or 0) > (before.kills_counted or 0)
        held = min(before.held_bytes, now.held_bytes)
        if not killed or not held or now.total is None:
            return False
        return held >= MEMCG_BALLOON_SHARE * self._ram(now)[1]

    def _driver_gone(self) -> bool:
        since_ns = self._absence.since_ns
        return since_ns is not None and self._lived_ns - since_ns >= AWAY_S * 1e9


def _starves(since: _Reading, now: _Reading) -> bool:
    """Whether tasks waited for memory that reclaim took from them. Times are those of the clock,
    which it never shortens: rates that a jump makes smaller do not fire."""
    span_s = (now.t_ns - since.t_ns) / 1e9
    again = [later - earlier for later, earlier in zip(now.again, since.again)]
    faults, swapped_in = again[_AGAIN.index("pgmajfault")], again[_AGAIN.index("pswpin")]
    busy = faults >= MAJOR_FAULTS_PER_S * span_s or swapped_in >= SWAP_INS_PER_S * span_s
    busy |= (now.stalls or 0) - (since.stalls or 0) >= STALLS_PER_S * span_s
    full_s = ((now.full_us or 0) - (since.full_us or 0)) / 1e6
    return busy and full_s >= FULL_SHARE * span_s


def _only_stalls(since: _Reading, now: _Reading) -> bool:
    """Whether nothing was read or swapped in again."""
    least = ONLY_STALLS_PER_S * (now.t_ns - since.t_ns) / 1e9
    return all(later - earlier < least for later, earlier in zip(now.again, since.again))


class Progress:
    """How the balloon came on, added up from moment to moment, as far as they show it.

    progress_pages: by which its size came closer to its target than ever under that target;
    no_progress_ns: time in which it was short of its target, pages moved, and it came no closer. A
    gap (GAP_NS) adds nothing to either.
    """

    __slots__ = ("_before", "_left", "no_progress_ns", "progress_pages")

    def __init__(self) -> None:
        self.progress_pages = self.no_progress_ns = 0
        self._before: _Reading | None = None
        self._left: int | None = None

    def add(self, moment: Moment) -> None:
        """Go on to the next moment, of those that Triggers.fired gets."""
        before, now = self._before, _Reading(moment, 0)
        self._before = now
        counted_ns = _counted_ns(before.t_ns, now.t_ns) if before else None
        left = _pages_left(now, now.size)
        goes_on = before is not None and now.follows(before) and now.lives == before.lives
        if before is None or counted_ns is None or left is None or not goes_on:
            self._left = left
            return
        if now.target != before.target or self._left is None:
            self._left = _pages_left(now, before.size)
            counted_ns = 0  # how much of it was under this target is not known
        least = left if self._left is None else min(left, self._left)
        gained = 0 if self._left is None else self._left - least
        self.progress_pages += gained
        moved = now.filled > before.filled or now.leaked > before.leaked
        if left and moved and not gained:
            self.no_progress_ns += counted_ns
        self._left = least


def _pages_left(now: _Reading, size: int | None) -> int | None:
    """How far a size is from the target; None: not known."""
    return None if size is None or now.target is None else abs(now.target - size)
