# SPDX-License-Identifier: Apache-2.0
"""How the balloon comes on toward its targets, move by move: what the report says of episodes
(analysis/questions/episodes.py), as it happens."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Optional

from balloontrace.events import UNKNOWN_PAGES, whole_pages

TOWARD, AFTER, NONE = "target", "after", "none"
"""What a stretch is: on the way to a target; after that was reached; or no target is known, or no
driver is there to follow one."""


class Stretch:
    """Moves that belong together. inflated, deflated, reclaimed: pages; begin_size, target: pages,
    None if not known, the target in whole ones of the guest (events.whole_pages); mark: the
    furthest size on the way; last_ns: when the balloon last came closer, or its begin."""

    __slots__ = (
        *("begin_ns", "begin_size", "deflated", "inflated", "kind", "last_ns", "mark"),
        *("reclaimed", "target", "upward"),
    )

    def __init__(self, kind: str, begin_ns: int, size: Optional[int], target: Optional[int]):
        self.kind, self.begin_ns, self.last_ns = kind, begin_ns, begin_ns
        self.begin_size = self.mark = size
        self.target = target
        self.upward = None not in (size, target) and (target or 0) > (size or 0)
        self.inflated = self.deflated = self.reclaimed = 0


class Part:
    """What moved in a part of the time, by stretch. first: pages in and out of the stretch that was
    under way at its begin; ended: whether that ended in it; moved, undone: pages of those that
    began and ended in it; inflated, deflated: of the stretch that is under way at its end."""

    __slots__ = ("deflated", "ended", "first", "inflated", "moved", "undone")

    def __init__(self) -> None:
        self.inflated = self.deflated = self.moved = self.undone = 0
        self.ended, self.first = False, (0, 0)

    def end(self) -> None:
        """The stretch that was under way ended."""
        if self.ended:
            self.moved += self.inflated + self.deflated
            self.undone += undone(self.inflated, self.deflated)
        else:
            self.ended, self.first = True, (self.inflated, self.deflated)
        self.inflated = self.deflated = 0


def undone(inflated: int, deflated: int) -> int:
    """Of the pages that moved in one stretch, those that came to nothing: moved - |net|."""
    return 2 * min(inflated, deflated)


def churn_of(parts: Iterable[Part]) -> Optional[float]:
    """Of all that moved in parts of the time that follow each other, the share that was undone
    within its stretch; None: nothing moved."""
    all_moved = all_undone = inflated = deflated = 0
    for part in parts:
        if not part.ended:
            inflated, deflated = inflated + part.inflated, deflated + part.deflated
            continue
        inflated, deflated = inflated + part.first[0], deflated + part.first[1]
        all_moved += inflated + deflated + part.moved
        all_undone += undone(inflated, deflated) + part.undone
        inflated, deflated = part.inflated, part.deflated
    all_moved += inflated + deflated
    return (all_undone + undone(inflated, deflated)) / all_moved if all_moved else None


class Episodes:
    """All of them up to now. Moves, targets and the driver's comings and goings come in order of
    time.

    size, target: balloon pages, None if not known; stretch: the one under way; moved, undone: pages
    of those that ended, for the churn ratio; unseen: pages moved that no event told of; suspect:
    that may be so, or a call is under way;
    longest_ns: without progress, of those that ended; part: of the time since `next_part`.
    """

    def __init__(
        self,
        begin_ns: int,
        size: Optional[int],
        exact: bool,
        targets_repeat: bool,
        pages_per_page: int = 1,
    ):
        """size: at the begin; exact: to the page; targets_repeat: the target in force is told anew
        now and then (`watch`); pages_per_page: balloon pages in one of the guest's."""
        self._pages_per_page = pages_per_page
        self.size = size
        self.target: Optional[int] = None
        self._exact, self._repeat = exact and size is not None, targets_repeat
        self.stretch = Stretch(NONE, begin_ns, size, None)
        self.part = Part()
        self.moved = self.undone = 0
        self.unseen = self.suspect = False
        self.longest_ns: Optional[int] = None
        self._sure_ns: Optional[int] = None
        self._came_ns: Optional[int] = None
        self._since_gap = 0

    def move(self, t_ns: int, change: int, by_reclaim: bool) -> None:
        """Pages went in, or came out (below 0)."""
        if self._came_ns is not None and change:
            self._begin(self._came_ns, self.target)
        stretch = self.stretch
        if change > 0:
            stretch.inflated += change
            self.part.inflated += change
        else:
            stretch.deflated -= change
            self.part.deflated -= change
            if by_reclaim:
                stretch.reclaimed -= change
        self._since_gap += change
        if self.size is None:
            return
        self.size = size = self.size + change
        mark, target = stretch.mark, stretch.target
        if stretch.kind != TOWARD or mark is None or target is None:
            return
        if size > mark if stretch.upward else size < mark:
            self._stood_still(t_ns)
            stretch.mark, stretch.last_ns = size, t_ns
            self._reach(t_ns, size, target)

    def next_part(self) -> Part:
        """What moved since the last time."""
        part, self.part = self.part, Part()
        return part

    def aim(self, t_ns: int, asked: int, seen_size: int) -> None:
        """The size worker read another target, and what size it saw; UNKNOWN_PAGES: not seen."""
        if not self._exact and seen_size != UNKNOWN_PAGES:
            self.size, self._exact = seen_size, True
        target = None if asked == UNKNOWN_PAGES else asked
        again = self._repeat and target is not None and target == self.target
        self.target = target
        if not again or self.stretch.kind == NONE:
            self._begin(t_ns, target)

    def leave(self, t_ns: int) -> None:
        """The driver left, or was frozen."""
        self._begin(t_ns, None)

    def come(self, t_ns: int) -> None:
        """A driver came: the target that was read last begins anew, if the balloon moves before
        another one is read."""
        self._came_ns = t_ns

    def gap(self) -> None:
        """From now on no driver is traced."""
        self._since_gap = 0

    def found(self, size: Optional[int], exact: bool) -> None:
        """A driver is traced again; size: before what it moved since."""
        self.size = None if size is None else size + self._since_gap
        self._exact = exact and size is not None

    def confirm(self) -> None:
        """The size is known to be right."""
        self._sure_ns = self.longest_ns

    def set_right(self, t_ns: int, size: int) -> None:
        """Events are missing: this is the size."""
        self.doubt(t_ns)
        self._found(t_ns, size)

    def count(self, t_ns: int, size: int) -> None:
        """At rest the kernel counts so many pages: what the size at the begin was if it was not
        known to the page."""
        if not self._exact:
            self._exact = True
            self._found(t_ns, size)

    def doubt_size(self) -> None:
        """The size at the begin, or after a gap, is not known to the page."""
        self._exact = False

    def _found(self, t_ns: int, size: int) -> None:
        self.size = size
        stretch = self.stretch
        if stretch.kind == TOWARD and stretch.mark is not None and stretch.target is not None:
            further = max if stretch.upward else min
            stretch.mark = further(stretch.mark, size)
            self._reach(t_ns, size, stretch.target)

    def doubt(self, t_ns: int) -> None:
        """Events are missing: there may have been progress all the time since the size was last
        known to be right."""
        self.unseen = True
        self.longest_ns = self._sure_ns
        self.stretch.last_ns = t_ns

    def _begin(self, t_ns: int, target: Optional[int]) -> None:
        """Another stretch begins."""
        self._end(t_ns)
        self._came_ns = None
        aim = None if target is None else whole_pages(target, self._pages_per_page)
        known = self.size is not None and aim is not None
        kind = (AFTER if self.size == aim else TOWARD) if known else NONE
        self.stretch = Stretch(kind, t_ns, self.size, aim)

    def _reach(self, t_ns: int, size: int, target: int) -> None:
        """The stretch on the way to a target ends where the size is there."""
        if size >= target if self.stretch.upward else size <= target:
            self._end(t_ns)
            self.stretch = Stretch(AFTER, t_ns, size, target)

    def _end(self, t_ns: int) -> None:
        stretch = self.stretch
        self.moved += stretch.inflated + stretch.deflated
        self.undone += undone(stretch.inflated, stretch.deflated)
        self.part.end()
        self._stood_still(t_ns)

    def _stood_still(self, t_ns: int) -> None:
        if self.stretch.kind == TOWARD:
            self.longest_ns = max(self.longest_ns or 0, t_ns - self.stretch.last_ns)

    # ---- up to now ----

    @property
    def churn_ratio(self) -> Optional[float]:
        """Of all that moved, the share that was undone within its stretch; None: nothing moved, or
        it is not known."""
        stretch = self.stretch
        moved = self.moved + stretch.inflated + stretch.deflated
        come_to_nothing = self.undone + undone(stretch.inflated, stretch.deflated)
        return come_to_nothing / moved if moved and not self.unseen else None

    @property
    def amplification(self) -> Optional[float]:
        """Of the stretch under way: pages moved toward the target for each that was gained."""
        stretch = self.stretch
        if stretch.kind != TOWARD or None in (self.size, stretch.begin_size) or self.unseen:
            return None
        gained = (self.size or 0) - (stretch.begin_size or 0)
        gained, moved = (
            (gained, stretch.inflated) if stretch.upward else (-gained, stretch.deflated)
        )
        return moved / gained if gained > 0 else None

    def still_ns(self, now_ns: int) -> Optional[int]:
        """For how long the balloon has come no closer; None: it is not on its way, or it may have
        arrived."""
        if self.stretch.kind != TOWARD or self.suspect:
            return None
        return max(0, now_ns - self.stretch.last_ns)

    def longest_still_ns(self, now_ns: int) -> Optional[int]:
        """The longest of all such times; None: it never was on its way."""
        spans = [span for span in (self.longest_ns, self.still_ns(now_ns)) if span is not None]
        return max(spans, default=None)
