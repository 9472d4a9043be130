# SPDX-License-Identifier: Apache-2.0
"""Whether the sums are those of /proc/vmstat, looked at while the balloon is at rest."""

from __future__ import annotations

from balloontrace.events import BALLOON_PAGE_BYTES

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from balloontrace.sums import Sum

COUNTERS = {
    "inflate": ("balloon_inflate", "fill"),
    "deflate": ("balloon_deflate", "leak"),
    "migrate": ("balloon_migrate", "migrate"),
}
"""Name -> counter of /proc/vmstat, in pages of the kernel, and the kind of event."""

_IN_KERNEL_PAGES = ("migrate",)
"""Kinds whose `done` is in pages of the kernel (events.py)."""


def _counted(vmstat: dict[str, int]) -> dict[str, int]:
    """Of /proc/vmstat, by the names of COUNTERS."""
    return {name: vmstat[counter] for name, (counter, _) in COUNTERS.items() if counter in vmstat}


class Agreement:
    """differences: name of COUNTERS -> balloon pages that the sums have more than /proc/vmstat,
    since the driver was first traced, when the balloon was last at rest; None: not known.

    The kernel counts the pages of a fill or leak before their call returns. So where what was there
    when the driver began to be traced is not known, all is compared from the first rest on.
    """

    def __init__(self, page_bytes: int) -> None:
        """page_bytes: of a page of the guest's kernel."""
        self._unit = max(1, page_bytes // BALLOON_PAGE_BYTES)
        self.differences: dict[str, int | None] = dict.fromkeys(COUNTERS)
        self._bases: dict[str, int] = {}
        self._identity = 0
        self._last: dict[str, int] = {}

    def attached(
        self, sums: dict[str, Sum], vmstat: dict[str, dict[str, int]], content: dict[str, Any]
    ) -> None:
        """A driver is traced from now on. vmstat: `vmstat_attach`, of a recording; content: of the
        driver, as a header has it."""
        before, after = _counted(vmstat["before"]), _counted(vmstat["after"])
        self._identity, self._bases, self._last = content["driver_identity"], {}, after
        if before == after:
            for name in after:
                self._base(name, self._more(name, sums, after))

    @property
    def is_based(self) -> bool:
        """Whether there is a reading that is compared with."""
        return bool(self._bases)

    def forget(self, *names: str) -> None:
        """The reading that is compared with had pages of a call that was under way: compare these
        counters, or all, from the next rest on."""
        for name in names or COUNTERS:
            self._bases.pop(name, None)

    def look(
        self, sums: dict[str, Sum], vmstat: dict[str, int], content: dict[str, Any], moved: bool
    ) -> bool:
        """Compare, if neither moved since the last look; returns whether that was so. content: of
        the driver that is traced, as a header has it; moved: whether the sums did, or a call is
        under way."""
        now = _counted(vmstat)
        rests, self._last = now == self._last and not moved, now
        if content["driver_identity"] != self._identity:  # what moved meanwhile was not traced
            self._identity, self._bases = content["driver_identity"], {}
        if not self._identity or not rests:
            return False
        for name, (_, kind) in COUNTERS.items():
            traced = (content["seams"].get(kind) or {}).get("rung")
            if name not in now or not traced:
                self.differences[name] = None
                continue
            more = self._more(name, sums, now)
            self.differences[name] = more - self._base(name, more)
        return True

    def _base(self, name: str, more: int) -> int:
        """What the sums had more than the kernel when the driver began to be traced: `more`, if it
        is not known yet, less what they lacked already."""
        return self._bases.setdefault(name, more - (self.differences[name] or 0))

    def _more(self, name: str, sums: dict[str, Sum], now: dict[str, int]) -> int:
        kind = COUNTERS[name][1]
        done = sum(row.done for row_name, row in sums.items() if row_name.split(" ")[0] == kind)
        return done * (self._unit if kind in _IN_KERNEL_PAGES else 1) - now[name] * self._unit
