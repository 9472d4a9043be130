# SPDX-License-Identifier: Apache-2.0
"""QEMU's monitor protocol over an already connected socket, for callers without asyncio."""

from __future__ import annotations

import asyncio
import contextlib
import re
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any, Protocol

from qemu.qmp import QMPClient, QMPError

from balloontrace.errors import UserError
from balloontrace.events import BALLOON_PAGE_BYTES

BALLOON_ID = "balloon"
"""The balloon device's name in QEMU."""

_DEVICES = "/machine/peripheral"
_TIMEOUT_S = 60.0
_POLL_S = 0.02
_SLOWEST_MIGRATION = 4096  # bytes a second; 0 would mean no limit
_FORWARD = r"TCP\[HOST_FORWARD\]\s+\d+\s+\S+\s+(\d+)\s+\S+\s+{}\b"
"""A line of `info usernet`: the host's port, and the guest's."""

SSH_PORT = 22


class Qmp(Protocol):
    """Whatever carries QMP commands to a running QEMU."""

    def execute(self, command: str, **arguments: object) -> Any:
        """Run one QMP command and return its answer. Raises UserError."""


class Monitor:
    """One QMP session. Safe to use from several threads.

    Every method raises UserError when QEMU is gone, refuses the command, or does not answer.
    """

    def __init__(self, connection: socket.socket) -> None:
        self._client = QMPClient("balloontrace-lab")
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="qmp", daemon=True)
        self._thread.start()
        try:
            self._call("connect", self._client.connect(connection))
        except UserError:
            self._stop_loop()
            raise

    def execute(self, command: str, **arguments: object) -> Any:
        """Run one QMP command and return its answer."""
        return self._call(command, self._client.execute(command, arguments or None))

    def forwarded(self, port: int = SSH_PORT) -> int:
        """Return the host's port that QEMU forwards to this one of the guest's, by default to its
        sshd. Raises UserError if there is none."""
        table = self._say("info usernet")
        match = re.search(_FORWARD.format(port), table)
        if match is None:
            raise UserError(
                f"QEMU forwards nothing to the guest's port {port}", f"it said {table!r}"
            )
        return int(match[1])

    def forward(self, port: int) -> int:
        """Have a port of the host's loopback, which is returned, forwarded to this one of the
        guest's. Raises UserError."""
        self._say(f"hostfwd_add net tcp:127.0.0.1:0-:{port}")
        return self.forwarded(port)

    def _say(self, command: str) -> str:
        """What QEMU's monitor for people answers."""
        said: str = self.execute("human-monitor-command", **{"command-line": command})
        return said

    def close(self) -> None:
        """End the session; QEMU goes on."""
        with contextlib.suppress(UserError):  # QEMU may have gone first
            self._call("disconnect", self._client.disconnect())
        self._stop_loop()

    def _call(self, what: str, coroutine: Any) -> Any:
        future = asyncio.run_coroutine_threadsafe(
            asyncio.wait_for(coroutine, _TIMEOUT_S), self._loop
        )
        try:
            return future.result()
        except (QMPError, OSError, EOFError, TimeoutError) as error:
            raise UserError(f"QMP command {what} failed: {error or 'no answer'}") from error

    def _stop_loop(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


_NEVER_TOLD = (1 << 64) - 1
"""What QEMU says of a value that the guest has not sent."""


class Balloon:
    """The host's hand on the balloon. Sizes are balloon pages (4 KiB) inside the balloon."""

    def __init__(self, monitor: Qmp, memory_bytes: int) -> None:
        self._monitor = monitor
        self.memory_pages = memory_bytes // BALLOON_PAGE_BYTES

    def set_target_pages(self, pages: int) -> None:
        """Ask the guest for a balloon of that many pages. It complies when and if it can."""
        self._monitor.execute("balloon", value=(self.memory_pages - pages) * BALLOON_PAGE_BYTES)

    def actual_pages(self) -> int:
        """Return the balloon's size as the guest last told it."""
        actual: int = self._monitor.execute("query-balloon")["actual"]
        return self.memory_pages - actual // BALLOON_PAGE_BYTES

    def statistics(self) -> dict[str, int]:
        """What the guest said last: QEMU's name of a value -> bytes or a number; without those that
        it has not told."""
        told: dict[str, int] = self._get("guest-stats")["stats"]
        return {name: value for name, value in told.items() if 0 <= value < _NEVER_TOLD}

    def statistics_at(self) -> int:
        """When it said that, in whole seconds since 1970; 0: never."""
        at: int = self._get("guest-stats")["last-update"]
        return at

    def _get(self, name: str) -> Any:
        return self._monitor.execute("qom-get", path=self._device(), property=name)

    def _set(self, name: str, value: object) -> None:
        self._monitor.execute("qom-set", path=self._device(), property=name, value=value)

    @contextlib.contextmanager
    def hinting(self) -> Iterator[None]:
        """Let the guest hint its free pages to the host as long as the context lasts.

        QEMU asks for hints only while it migrates a guest: here nowhere, too slowly ever to
        arrive, cancelled at the end. The guest runs on throughout; it keeps the pages it has
        hinted until the end, unless its shrinker takes them back. Raises UserError if QEMU
        refuses, or if the guest was not made with hinting.
        """
        if not self._get("free-page-hint"):
            raise UserError("this guest has no free page hinting", "set GuestConfig.hinting")
        speed = {"max-bandwidth": _SLOWEST_MIGRATION}
        self._monitor.execute("migrate-set-parameters", **speed)
        self._monitor.execute("migrate", uri="exec:cat > /dev/null")
        try:
            self._await_migration("active")
            yield
        finally:
            self._monitor.execute("migrate_cancel")
            self._await_migration("cancelled")

    @contextlib.contextmanager
    def polling(self, interval_s: int) -> Iterator[None]:
        """Ask the guest for its balloon's statistics so often as long as the context lasts.

        QEMU keeps the interval, and shares it with whoever manages the guest: it is put back at the
        end. Raises UserError if QEMU refuses.
        """
        before = self._get("guest-stats-polling-interval")
        self._set("guest-stats-polling-interval", interval_s)
        try:
            yield
        finally:
            self._set("guest-stats-polling-interval", before)

    def _device(self) -> str:
        """The device's place in QEMU, whoever named it."""
        for child in self._monitor.execute("qom-list", path=_DEVICES):
            if str(child["type"]).startswith("child<virtio-balloon"):
                return f"{_DEVICES}/{child['name']}"
        raise UserError("the guest has no balloon device that QEMU knows by a name")

    def _await_migration(self, wanted: str) -> None:
        deadline = time.monotonic() + _TIMEOUT_S
        status = ""
        while status != wanted:
            status = self._monitor.execute("query-migrate").get("status", "none")
            if status in ("failed", "completed") or time.monotonic() > deadline:
                raise UserError(f"QEMU's migration is {status}, not {wanted}")
            time.sleep(_POLL_S)
