# SPDX-License-Identifier: Apache-2.0
"""Whether a recording without an end is still being written, as far as this machine can tell."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from balloontrace.analysis.trace.trace import section

_RECORDERS = (b"balloontrace.tracers.record", b"balloontrace.watch")
"""In the command line of every recorder (tracers/load/launch.py), and of every watcher."""


def is_underway(header: dict[str, Any]) -> bool:
    """Whether the recorder that wrote this header runs on this machine, since the same boot."""
    boot_id = section(header, "guest").get("boot_id")
    recorder = section(header, "tasks").get("recorder")
    try:
        here = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        if here != boot_id:
            return False
        running = Path(f"/proc/{recorder}/cmdline").read_bytes()
        return any(name in running for name in _RECORDERS)
    except OSError:
        return False
