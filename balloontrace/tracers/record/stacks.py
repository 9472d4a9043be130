# SPDX-License-Identifier: Apache-2.0
"""Where tasks are in the kernel."""

from __future__ import annotations

from balloontrace.tracers.machine.files import text

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable


def of_tasks(tids: Iterable[int]) -> dict[int, str]:
    """Thread id -> its kernel stack, one line for each frame; tasks that are gone are left out.

    '' where it is not to be had: of a task that runs, and where the kernel does not tell it, or not
    to this process (/proc/PID/stack takes CAP_SYS_ADMIN, and CONFIG_STACKTRACE).
    """
    found = {}
    for tid in tids:
        state = text(f"/proc/{tid}/stat").rpartition(") ")[2][:1]
        if state:
            found[tid] = "" if state == "R" else text(f"/proc/{tid}/stack")
    return found
