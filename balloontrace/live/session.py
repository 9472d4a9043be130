# SPDX-License-Identifier: Apache-2.0
"""One look at a guest: its source is read, summed up, and kept, if it may be saved."""

from __future__ import annotations

import contextlib
import os
import tempfile
import time
from pathlib import Path
from typing import IO, Optional, Union

from balloontrace.destination import new_file
from balloontrace.errors import EXIT_FAILURE, UserError
from balloontrace.live.host import AT_ONCE, HostFile, HostSide
from balloontrace.live.model import COLUMNS, ZOOMS_S, Model
from balloontrace.live.sources import DETACH_S, GrowingFile, Pipe, Recorder
from balloontrace.live.view import View

Source = Union[Pipe, GrowingFile, Recorder]

_COPIED = 1 << 20


class Session:
    """A source and its model. `pump` it until it is `over`; `close` it in any case.

    over: nothing more will come.
    """

    def __init__(
        self,
        source: Source,
        save_as: Optional[Path] = None,
        keep: bool = False,
        duration_s: Optional[float] = None,
        host: Optional[HostFile] = None,
    ) -> None:
        """save_as: a file that will hold the stream's bytes when it is closed; keep: it may be
        saved later, so that its bytes are kept in a file without a name; duration_s: it is asked to
        end then; host: what the host says meanwhile. Raises UserError if save_as cannot be."""
        self.model = Model(source.name, HostSide(host.name) if host else None)
        self._host = host
        self.over = False
        self._source = source
        self._cleanup = contextlib.ExitStack()
        self._tee: Optional[IO[bytes]] = None
        self._spool: Optional[IO[bytes]] = None
        self._spool_failure = ""
        self.failure = ""
        """Why what was to be saved is not whole, to be told when all is over."""
        self._end_s = time.monotonic() + duration_s if duration_s else None
        self._stopped_s: Optional[float] = None
        if save_as is not None and source.is_file:
            raise UserError(f"{source.name} is a recording already", "leave --save out")
        if save_as is not None:
            self._tee = self._cleanup.enter_context(new_file(save_as, replace=False))
            self.model.saved_as = str(save_as)
        if keep and not source.is_file:
            spool = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the others
            self._spool = self._cleanup.enter_context(spool)

    def pump(self, wait_s: float) -> None:
        """Read what has come, some of it at once, after waiting for it for so long at most. Raises
        UserError if it is no recording, or cannot be read or kept."""
        now_s = time.monotonic()
        if self._end_s is not None and now_s >= self._end_s:
            self.stop()
        if self.over:
            return
        if self._read_host(now_s):
            return
        data = self._source.read(wait_s)
        if data:
            self._keep(data)
            self.model.feed(data, time.monotonic())
            return
        self.model.settle(now_s)
        late = self._stopped_s is not None and now_s - self._stopped_s > DETACH_S
        done = data is None or late
        # All of a file may be there already; a stream that ends is closed.
        if done or (self._source.is_file and self.model.trailer is not None):
            self._end("" if self.model.trailer is not None else self._source.failure)

    def _read_host(self, now_s: float) -> bool:
        """Read what the host has said; whether there may be more of it, which comes first."""
        if self._host is None or self.model.host is None:
            return False
        data = self._host.read()
        if data:
            self.model.host.feed(data, now_s)
        return len(data) == AT_ONCE

    def stop(self) -> None:
        """Ask for the end. A recorder of ours tells the rest first: go on until it is `over`."""
        if self._stopped_s is not None or self.over:
            return
        self._stopped_s = time.monotonic()
        if not self._source.stop():
            self._end("ended here")

    def view(
        self, at: Optional[int] = None, zoom_s: int = ZOOMS_S[0], columns: int = COLUMNS
    ) -> View:
        """See Model.view."""
        return self.model.view(time.monotonic(), at, zoom_s, columns)

    def save(self, path: Path) -> None:
        """Put what came so far into a new file: the very bytes. Raises UserError if that cannot be:
        the file exists, or the disk is full."""
        if self._source.is_file:
            raise UserError(f"{self._source.name} is a recording already")
        if self._spool is None:
            raise UserError("what came before was not kept" + self._spool_failure)
        with new_file(path, replace=False) as file:
            self._spool.seek(0)
            while piece := self._spool.read(_COPIED):
                file.write(piece)
        self.model.saved_as = str(path)

    def close(self) -> int:
        """End it, in any case. Returns the exit status: 0 if it was ended in order, or by us; that
        of a recorder of ours."""
        with self._cleanup:
            status = self._source.end()
        in_order = self.model.trailer is not None or self._stopped_s is not None
        return status or (0 if in_order and not self.failure else EXIT_FAILURE)

    def _end(self, failure: str) -> None:
        self.over = True
        # Of nothing there is nothing to say; why a recorder of ours wrote nothing, that has said.
        expected = self._stopped_s is not None or isinstance(self._source, Recorder)
        if self.model.following.bytes or not expected:
            self.model.close(failure)

    def _keep(self, data: bytes) -> None:
        if self._tee is not None:
            try:
                left = memoryview(data)
                while left:  # past the file's buffer, in which what failed would stay
                    left = left[os.write(self._tee.fileno(), left) :]
            except OSError as error:
                self._tee = None
                self.failure = (
                    f"cannot go on writing {self.model.saved_as}: {error.strerror}"
                    "; what came before is kept"
                )
        if self._spool is not None:
            try:
                self._spool.seek(0, 2)
                self._spool.write(data)
            except OSError as error:  # a full disk ends what can be saved, not what can be seen
                self._spool, self._spool_failure = None, f": {error.strerror}"
