# SPDX-License-Identifier: Apache-2.0
"""Where a stream comes from: a pipe, a file that grows, or a recorder of our own."""

from __future__ import annotations

import os
import select
import signal
import stat
import subprocess
import time
from collections.abc import Sequence
from typing import IO, Optional

from balloontrace.errors import UserError

AT_ONCE = 1 << 16
"""Bytes that are read at once: two minutes of a guest at rest, and less than a view looks back."""

LOOK_S = 0.2
"""From one look at a file to the next."""

DETACH_S = 30.0
"""So long a recorder of ours may take to end."""


class Pipe:
    """A pipe, a socket or a terminal. name: for people; is_file: whether all of it is in a file
    already."""

    is_file = False

    def __init__(self, descriptor: int, name: str) -> None:
        self.name = name
        self._descriptor = descriptor

    def read(self, wait_s: float) -> Optional[bytes]:
        """What has come, after waiting for it; nothing, or None: the stream has ended. Raises
        UserError if it cannot be read."""
        try:
            if not select.select([self._descriptor], [], [], wait_s)[0]:
                return b""
            return os.read(self._descriptor, AT_ONCE) or None
        except OSError as error:
            raise UserError(f"cannot read {self.name}: {error.strerror}") from None

    def stop(self) -> bool:
        """Ask for the end; whether more will come before it."""
        return False

    def end(self) -> int:
        """The exit status of what wrote to it, where that is ours."""
        return 0

    @property
    def failure(self) -> str:
        """Why it ended, if that was not its writer's end."""
        return "the stream was closed before its end"


class GrowingFile:
    """A file that is written meanwhile, or was; it ends with its trailer."""

    is_file = True

    def __init__(self, path: str) -> None:
        """Raises UserError if it cannot be read."""
        self.name = path
        try:
            self._file = open(path, "rb", buffering=0)  # noqa: SIM115 - closed with the process
        except OSError as error:
            raise UserError(f"cannot read {path}: {error.strerror}") from None
        if not stat.S_ISREG(os.fstat(self._file.fileno()).st_mode):
            raise UserError(f"{path} is no regular file", "give a pipe as stdin, with -")
        self._read = 0
        self.failure = ""

    def read(self, wait_s: float) -> Optional[bytes]:
        """As Pipe.read; None also if it was cut, or another took its place."""
        try:
            data = self._file.read(AT_ONCE) or b""
        except OSError as error:
            raise UserError(f"cannot read {self.name}: {error.strerror}") from None
        self._read += len(data)
        if data:
            return data
        self.failure = self._lost()
        if self.failure:
            return None
        time.sleep(min(wait_s, LOOK_S))
        return b""

    def _lost(self) -> str:
        """Why nothing more can come."""
        mine = os.fstat(self._file.fileno())
        if mine.st_size < self._read:
            return "the file was cut"
        try:
            there = os.stat(self.name)
        except OSError:
            return "the file is gone"
        return "" if os.path.samestat(mine, there) else "another file took its place"

    def stop(self) -> bool:
        """As Pipe.stop."""
        return False

    def end(self) -> int:
        """As Pipe.end."""
        return 0


class Recorder(Pipe):
    """A recorder of this guest, a child process with a session of its own: what ends this process
    by the terminal does not end the recorder before it has detached."""

    def __init__(self, command: Sequence[str], stderr: Optional[IO[bytes]] = None) -> None:
        """command: what runs it, and makes it write to stdout; stderr: where it says what it has to
        say, by default where we do. Raises UserError if it cannot be run."""
        try:
            self._child = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=stderr,
                start_new_session=True,
            )
        except OSError as error:
            raise UserError(f"cannot run a recorder: {error.strerror}") from None
        if self._child.stdout is None:
            raise UserError("cannot run a recorder: it has no stdout")
        super().__init__(self._child.stdout.fileno(), "this guest")

    def stop(self) -> bool:
        """Ask for the end, once; it writes a trailer before it."""
        if self._child.poll() is None:
            self._child.send_signal(signal.SIGINT)
        return True

    def end(self) -> int:
        """Its exit status. Nobody reads it any more: what it still had to tell is lost."""
        if self._child.stdout:
            self._child.stdout.close()
        if self._child.poll() is None:
            self._child.send_signal(signal.SIGINT)
        try:
            return self._child.wait(DETACH_S)
        except subprocess.TimeoutExpired:
            self._child.kill()
            return self._child.wait()

    @property
    def failure(self) -> str:
        """Why it ended, if not in order."""
        return "the recorder ended without a trailer"
