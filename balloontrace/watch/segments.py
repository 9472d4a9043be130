# SPDX-License-Identifier: Apache-2.0
"""The last minutes, in files of their own: each a whole recording, and all of them one.

Memory would lose them with the watcher, or the guest, whose end is what they are kept for. Blocks
are numbered on from one segment to the next, and headers and trailers count from the watcher's
begin (boundary.py): what is copied one behind the other is a recording without a hole, and nothing
of it was unpacked.
"""

from __future__ import annotations

import os
import stat

from balloontrace.errors import UserError
from balloontrace.recording.layout import MAGIC
from balloontrace.recording.writer import ITEM_BYTES, Writer
from balloontrace.tracers.machine import system_calls
from balloontrace.watch.whole_file import UNFINISHED, WholeFile, copy, remove

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

PREFIX, SUFFIX = "segment-", ".btrace"

PARTS = 8
"""Segments that make up what is to be kept. One more is being written, and none is deleted before
all that comes after it is enough."""

MOST_BYTES = 1 << 28
"""What is kept at most, where it is given in minutes."""

MOST_HELD = 4
"""How often as much as is to be kept is on the disk at most, while a recording of it is to come."""

_UNWRITTEN = 2
"""Segments for which the disk must have room before one is begun: others need it, too."""


class Keep:
    """How much is kept: the last `size` bytes, or what is from the last `seconds` of no more
    bytes."""

    __slots__ = ("seconds", "size")

    def __init__(self, size: int = MOST_BYTES, seconds: float = float("inf")) -> None:
        self.size, self.seconds = size, seconds


class Segment:
    """A file. begun_s: of the monotonic clock; sequence: number of its header; body: where that
    ends; size: in bytes."""

    __slots__ = ("begun_s", "body", "header", "path", "sequence", "size")

    def __init__(self, path: str, header: dict[str, Any], begun_s: float, sequence: int) -> None:
        self.path, self.header = path, header
        self.begun_s, self.sequence = begun_s, sequence
        self.body = self.size = 0


