# SPDX-License-Identifier: Apache-2.0
"""Starting `balloontrace record` in a guest."""

from __future__ import annotations

import shlex
import subprocess
from collections.abc import Sequence
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
    record = ["balloontrace", "record", "-o", path, *arguments]
    return start_and_wait(guest, record, ready, path, stderr=stderr, timeout_s=timeout_s)


def start_and_wait(
    guest: RemoteGuest,
    command: Sequence[str],
    ready: str,
    *without: str,
    stderr: int | IO[bytes] | None = subprocess.PIPE,
    timeout_s: float = COMMAND_TIMEOUT_S,
) -> tuple[RemoteProcess, bool]:
    """Run one of our verbs in the guest, and wait until it says in the file `ready` that it is.

    without: files that are removed before. Returns the process, and whether it is ready; if not, it
    has ended. Raises GuestDied, GuestHung.
    """
    ours, options = command[:2], command[2:]  # a command of the user's may be at the end
    begin = shlex.join([*ours, "--ready-file", ready, *options])
    remove = shlex.join(["rm", "-f", ready, *without])
    recorder = guest.popen(["sh", "-c", f"{remove}; mkfifo {ready}; exec {begin}"], stderr=stderr)
    # Blocks on the FIFO, and looks once a second whether anybody is there: whoever polls takes a
    # small guest's CPU from what it waits for. It goes, lest the next one takes it for its own.
    wait = (
        f"until [ -p {ready} ]; do sleep 0.1; done; exec 3<>{ready}; trap 'rm -f {ready}' EXIT; "
        f"until read -r -t 1 -u 3; do kill -0 {recorder.pid} || exit 1; done"
    )
    done = guest.run(["bash", "-c", wait], check=False, timeout_s=timeout_s)
    return recorder, done.returncode == 0
