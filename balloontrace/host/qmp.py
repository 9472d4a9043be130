# SPDX-License-Identifier: Apache-2.0
"""QEMU's monitor protocol over an already connected socket, for callers without asyncio."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
import socket
import threading
from typing import Any, Protocol

from qemu.qmp import QMPClient, QMPError

from balloontrace.errors import UserError
from balloontrace.host.process import peer

logging.getLogger("qemu.qmp").addHandler(logging.NullHandler())  # what fails is raised, and said

_TIMEOUT_S = 60.0
_GREETING_S = 10.0
_FORWARD = r"TCP\[HOST_FORWARD\]\s+\d+\s+\S+\s+(\d+)\s+\S+\s+{}\b"
"""A line of `info usernet`: the host's port, and the guest's."""

SSH_PORT = 22


class Qmp(Protocol):
    """Whatever carries QMP commands to a running QEMU."""

    def execute(self, command: str, **arguments: object) -> Any:
        """Run one QMP command and return its answer. Raises UserError."""


def say(qmp: Qmp, command: str) -> str:
    """What QEMU's monitor for people answers. Raises UserError."""
    return str(qmp.execute("human-monitor-command", **{"command-line": command}))


class Monitor:
    """One QMP session. Safe to use from several threads.

    Every method raises UserError when QEMU is gone, refuses the command, or does not answer.
    """

    def __init__(self, connection: socket.socket, greeting_s: float = _TIMEOUT_S) -> None:
        """greeting_s: how long QEMU may take to greet, which it does one client at a time."""
        self._client = QMPClient("balloontrace")
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="qmp", daemon=True)
        self._thread.start()
        try:
            self._call("connect", self._client.connect(connection), greeting_s)
        except UserError:
            self._stop_loop()
            raise

    def execute(self, command: str, **arguments: object) -> Any:
        """Run one QMP command and return its answer."""
        return self._call(command, self._client.execute(command, arguments or None))

    def forwarded(self, port: int = SSH_PORT) -> int:
        """Return the host's port that QEMU forwards to this one of the guest's, by default to its
        sshd. Raises UserError if there is none."""
        table = say(self, "info usernet")
        match = re.search(_FORWARD.format(port), table)
        if match is None:
            raise UserError(
                f"QEMU forwards nothing to the guest's port {port}", f"it said {table!r}"
            )
        return int(match[1])

    def forward(self, port: int) -> int:
        """Have a port of the host's loopback, which is returned, forwarded to this one of the
        guest's. Raises UserError."""
        say(self, f"hostfwd_add net tcp:127.0.0.1:0-:{port}")
        return self.forwarded(port)

    def close(self) -> None:
        """End the session; QEMU goes on."""
        with contextlib.suppress(UserError):  # QEMU may have gone first
            self._call("disconnect", self._client.disconnect())
        self._stop_loop()

    def _call(self, what: str, coroutine: Any, timeout_s: float = _TIMEOUT_S) -> Any:
        future = asyncio.run_coroutine_threadsafe(
            asyncio.wait_for(coroutine, timeout_s), self._loop
        )
        try:
            return future.result()
        except (QMPError, OSError, EOFError, TimeoutError) as error:
            raise UserError(f"QMP command {what} failed: {error or 'no answer'}") from error

    def _stop_loop(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


def connect(path: str) -> tuple[Monitor, int | None]:
    """A session on the monitor that QEMU has at a Unix socket, and who listens there, if that is
    known.

    A monitor takes one client: whoever else is connected there keeps it. Raises UserError.
    """
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        connection.settimeout(_GREETING_S)
        connection.connect(path)
        listener = peer(connection)
        connection.settimeout(None)
    except OSError as error:
        connection.close()
        raise UserError(f"cannot connect to {path}: {error.strerror or error}") from None
    try:
        return Monitor(connection, _GREETING_S), listener
    except UserError:
        connection.close()
        raise UserError(
            f"what listens at {path} does not talk QMP to us",
            "a monitor takes one client at a time: give QEMU another, -qmp unix:PATH,server,nowait",
        ) from None
