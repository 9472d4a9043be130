# SPDX-License-Identifier: Apache-2.0
"""The hypervisor's process, in /proc: its memory, and the CPU time of the guest's processors."""

from __future__ import annotations

import re
import socket
import struct
from collections.abc import Iterable
from pathlib import Path

_PROC = Path("/proc")

_STATUS = {
    "VmRSS": "rss_bytes",
    "VmLck": "locked_bytes",
    "VmSwap": "swap_bytes",
    "HugetlbPages": "hugetlb_bytes",
}
"""Lines of /proc/PID/status (Documentation/filesystems/proc.rst). Memory of hugetlbfs is not in the
resident memory."""

_VCPU = re.compile(r"^(?:fc_vcpu|vcpu|CPU) ?\d+")
"""Names of threads that run a guest's processor: of Firecracker, cloud-hypervisor, and QEMU."""


_PEER = struct.Struct("3i")
"""struct ucred of unix(7): pid, uid, gid."""


def peer(connection: socket.socket) -> int | None:
    """The process that listens at the other end of a Unix socket, or had it made for another; None:
    it is not to be seen from here, as from within a container."""
    told = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _PEER.size)
    return int(_PEER.unpack(told)[0]) or None


def listener(path: str) -> int | None:
    """The process that listens at a Unix socket, as `peer`; None also if nobody does."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        try:
            connection.connect(path)
        except OSError:
            return None
        return peer(connection)


def memory(pid: int) -> dict[str, int]:
    """Bytes that the process takes now, by name; empty if it is not there."""
    try:
        status = (_PROC / str(pid) / "status").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return {}
    lines = (line.partition(":") for line in status.splitlines())
    return {
        _STATUS[name]: int(value.split()[0]) * 1024 for name, _, value in lines if name in _STATUS
    }


def proportional(pid: int) -> int | None:
    """Bytes that the process takes, of what it shares its share (PSS). It takes 13 ms a GiB; None:
    not told (only root is, of others' processes)."""
    try:
        told = (_PROC / str(pid) / "smaps_rollup").read_text(encoding="ascii")
    except OSError:
        return None
    found = re.search(r"^Pss:\s+(\d+) kB", told, re.M)
    return int(found[1]) * 1024 if found else None


def vcpu_threads(pid: int) -> tuple[int, ...]:
    """Threads of the process that run the guest's processors, by their names."""
    found = []
    for task in (_PROC / str(pid) / "task").glob("*"):
        try:
            name = (task / "comm").read_text(encoding="utf-8", errors="replace")
        except OSError:  # it has ended
            continue
        if _VCPU.match(name):
            found.append(int(task.name))
    return tuple(sorted(found))


def has_threads(pid: int, threads: Iterable[int]) -> bool:
    """Whether all of these are the process's."""
    return all((_PROC / str(pid) / "task" / str(thread)).is_dir() for thread in threads)


def processors(pid: int, threads: Iterable[int]) -> dict[str, int]:
    """What those threads ran, and waited for a CPU of the host, in ns since their begin
    (Documentation/scheduler/sched-stats.rst), and how many they are; empty: not told."""
    ran = waited = number = 0
    for thread in threads:
        try:
            path = _PROC / str(pid) / "task" / str(thread) / "schedstat"
            cpu_ns, wait_ns, _ = path.read_text(encoding="ascii").split()
        except (OSError, ValueError):
            continue
        ran, waited, number = ran + int(cpu_ns), waited + int(wait_ns), number + 1
    return {"cpu_ns": ran, "waited_ns": waited, "threads": number} if number else {}


def has_vfio(pid: int) -> bool | None:
    """Whether a device is passed through (VFIO): the guest's memory stays pinned then. None: not
    told."""
    try:
        links = list((_PROC / str(pid) / "fd").iterdir())
    except OSError:
        return None
    return any(_leads_to(link).startswith("/dev/vfio/") for link in links)


def _leads_to(link: Path) -> str:
    try:
        return str(link.readlink())
    except OSError:  # closed meanwhile
        return ""
