# SPDX-License-Identifier: Apache-2.0
"""Which control group a task is in: its service, or its container.

From /proc/<tid>/cgroup (Documentation/admin-guide/cgroup-v2.rst), once for each task: where it was
when it was first seen.
"""

from __future__ import annotations

from collections.abc import Iterable

from balloontrace.tracers.samplers.tasks import MAX_TIDS

PATH_CHARACTERS = 200
"""Of a path that is longer its end is kept: there stands the name of a container."""


class Cgroups:
    """Tells of each task once, as long as it is one of the MAX_TIDS told of last."""

    def __init__(self) -> None:
        self._told: dict[int, None] = {}

    def of(self, tids: Iterable[int]) -> dict[str, str]:
        """Thread id -> path, of those that were not told of yet, and live."""
        found = {}
        for tid in tids:
            if tid in self._told:
                continue
            try:
                with open(f"/proc/{tid}/cgroup", encoding="utf-8", errors="replace") as file:
                    path = _path(file.read())
            except OSError:
                continue
            self._told[tid] = None
            if path:
                found[str(tid)] = path[-PATH_CHARACTERS:]
        for tid in list(self._told)[: max(0, len(self._told) - MAX_TIDS)]:
            del self._told[tid]
        return found


def _path(text: str) -> str:
    """The unified hierarchy's path, or that of the memory controller where it has one of its own;
    '' in the root."""
    paths = {}
    for line in text.splitlines():
        _, controllers, path = line.split(":", 2)  # 0::/system.slice/ssh.service
        paths.update(dict.fromkeys(controllers.split(","), path))
    path = paths.get("memory", paths.get("", ""))
    return "" if path == "/" else path
