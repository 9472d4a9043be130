# SPDX-License-Identifier: Apache-2.0
"""Findings as they fire, in words. Whether they do, conditions/triggers.py tells."""

from __future__ import annotations

from typing import TYPE_CHECKING, Callable

from balloontrace.events import BALLOON_PAGE_BYTES
from balloontrace.live.view import Fired

if TYPE_CHECKING:
    from balloontrace.live.tally import Tally

MOST = 64
"""That are kept: the last ones."""

APART_S = 60.0
"""What has not been true for so long fires anew (conditions/triggers.py: CALM_NS)."""


_BRIEFLY = "reclaim takes back what inflation takes in"


class Findings:
    """What fires, and what has."""

    def __init__(self) -> None:
        self._seen: tuple[Fired, ...] = ()

    def seen(self) -> tuple[Fired, ...]:
        """All, the oldest first."""
        return self._seen

    def take(self, t_ns: int, now_s: float, holding: list[str], tally: Tally) -> None:
        """What holds now, seconds since attach."""
        seen, left = [], set(holding)
        for one in self._seen:
            goes_on = one.id in left and now_s - one.until_s < APART_S
            if goes_on:
                left.discard(one.id)
                said = _SENTENCES[one.id](tally) or one.sentence
                seen.append(Fired(one.id, one.since_s, now_s, True, said))
            else:
                seen.append(Fired(one.id, one.since_s, one.until_s, False, one.sentence))
        seen += [
            Fired(name, now_s, now_s, True, _SENTENCES[name](tally) or _BRIEFLY)
            for name in holding
            if name in left
        ]
        self._seen = tuple(seen[-MOST:])


def _busy_no_op(tally: Tally) -> str:
    """Nothing while another target has just been read: what led here was under the one before."""
    stretch, size = tally.episodes.stretch, tally.episodes.size
    if stretch.reclaimed > stretch.inflated or not stretch.inflated:
        return ""
    grown = (size or 0) - (stretch.begin_size or 0)
    share = stretch.reclaimed / max(1, stretch.inflated)
    return (
        f"{_BRIEFLY}: {stretch.inflated:,} pages in, "
        f"{stretch.reclaimed:,} back ({share:.0%}), the balloon grew by {grown:,}"
    )


def _oom_ping_pong(tally: Tally) -> str:
    given = tally.by_cause["oom"]
    return f"the OOM notifier gave back {given:,} pages so far, and inflation takes them again"


def _out_of_puff(tally: Tally) -> str:
    episodes = tally.episodes
    short = (episodes.target or 0) - (episodes.size or 0)
    return f"the guest has no page left for the target, {short:,} pages short of it"


def _slow_host_ack(tally: Tally) -> str:
    longest = max((one.longest_ns for one in tally.recent_acks().values()), default=0)
    return (
        f"the host is slow to take pages: the longest ack of the minute took {longest / 1e9:.2f} s"
    )


def _held_under_pressure(tally: Tally) -> str:
    available, size = tally.memory.available, tally.episodes.size
    return (
        f"tasks wait for memory with {(available or 0) >> 20:,} MiB available, while the balloon "
        f"holds {(size or 0) * BALLOON_PAGE_BYTES >> 20:,} MiB"
    )


def _oom_kill(tally: Tally) -> str:
    held = (tally.episodes.size or 0) * BALLOON_PAGE_BYTES >> 20
    return f"the OOM killer chose a victim while the balloon held {held:,} MiB"


def _driver_gone(tally: Tally) -> str:
    return "the balloon's driver has left"


_SENTENCES: dict[str, Callable[[Tally], str]] = {
    "busy-no-op": _busy_no_op,
    "oom-ping-pong": _oom_ping_pong,
    "out-of-puff": _out_of_puff,
    "slow-host-ack": _slow_host_ack,
    "held-under-pressure": _held_under_pressure,
    "oom-kill": _oom_kill,
    "driver-gone": _driver_gone,
}
