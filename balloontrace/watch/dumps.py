# SPDX-License-Identifier: Apache-2.0
"""The recordings that a watcher leaves: how many an hour, how many at all, their names, and what
becomes of the segments of a watcher that did not come to make one."""

from __future__ import annotations

import os
import time

from balloontrace.errors import UserError
from balloontrace.recording.layout import MAGIC
from balloontrace.watch.whole_file import WholeFile, copy, remove

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

    def take_over(self, segments: list[str], why: str) -> list[str]:
        """Make one recording of segments that an earlier watcher left, however it ended; where the
        disk has no room for that, each becomes one as it is. Returns their paths. Raises UserError
        if the directory takes none, and leaves the segments then."""
        path = self.path(why)
        try:
            with WholeFile(path) as fd:
                os.write(fd, MAGIC)  # a segment that the power cut short may have none
                for segment in segments:
                    copy(segment, fd, len(MAGIC))
        except UserError:
            return [self._renamed(segment, why) for segment in segments]
        for segment in segments:
            remove(segment)
        return [path]

    def _renamed(self, segment: str, why: str) -> str:
        path = self.path(why)
        try:
            os.rename(segment, path)
        except OSError as error:
            raise UserError(
                f"cannot keep {segment}, which an earlier watcher left: {error.strerror}",
                f"mend that, or take what is in {self._directory} away",
            ) from None
        return path

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
