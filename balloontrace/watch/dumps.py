# SPDX-License-Identifier: Apache-2.0
"""The recordings that a watcher leaves: how many an hour, how many at all, and their names."""

from __future__ import annotations

import os
import time

from balloontrace.errors import UserError

PREFIX, SUFFIX = "dump-", ".btrace"

MOST_AN_HOUR = 6
_HOUR_S = 3600.0

MOST_OF_KEPT = 8
"""All of them together are no larger than so many times what is kept; the oldest go."""


class Dumps:
    """Those in one directory."""

    def __init__(self, directory: str, kept_bytes: int) -> None:
        self._directory, self._most_bytes = directory, kept_bytes * MOST_OF_KEPT
        self._times_s: list[float] = []
        self.left_out = 0
        """That would have been more than MOST_AN_HOUR."""

    def may_have_another(self, now_s: float) -> bool:
        """Whether there were few enough in the last hour, this one included. now_s: of the
        monotonic clock."""
        self._times_s = [then for then in self._times_s if now_s - then < _HOUR_S]
        if len(self._times_s) >= MOST_AN_HOUR:
            self.left_out += 1
            return False
        self._times_s.append(now_s)
        return True

    def path(self, why: str) -> str:
        """Where the next one goes: named by the time, which is that of the guest's clock, and by
        why."""
        now = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
        free = (
            os.path.join(self._directory, f"{PREFIX}{now}{number}-{why}{SUFFIX}")
            for number in ("", *(f".{number}" for number in range(1, 1000)))
        )
        return next(path for path in free if not os.path.lexists(path))

    def delete_old(self) -> None:
        """Until all together are small enough; the newest stays. Raises UserError."""
        try:
            found = sorted(
                (entry.stat(follow_symlinks=False).st_mtime_ns, entry.path, entry.stat().st_size)
                for entry in os.scandir(self._directory)
                if entry.name.startswith(PREFIX) and entry.is_file(follow_symlinks=False)
            )
            left = sum(size for _, _, size in found)
            for _, path, size in found[:-1]:
                if left <= self._most_bytes:
                    break
                os.unlink(path)
                left -= size
        except OSError as error:
            raise UserError(f"cannot tidy {self._directory}: {error.strerror}") from None
