# SPDX-License-Identifier: Apache-2.0
"""Whether a recording without an end is still being written, as far as this machine can tell."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from balloontrace.analysis.trace.trace import section

_RECORDER = b"balloontrace.tracers.record"
"""In the command line of every recorder (tracers/load/launch.py)."""


def is_underway(header: dict[str, Any]) -> bool:
    """Whether the recorder that wrote this header runs on this machine, since the same boot."""
    boot_id = section(header, "guest").get("boot_id")
    recorder = section(header, "tasks").get("recorder")
    try:
        here = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return here == boot_id and _RECORDER in Path(f"/proc/{recorder}/cmdline").read_bytes()
    except OSError:
        return False
