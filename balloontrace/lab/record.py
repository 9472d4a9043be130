"""Starting `balloontrace record` in a guest."""

from __future__ import annotations

import subprocess
from typing import IO

from balloontrace.lab.remote import COMMAND_TIMEOUT_S, RemoteGuest, RemoteProcess


def start_recorder(
    guest: RemoteGuest,
    path: str,
    *arguments: str,
    stderr: int | IO[bytes] | None = subprocess.PIPE,
    timeout_s: float = COMMAND_TIMEOUT_S,
) -> tuple[RemoteProcess, bool]:
    """Record into `path` in the guest, in place of what is there, and wait for the probes.

    Returns the recorder, and whether it is attached; if not, it has ended. Raises GuestDied, or
    GuestHung after timeout_s.
    """
    ready = f"/run/balloontrace{path.replace('/', '_')}.ready"
    guest.run(["rm", "-f", ready, path])
    command = ["balloontrace", "record", "-o", path, "--ready-file", ready, *arguments]
    recorder = guest.popen(command, stderr=stderr)
    wait = f"until [ -e {ready} ]; do kill -0 {recorder.pid} || exit 1; sleep 0.1; done"
    attached = guest.run(wait, check=False, timeout_s=timeout_s).returncode == 0
    if attached:
        guest.keep_compiled()
    return recorder, attached
