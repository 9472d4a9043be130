"""A file of /proc kept open: reading it again allocates nothing but the text."""

from __future__ import annotations

import os

_MAX_BYTES = 1 << 16


class ProcFile:
    """One file of /proc, read from its beginning each time."""

    def __init__(self, path: str) -> None:
        """Open `path`. Raises OSError if this kernel does not have it."""
        self._fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)

    def lines(self) -> list[bytes]:
        """The lines of the file as it is now."""
        return os.pread(self._fd, _MAX_BYTES, 0).splitlines()