class Segments:
    """Those of one directory, the last of which takes what is written. kept: in order of time;
    held: none is to be deleted for its age, for a recording of them is to come; events_left_out:
    that came while none was open; failures: why one took no more, to be told."""

    def __init__(self, directory: str, keep: Keep) -> None:
        """Raises UserError if the directory is not there and cannot be made, if others can write to
        it, or if another watcher does."""
        self.kept: list[Segment] = []
        self.held = False
        self.events_left_out = 0
        self.failures: list[str] = []
        self._directory, self._keep = directory, keep
        self._writer: Writer | None = None
        self._fd = -1
        self._number = self._sequence = 0
        _prepare(directory)
        self._lock = _locked(directory)
        for name in os.listdir(directory):
            if name.endswith(UNFINISHED):  # by a watcher that was killed
                remove(os.path.join(directory, name))

    def release(self) -> None:
        """Let others have the directory."""
        os.close(self._lock)

    @property
    def size(self) -> int:
        """Bytes of all of them."""
        return sum(segment.size for segment in self.kept)

    @property
    def is_open(self) -> bool:
        """Whether one takes what is written: not while the disk is full."""
        return self._writer is not None

    def is_due(self, now_s: float) -> bool:
        """Whether the last of them is as long as one is to be."""
        if not self._writer:
            return False
        long_enough = now_s - self.kept[-1].begun_s >= self._keep.seconds / PARTS
        return long_enough or self._writer.bytes_written >= self._keep.size // PARTS

    def begin(self, header: dict[str, Any], now_s: float) -> None:
        """Begin another. Raises UserError if the disk has no room for it."""
        self._delete_old(now_s)
        part = self._keep.size // PARTS
        self._require_room(part * _UNWRITTEN)
        path = os.path.join(self._directory, f"{PREFIX}{self._number:08}{SUFFIX}")
        how = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        try:
            self._fd = os.open(path, how, 0o600)
        except OSError as error:
            raise UserError(f"cannot make {path}: {error.strerror}") from None
        self._number += 1
        system_calls.reserve(self._fd, part)
        segment = Segment(path, header, now_s, self._sequence)
        self.kept.append(segment)
        self._writer = Writer(self._fd, path, self._sequence)
        self._write(lambda writer: writer.header(header))
        if self._writer:
            segment.body = segment.size = self._writer.bytes_written

    def end(self, trailer: dict[str, Any]) -> None:
        """End the last."""
        self._write(lambda writer: writer.trailer(trailer))
        self._write(lambda writer: writer.sync())
        if self._writer:
            self._close(self._writer.sequence)

    def _close(self, next_sequence: int) -> None:
        self._writer, self._sequence = None, next_sequence
        try:
            self.kept[-1].size = os.fstat(self._fd).st_size
            os.ftruncate(self._fd, self.kept[-1].size)  # gives back what was reserved beyond that
            self._forget()
        except OSError as error:
            self.failures.append(f"{self.kept[-1].path}: {error.strerror}")
        os.close(self._fd)

    def _forget(self) -> None:
        """What is on the disk need not stay in memory."""
        os.posix_fadvise(self._fd, 0, 0, os.POSIX_FADV_DONTNEED)

    # ---- as Writer has them, but for what becomes of an error ----

    def events(self, span: bytes, sample_follows: bool = False) -> None:
        """See Writer.events."""
        self._write(lambda writer: writer.events(span, sample_follows))
        if not self._writer:
            self.events_left_out += len(span) // ITEM_BYTES

    def sample(self, content: dict[str, Any]) -> None:
        """See Writer.sample."""
        self._write(lambda writer: writer.sample(content))

    def write_held(self) -> None:
        """See Writer.write_held."""
        self._write(lambda writer: writer.write_held())

    def sync(self) -> None:
        """See Writer.sync; what is on the disk does not stay in memory then."""
        self._write(lambda writer: writer.sync())
        if self._writer:
            self.kept[-1].size = self._writer.bytes_written
            self._forget()

    def _write(self, write: Callable[[Writer], None]) -> None:
        """What fails ends the segment: what was to be its next block is missing."""
        if not self._writer:
            return
        try:
            write(self._writer)
        except UserError as error:
            self.failures.append(str(error))
            self._close(self._writer.sequence + 1)

    # ---- one recording of all, and making room ----

    def left(self) -> list[str]:
        """The paths of those that an earlier watcher has left, however it ended, in order."""
        names = sorted(name for name in os.listdir(self._directory) if name.startswith(PREFIX))
        return [os.path.join(self._directory, name) for name in names]

    def join(self, path: str, header: dict[str, Any]) -> None:
        """Write all that have ended as one recording, which is at `path` whole or not at all.

        header: what its header has beyond that of the first segment. Raises UserError.
        """
        if not self.kept:
            raise UserError(f"cannot write {path}: nothing was kept, for there was no room")
        first = self.kept[0]
        with WholeFile(path) as fd:
            Writer(fd, path, first.sequence).header({**first.header, **header})
            for segment in self.kept:
                copy(segment.path, fd, first.body if segment is first else len(MAGIC))

    def delete(self) -> None:
        """All of them, and the directory if nothing else is there."""
        while self.kept:
            remove(self.kept.pop().path)
        try:
            os.rmdir(self._directory)
        except OSError:  # others' files are there
            return

    def _delete_old(self, now_s: float) -> None:
        keep, kept = self._keep, self.kept
        while len(kept) > 1:
            after = sum(segment.size for segment in kept[1:])
            enough = after >= keep.size or now_s - kept[1].begun_s >= keep.seconds
            if not enough or (self.held and after < keep.size * MOST_HELD):
                return
            remove(kept.pop(0).path)

    def _require_room(self, size: int) -> None:
        """Delete the oldest until the disk has so much room. Raises UserError if it has not."""
        while (free := _free(self._directory)) < size:
            if len(self.kept) < 2:
                raise UserError(
                    f"{self._directory} has {free >> 20} MiB left, of {size >> 20} that the next"
                    " minutes may take",
                    "nothing is kept until there are, and metrics go on",
                )
            remove(self.kept.pop(0).path)


def _free(directory: str) -> int:
    """Bytes that one who is not root may still write there."""
    there = os.statvfs(directory)
    return there.f_bavail * there.f_frsize


def _locked(directory: str) -> int:
    """The descriptor that holds the directory for this process, as long as it lives. Raises
    UserError."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    if system_calls.lock_file(descriptor):
        return descriptor
    os.close(descriptor)
    raise UserError(f"another watcher keeps its last minutes in {directory}", "name another: --dir")


def _prepare(directory: str) -> None:
    """Raises UserError."""
    try:
        os.makedirs(directory, mode=0o700, exist_ok=True)
        there = os.lstat(directory)
    except OSError as error:
        raise UserError(f"cannot make {directory}: {error.strerror}", "name another") from None
    if not stat.S_ISDIR(there.st_mode) or there.st_mode & 0o022:
        raise UserError(
            f"others can write to {directory}", "name one with --dir that is the watcher's own"
        )
