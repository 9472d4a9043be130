# SPDX-License-Identifier: Apache-2.0
"""A file of /proc kept open: reading it again allocates nothing but the text."""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_AT_ONCE, _HALF_A_PAGE = 1 << 16, 1 << 11


class Source:
    """A slow source. What it says at a moment can be kept as it came, and understood later: several
    readings one after the other, which costs a fifth of each alone, with cold caches."""

    name: str
    """Its key in a sample."""

    def text(self) -> Any:
        """What it says now, as it came. Raises OSError."""
        raise NotImplementedError

    def numbers(self, text: Any) -> dict[str, Any]:
        """What `text` said; texts must come here in the order in which they were read. Raises
        ValueError, LookupError."""
        raise NotImplementedError

    def read(self) -> dict[str, Any]:
        """What it says now. Raises OSError, ValueError, LookupError."""
        return self.numbers(self.text())


class ProcFile:
    """One file of /proc, read from its beginning each time."""

    def __init__(self, path: str) -> None:
        """Open `path`. Raises OSError if this kernel does not have it."""
        self._fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)

    def text(self) -> bytes:
        """The file as it is now. Raises OSError.

        A file made by seq_file gives at most a page at a time, however much is asked for, and ends
        when it gives nothing (seq_read_iter in fs/seq_file.c). It gives less if the next line does
        not fit, and no line is as long as half a page: what is shorter is the end.
        """
        text = piece = os.pread(self._fd, _AT_ONCE, 0)
        while len(piece) > _HALF_A_PAGE:
            piece = os.pread(self._fd, _AT_ONCE, len(text))
            text += piece
        return text

    def close(self) -> None:
        """Close it."""
        os.close(self._fd)


class NamedNumbers(ProcFile):
    """A file of /proc with a name and a number in each line, of which some are wanted."""

    def __init__(self, path: str, prefixes: tuple[bytes, ...], separator: bytes, unit: bytes = b""):
        """prefixes: of the names that are wanted; separator: between name and number; unit: behind
        the number. Raises OSError if this kernel does not have the file."""
        super().__init__(path)
        self._prefixes, self._separator, self._unit = prefixes, separator, unit
        self._lines = -1
        self._places: list[tuple[int, str, slice]] = []

    def numbers(self, text: bytes) -> dict[str, int]:
        """Name -> number in what was read. Raises ValueError.

        A line stays where it is as long as the kernel runs: it is searched for once.
        """
        lines = text.splitlines()
        if len(lines) != self._lines:
            self._find(lines)
        return {name: int(lines[place][number]) for place, name, number in self._places}

    def _find(self, lines: list[bytes]) -> None:
        self._places, self._lines = [], len(lines)
        end = -len(self._unit) or None
        for place, line in enumerate(lines):
            if line.startswith(self._prefixes):
                name = line.partition(self._separator)[0]
                number = slice(len(name) + len(self._separator), end)
                self._places.append((place, name.decode(), number))
