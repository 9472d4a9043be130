# SPDX-License-Identifier: Apache-2.0
"""A file that is at its path whole or not at all, as destination.py makes them where there is room
for more of the standard library."""

from __future__ import annotations

import os

from balloontrace.errors import UserError

UNFINISHED = ".unfinished"
"""How the name ends of a file that is being written; it begins with a dot, too."""

_COPIED_AT_ONCE = 1 << 20


class WholeFile:
    """A descriptor to write to, within the block; an error in that leaves nothing at the path.

    Raises UserError where the disk does.
    """

    def __init__(self, path: str) -> None:
        self._path, self._fd = path, -1
        directory, name = os.path.split(path)
        self._unfinished = os.path.join(directory, f".{name}{UNFINISHED}")

    def __enter__(self) -> int:
        remove(self._unfinished)
        how = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        try:
            self._fd = os.open(self._unfinished, how, 0o600)
        except OSError as error:
            raise self._cannot(error) from None
        return self._fd

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        try:
            if error is None:
                os.fdatasync(self._fd)
                os.posix_fadvise(self._fd, 0, 0, os.POSIX_FADV_DONTNEED)
                os.rename(self._unfinished, self._path)
        except OSError as failed:
            error = failed
        finally:
            os.close(self._fd)
            remove(self._unfinished)
        if isinstance(error, OSError):
            raise self._cannot(error) from None

    def _cannot(self, error: OSError) -> UserError:
        return UserError(f"cannot write {self._path}: {error.strerror}")


def copy(path: str, to: int, start: int) -> None:
    """Copy what stands in a file from `start` on. Raises OSError."""
    source = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        while copied := os.sendfile(to, source, start, _COPIED_AT_ONCE):
            start += copied
        os.posix_fadvise(source, 0, 0, os.POSIX_FADV_DONTNEED)
    finally:
        os.close(source)


def remove(path: str) -> None:
    """Remove a file, if it is there and can be."""
    try:
        os.unlink(path)
    except OSError:
        return
