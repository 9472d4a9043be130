# SPDX-License-Identifier: Apache-2.0
"""The host's hand on the balloon of a guest of the lab."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator

from balloontrace.errors import UserError
from balloontrace.events import BALLOON_PAGE_BYTES
from balloontrace.host.qemu import BalloonDevice

BALLOON_ID = "balloon"
"""The balloon device's name in QEMU."""

_TIMEOUT_S = 60.0
_POLL_S = 0.02
_SLOWEST_MIGRATION = 4096  # bytes a second; 0 would mean no limit


class Balloon(BalloonDevice):
    """The host's hand on the balloon. Sizes are balloon pages (4 KiB) inside the balloon."""

    @property
    def memory_pages(self) -> int:
        """The guest's RAM."""
        return self.memory_bytes // BALLOON_PAGE_BYTES

    def set_target_pages(self, pages: int) -> None:
        """Ask the guest for a balloon of that many pages. It complies when and if it can."""
        self.qmp.execute("balloon", value=(self.memory_pages - pages) * BALLOON_PAGE_BYTES)

    def actual_pages(self) -> int:
        """Return the balloon's size as the guest last told it."""
        return self.actual_bytes() // BALLOON_PAGE_BYTES

    @contextlib.contextmanager
    def hinting(self) -> Iterator[None]:
        """Let the guest hint its free pages to the host as long as the context lasts.

        QEMU asks for hints only while it migrates a guest: here nowhere, too slowly ever to
        arrive, cancelled at the end. The guest runs on throughout; it keeps the pages it has
        hinted until the end, unless its shrinker takes them back. Raises UserError if QEMU
        refuses, or if the guest was not made with hinting.
        """
        if not self.get("free-page-hint"):
            raise UserError("this guest has no free page hinting", "set GuestConfig.hinting")
        speed = {"max-bandwidth": _SLOWEST_MIGRATION}
        self.qmp.execute("migrate-set-parameters", **speed)
        self.qmp.execute("migrate", uri="exec:cat > /dev/null")
        try:
            self._await_migration("active")
            yield
        finally:
            self.qmp.execute("migrate_cancel")
            self._await_migration("cancelled")

    def _await_migration(self, wanted: str) -> None:
        deadline = time.monotonic() + _TIMEOUT_S
        status = ""
        while status != wanted:
            status = self.qmp.execute("query-migrate").get("status", "none")
            if status in ("failed", "completed") or time.monotonic() > deadline:
                raise UserError(f"QEMU's migration is {status}, not {wanted}")
            time.sleep(_POLL_S)
