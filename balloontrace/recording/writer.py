# SPDX-License-Identifier: Apache-2.0
"""Writes a .btrace file (docs/format.md). Runs inside small guests, whose memory counts."""

from __future__ import annotations

import errno
import os
import zlib

from balloontrace import json_text
from balloontrace.errors import UserError
from balloontrace.recording import layout

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


class Writer:
    """Appends blocks to a file descriptor with one write(2) each; nothing is held back.

    Every method raises UserError if the file (called `name` for people) takes no more.
    """

    def __init__(self, fd: int, name: str = "the recording") -> None:
        self._fd = fd
        self._name = name
        self._sequence = 0
        self.bytes_written = 0
        self._write(layout.MAGIC)

    def header(self, content: dict[str, Any]) -> None:
        """Write the first block; `content` is the recording's metadata."""
        self._json(layout.HEADER, {"format": layout.FORMAT_VERSION, **content})

    def events(self, span: bytes | memoryview) -> None:
        """Write a span of the ring as it was read: records with their ring headers."""
        self._block(layout.EVENTS, span)

    def sample(self, content: dict[str, Any]) -> None:
        """Write what the slow sources said at one moment (`t_ns`, CLOCK_MONOTONIC)."""
        self._json(layout.SAMPLE, content)

    def trailer(self, content: dict[str, Any]) -> None:
        """Write the last block: why the recording ended, counts, losses."""
        self._json(layout.TRAILER, content)

    def sync(self) -> None:
        """Wait until all of it is on the disk. Nothing happens where there is none (a pipe)."""
        try:
            os.fdatasync(self._fd)
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise self._cannot(error) from None

    def _json(self, kind: int, content: dict[str, Any]) -> None:
        self._block(kind, json_text.dumps(content).encode())

    def _block(self, kind: int, raw: bytes | memoryview) -> None:
        stored = zlib.compress(raw, 1)
        frame = layout.FRAME.pack(
            layout.SYNC, kind, layout.ZLIB, 0, self._sequence, len(stored), len(raw), 0
        )
        summed = frame[: layout.SUMMED]
        crc = zlib.crc32(stored, zlib.crc32(summed))
        self._write(summed + layout.CRC.pack(crc) + stored)
        self._sequence += 1

    def _write(self, data: bytes) -> None:
        view = memoryview(data)
        try:
            while view:
                view = view[os.write(self._fd, view) :]
        except OSError as error:
            raise self._cannot(error) from None
        self.bytes_written += len(data)

    def _cannot(self, error: OSError) -> UserError:
        return UserError(
            f"cannot go on writing {self._name}: {error.strerror}",
            "what was recorded before is kept",
        )
