# SPDX-License-Identifier: Apache-2.0
"""What switches probes off: they can be attached then, and do not fire."""

from __future__ import annotations

from balloontrace.tracers.machine.files import text

FTRACE, KPROBES = "/proc/sys/kernel/ftrace_enabled", "/sys/kernel/debug/kprobes/enabled"
"""Files that say 0 then; the second is there where debugfs is mounted."""

_ON = {FTRACE: "sysctl kernel.ftrace_enabled=1", KPROBES: f"echo 1 > {KPROBES}"}

REMEDIES = tuple(_ON.values())
"""What switches them on again."""


def remedy(switches: tuple[str, ...]) -> str:
    """What to do about those of `switches` that are off; '' if none is known to be."""
    return " && ".join(_ON[path] for path in switches if text(path) == "0")
