# SPDX-License-Identifier: Apache-2.0
"""CPU time of the kernel's threads that a balloon keeps busy: kswapd, kcompactd, the size worker.

It is the first number of /proc/<tid>/schedstat (Documentation/scheduler/sched-stats.rst).
"""

from __future__ import annotations

import os

from balloontrace.tracers.machine.files import text
from balloontrace.tracers.samplers.proc import ProcFile, Source

_CHILDREN_OF_KTHREADD = "/proc/2/task/2/children"
_WORKQUEUE = "events_freezable"
"""The driver's work is queued on system_freezable_wq; a kworker is named after what it last ran
(wq_worker_comm in kernel/workqueue.c)."""

LOOK_EVERY, SEARCH_EVERY = 50, 200
"""Readings from one look at the names of all kernel threads to the next; where the kernel does not
list them (CONFIG_PROC_CHILDREN), and they must be searched for among all processes."""


class KernelThreads(Source):
    """Sampler `cpu`: nanoseconds since the first reading.

    kworker_ns: of the kworkers whose last work came from the size worker's queue, in which others'
    work is counted, too: no more than that can be known without tracing. Raises OSError where
    kernel threads are not to be seen (a PID namespace), or not timed (CONFIG_SCHED_INFO).
    """

    name = "cpu"

    def __init__(self) -> None:
        self._total_ns = {"kswapd_ns": 0, "kcompactd_ns": 0, "kworker_ns": 0}
        self._files: dict[int, ProcFile] = {}
        self._last_ns: dict[int, int] = {}
        self._key: dict[int, str] = {}
        self._readings = 0
        self._every = LOOK_EVERY if os.path.exists(_CHILDREN_OF_KTHREADD) else SEARCH_EVERY
        self._look()
        if "kswapd_ns" not in self._key.values():
            raise FileNotFoundError("no kernel threads are to be seen")
        self.read()

    def text(self) -> list[tuple[int, str, bytes]]:
        """Thread, under what it is counted, and its file now."""
        self._readings += 1
        if self._readings % self._every == 0:
            self._look()
        found = []
        for tid, key in list(self._key.items()):
            try:
                found.append((tid, key, self._files[tid].text()))
            except OSError:  # a kworker that has ended
                self._forget(tid)
        return found

    def numbers(self, text: list[tuple[int, str, bytes]]) -> dict[str, int]:
        """Nanoseconds by kind of thread."""
        for tid, key, said in text:
            now_ns = int(said.split()[0])
            self._total_ns[key] += now_ns - self._last_ns.get(tid, now_ns)
            self._last_ns[tid] = now_ns
        return dict(self._total_ns)

    def _look(self) -> None:
        """See which threads there are now, and what they are."""
        for tid in _of_the_kernel():
            key = _key(_comm(tid))
            if key and tid not in self._key:
                try:
                    self._files[tid] = ProcFile(f"/proc/{tid}/schedstat")
                except OSError:
                    continue
                self._key[tid] = key
                self._last_ns.pop(tid, None)  # of when it was last counted
            elif not key and tid in self._key:  # it works for another queue now
                self._forget(tid)

    def _forget(self, tid: int) -> None:
        self._files.pop(tid).close()
        del self._key[tid]


def _of_the_kernel() -> list[int]:
    """The kernel's threads: kthreadd's children, for a process may take any name."""
    if listed := text(_CHILDREN_OF_KTHREADD):
        return list(map(int, listed.split()))
    stats = [text(f"/proc/{name}/stat") for name in os.listdir("/proc") if name.isdigit()]
    parts = [stat.rpartition(") ")[2].split() for stat in stats]
    return [int(stat.split()[0]) for stat, part in zip(stats, parts) if part[1:2] == ["2"]]


def _comm(tid: int) -> str:
    """A thread's name, '' if it has ended. With system calls alone: there may be hundreds."""
    try:
        descriptor = os.open(f"/proc/{tid}/comm", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return ""
    try:
        return os.read(descriptor, 64).decode(errors="replace").strip()
    except OSError:
        return ""
    finally:
        os.close(descriptor)


def _key(comm: str) -> str:
    """Under what a thread of this name is counted, '' if not at all."""
    for kind in ("kswapd", "kcompactd"):
        if comm.startswith(kind):
            return f"{kind}_ns"
    # A + in place of the - is at it now.
    worker, _, queue = comm.replace("+", "-", 1).partition("-")
    return "kworker_ns" if worker.startswith("kworker/") and queue == _WORKQUEUE else ""
