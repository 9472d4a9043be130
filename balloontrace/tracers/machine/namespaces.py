# SPDX-License-Identifier: Apache-2.0
"""In which PID namespace this process is: BPF programs see the ids of the initial one."""

from __future__ import annotations

import os

_OURS = "/proc/self/ns/pid"
_INITIAL = 0xEFFFFFFC
"""PROC_PID_INIT_INO, its inode (include/linux/proc_ns.h)."""


def pid_namespace() -> tuple[int, int]:
    """Device and inode of this process's PID namespace."""
    status = os.stat(_OURS)
    return status.st_dev, status.st_ino


def is_initial() -> bool:
    """Whether the ids that this process knows are those that BPF programs see."""
    return pid_namespace()[1] == _INITIAL
