# SPDX-License-Identifier: Apache-2.0
"""Tells systemd that the watcher is ready, and that it is alive (sd_notify(3), Type=notify)."""

from __future__ import annotations

import os

from balloontrace.tracers.machine.c_modules import socket

_HALF = 2
"""How often within the time that systemd gives."""


class Notify:
    """The socket that systemd gave, if it did. interval_s: how often `alive` must be called, no
    matter what; None: nobody waits for it."""

    def __init__(self) -> None:
        self._address = os.environ.get("NOTIFY_SOCKET", "")
        limit_us = os.environ.get("WATCHDOG_USEC", "")
        waits = self._address and limit_us.isdigit() and int(limit_us)
        self.interval_s = int(limit_us) / 1e6 / _HALF if waits else None

    def ready(self) -> None:
        """It watches."""
        self._send(b"READY=1")

    def alive(self) -> None:
        """It goes on."""
        if self.interval_s is not None:
            self._send(b"WATCHDOG=1")

    def stopping(self) -> None:
        """It ends."""
        self._send(b"STOPPING=1")

    def _send(self, state: bytes) -> None:
        if not self._address:
            return
        to = self._address.replace("@", "\0", 1) if self._address[0] == "@" else self._address
        end = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
        try:
            end.sendto(state, to)
        except OSError:  # it is the service manager's to miss it
            pass
        finally:
            end.close()
