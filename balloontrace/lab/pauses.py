# SPDX-License-Identifier: Apache-2.0
"""A guest that does not run for a while: its host stops it, or it is suspended to RAM."""

from __future__ import annotations

import subprocess
import time

from balloontrace.errors import UserError
from balloontrace.lab.host import as_root
from balloontrace.lab.remote import RemoteGuest

_LIMIT_S = 60.0
_POLL_S = 0.05


def stop(guest: RemoteGuest, seconds: float) -> None:
    """Let the host run nothing of the guest for so long, whose clocks go on.

    QMP's own `stop` would stop them, too: the guest could not tell. Raises UserError if its QEMU
    may not be stopped.
    """
    _signal(guest, "STOP")
    try:
        time.sleep(seconds)
    finally:
        _signal(guest, "CONT")


def _signal(guest: RemoteGuest, name: str) -> None:
    pid = guest.host_pid()
    if not pid:  # to kill it is to signal ourselves
        raise UserError("the guest cannot be stopped: it does not run")
    command = as_root(["kill", f"-{name}", str(pid)])
    done = subprocess.run(command, stderr=subprocess.PIPE, text=True, check=False)
    if done.returncode != 0:
        raise UserError(f"cannot send SIG{name} to the guest's QEMU: {done.stderr.strip()}")


def suspend(guest: RemoteGuest, seconds: float) -> None:
    """Suspend the guest to RAM and wake it after so long; returns once it is awake.

    Raises UserError if it does not go to sleep.
    """
    sleeper = guest.popen(["sh", "-c", "echo mem > /sys/power/state"])
    deadline = time.monotonic() + _LIMIT_S
    # QEMU's firmware wakes a guest at once that has been woken before.
    while not (asleep := _is_suspended(guest)) and sleeper.poll() is None:
        if time.monotonic() > deadline:
            raise UserError(f"after {_LIMIT_S:.0f} s: the guest does not suspend")
        time.sleep(_POLL_S)
    if asleep:
        time.sleep(seconds)
        guest.monitor.execute("system_wakeup")
    status, _, said = sleeper.communicate()
    if status != 0:
        raise UserError("the guest cannot be suspended", said.strip())


def _is_suspended(guest: RemoteGuest) -> bool:
    return bool(guest.monitor.execute("query-status")["status"] == "suspended")
