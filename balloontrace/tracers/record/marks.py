# SPDX-License-Identifier: Apache-2.0
"""Marks: words that other processes of the guest put into a recording that is under way.

A recorder that takes marks has a FIFO, DIRECTORY/mark.<its pid>, which only its user can open. A
mark is one line, `<CLOCK_MONOTONIC ns> <text>`, shorter than PIPE_BUF: it is written at once, or
not at all. A newline goes before it, too: what stands there may have none, and would take the mark
with it. A FIFO that nobody reads is left over from a recorder that was killed. Standard library
only.
"""

from __future__ import annotations

import errno
import os
import stat
import time

from balloontrace.errors import EXIT_UNSUPPORTED, EXIT_USAGE, UserError
from balloontrace.recording.layout import MARK_CHARACTERS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

DIRECTORY = "/run/balloontrace"
_PREFIX = "mark."

LINE_BYTES = 1024
"""Longest line. The longest mark has 200 characters of 4 bytes, and 20 digits."""

DUMP = b"dump"
"""A line that is no mark: who keeps the last minutes (`watch`) is to leave them as a recording."""

READ_BYTES = 1 << 16
MOST_AT_ONCE = 100
"""What is taken at a look, of which there are one to five a second: whoever writes more than that
writes no marks."""


class Marks:
    """The place to which marks are sent, of one recorder.

    dump: whether it was asked, in what was read last, for the last minutes.
    """

    def __init__(self) -> None:
        """Open it. Raises UserError if that cannot be."""
        self.written = self.ignored = 0
        self.dump = False
        self._rest = b""
        self._path = os.path.join(DIRECTORY, f"{_PREFIX}{os.getpid()}")
        try:
            self._descriptor = _open(self._path)
        except OSError as error:
            raise UserError(
                f"cannot open {self._path} for marks: {error.strerror}", "record without --mark"
            ) from None

    def fileno(self) -> int:
        """What is readable when there is something to read."""
        return self._descriptor

    def refuse(self) -> None:
        """Take no more but what was sent already."""
        _remove(self._path)

    def close(self) -> None:
        """Leave nothing behind."""
        self.refuse()
        os.close(self._descriptor)

    def read(self, since_ns: int) -> list[dict[str, Any]]:
        """What was sent meanwhile, as samples: `t_ns`, the sender's if that is not before
        `since_ns` and not to come, else now; and `mark`."""
        self.dump = False
        try:
            data = self._rest + os.read(self._descriptor, READ_BYTES)
        except BlockingIOError:
            return []
        *lines, rest = data.split(b"\n")
        now_ns = time.monotonic_ns()
        self._rest = rest if len(rest) < LINE_BYTES else b""
        self.dump = DUMP in lines
        found = [_mark(line, since_ns, now_ns) for line in lines if line and line != DUMP]
        marks = [mark for mark in found if mark][:MOST_AT_ONCE]
        self.ignored += len(found) - len(marks) + (self._rest != rest)
        self.written += len(marks)
        return marks


def _open(path: str) -> int:
    """A descriptor of a new FIFO. Raises OSError."""
    os.makedirs(DIRECTORY, mode=0o700, exist_ok=True)
    there = os.lstat(DIRECTORY)
    if not stat.S_ISDIR(there.st_mode) or there.st_uid != os.geteuid() or there.st_mode & 0o022:
        raise OSError(errno.EPERM, f"others can write to {DIRECTORY}")
    # It has its name only when it is read: nobody takes it for one that is left over.
    unnamed = os.path.join(DIRECTORY, f"new.{os.getpid()}")
    _remove(unnamed)
    os.mkfifo(unnamed, 0o600)
    try:
        # To write as well: it would be at its end whenever a sender goes.
        descriptor = os.open(unnamed, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOFOLLOW)
        os.rename(unnamed, path)
    except OSError:
        os.unlink(unnamed)
        raise
    return descriptor


def _remove(path: str) -> None:
    """Remove a FIFO, if it is there and can be."""
    try:
        os.unlink(path)
    except OSError:
        pass


def _mark(line: bytes, since_ns: int, now_ns: int) -> dict[str, Any] | None:
    """The sample of a line; None if it is no mark."""
    sent, _, words = line.partition(b" ")
    if len(line) > LINE_BYTES or not words or len(sent) > 20 or not sent.isdigit():
        return None
    text = words.decode("utf-8", "surrogateescape")[:MARK_CHARACTERS]
    sent_ns = int(sent)
    return {"t_ns": sent_ns if since_ns <= sent_ns <= now_ns else now_ns, "mark": text}


def send(text: str, only: int | None = None, dump: bool = False) -> list[int]:
    """Mark this moment in every recording that takes marks; returns the pids of their recorders.

    only: the pid of the one that is meant; dump: those that keep the last minutes are to leave them
    as a recording. Raises UserError if there is none.
    """
    now_ns = time.monotonic_ns()
    words = " ".join(text[:MARK_CHARACTERS].splitlines())
    if not words.strip():
        raise UserError("a mark without words", "say what happens", EXIT_USAGE)
    line = f"\n{now_ns} {words}\n".encode("utf-8", "surrogateescape")
    line += DUMP + b"\n" if dump else b""
    pids = [pid for pid in _waiting() if only in (None, pid)]
    marked = [pid for pid in pids if _write(os.path.join(DIRECTORY, f"{_PREFIX}{pid}"), line)]
    if not marked:
        of = "" if only is None else f" of pid {only}"
        raise UserError(
            f"no recording{of} takes marks", "begin one with: balloontrace record --mark"
        )
    return marked


def _waiting() -> list[int]:
    """The pids of recorders that take marks, or did when they were killed."""
    try:
        names = os.listdir(DIRECTORY)
    except FileNotFoundError:
        return []
    except OSError as error:
        raise UserError(
            f"cannot look for recordings in {DIRECTORY}: {error.strerror}",
            "be root",
            EXIT_UNSUPPORTED,
        ) from None
    numbers = [name[len(_PREFIX) :] for name in names if name.startswith(_PREFIX)]
    return sorted(int(number) for number in numbers if number.isdecimal() and number.isascii())


def _write(path: str, line: bytes) -> bool:
    """Whether a recorder took the line; what a dead one left behind is removed."""
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError as error:
        if error.errno == errno.ENXIO:
            _remove(path)
        return False
    try:
        return stat.S_ISFIFO(os.fstat(descriptor).st_mode) and os.write(descriptor, line) > 0
    except OSError:  # it is full: its recorder does not come to read it
        return False
    finally:
        os.close(descriptor)
