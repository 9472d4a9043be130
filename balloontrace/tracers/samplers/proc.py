# SPDX-License-Identifier: Apache-2.0
"""A file of /proc kept open: reading it again allocates nothing but the text."""

from __future__ import annotations

import os

_AT_ONCE = 1 << 16


class ProcFile:
    """One file of /proc, read from its beginning each time."""

    def __init__(self, path: str) -> None:
        """Open `path`. Raises OSError if this kernel does not have it."""
        self._fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)

    def lines(self) -> list[bytes]:
        """The lines of the file as it is now. Raises OSError.

        A file made by seq_file gives at most a page at a time, however much is asked for, and ends
        when it gives nothing (seq_read_iter in fs/seq_file.c).
        """
        text = b""
        while piece := os.pread(self._fd, _AT_ONCE, len(text)):
            text += piece
        return text.splitlines()

    def close(self) -> None:
        """Close it."""
        os.close(self._fd)
