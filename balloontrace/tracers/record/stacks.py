# SPDX-License-Identifier: Apache-2.0
"""Where tasks are in the kernel."""

from __future__ import annotations

from balloontrace.tracers.machine import namespaces
from balloontrace.tracers.machine.files import text

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable


_KTHREADD = 2
"""In the initial PID namespace, for ever."""


def _shows_every_task() -> bool:
    """Not that of another PID namespace, nor one that is mounted with hidepid."""
    return namespaces.is_initial() and bool(text(f"/proc/{_KTHREADD}/stat"))


def of_tasks(tids: Iterable[int]) -> dict[int, str]:
    """Thread id -> its kernel stack, one line for each frame; tasks that are gone are left out.

    tids: of the initial PID namespace. '' where it is not to be had: of a task that runs, where the
    kernel does not tell it, or not to this process (/proc/PID/stack takes CAP_SYS_ADMIN, and
    CONFIG_STACKTRACE), and of all where /proc does not show every task, so that none is known to be
    gone.
    """
    if not _shows_every_task():
        return dict.fromkeys(tids, "")
    found = {}
    for tid in tids:
        state = text(f"/proc/{tid}/stat").rpartition(") ")[2][:1]
        if state:
            found[tid] = "" if state == "R" else text(f"/proc/{tid}/stack")
    return found
