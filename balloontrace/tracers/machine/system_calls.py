# SPDX-License-Identifier: Apache-2.0
"""The few system calls Python has no function for, through the C library."""

from __future__ import annotations

import ctypes
import mmap
import os
import struct

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

libc = ctypes.CDLL(None, use_errno=True)

_SYS_PERF_EVENT_OPEN = {"x86_64": 298, "aarch64": 241}
_PERF_FLAG_FD_CLOEXEC = 8
_SYS_BPF = {"x86_64": 321, "aarch64": 280}
MACHINES = tuple(_SYS_BPF)
"""Those whose system calls are known here, and whose registers bpf/balloon.c knows."""

_MAP_LOOKUP_ELEM, _MAP_GET_NEXT_KEY = 1, 4
_MCL_CURRENT, _MCL_FUTURE, _MCL_ONFAULT = 1, 2, 4


def lock_memory() -> bool:
    """Keep every page this process has touched or will touch in memory (mlockall, on fault).

    On fault, because locking the whole of Python's mappings costs 5 MiB that are never used.
    """
    flags = _MCL_CURRENT | _MCL_FUTURE | _MCL_ONFAULT
    return bool(libc.mlockall(flags) == 0)


def lift_locked_memory_limit() -> bool:
    """Let BPF, and `lock_memory` once privileges are given up, take what they need; returns whether
    this process may.

    What BPF holds counted as locked memory until commit d5299b67dd59 "bpf: Memcg-based memory
    accounting for bpf maps" and those that follow it (in v5.11).
    """
    import resource

    try:
        resource.setrlimit(resource.RLIMIT_MEMLOCK, (resource.RLIM_INFINITY,) * 2)
    except (ValueError, OSError):  # without CAP_SYS_RESOURCE
        return False
    return True


def set_oom_score_adj(score: int) -> None:
    """What the OOM killer adds to this process's badness. Raises OSError."""
    with open("/proc/self/oom_score_adj", "w", encoding="ascii") as adj:
        adj.write(str(score))


def map_array(fd: int, size: int) -> mmap.mmap:
    """The memory of an mmapable BPF array of `size` bytes. Raises OSError."""
    return mmap.mmap(fd, -(-size // mmap.PAGESIZE) * mmap.PAGESIZE)


def map_entries(fd: int, value_bytes: int) -> Iterator[tuple[int, bytes]]:
    """(key, value) of every entry of a BPF hash map with u32 keys. Raises OSError."""
    key = ctypes.create_string_buffer(4)
    following = ctypes.create_string_buffer(4)
    value = ctypes.create_string_buffer(value_bytes)
    current = 0  # NULL: begin with the first key
    while _element(_MAP_GET_NEXT_KEY, fd, current, ctypes.addressof(following)):
        key.raw = following.raw
        current = ctypes.addressof(key)
        if _element(_MAP_LOOKUP_ELEM, fd, current, ctypes.addressof(value)):
            yield struct.unpack("@I", key.raw)[0], value.raw


def _element(command: int, fd: int, key: int, value: int) -> bool:
    """bpf(2) on a map element: union bpf_attr {u32 map_fd; u64 key; u64 value; u64 flags}.

    False if there is no such key, or none after it.
    """
    try:
        bpf(command, struct.pack("@IxxxxQQQ", fd, key, value, 0))
    except FileNotFoundError:
        return False
    return True


def bpf(command: int, attr: bytes) -> int:
    """bpf(2), whose attribute `attr` is. Raises OSError."""
    return bpf_in_place(command, ctypes.create_string_buffer(attr, len(attr)))


def bpf_in_place(command: int, attr: ctypes.Array[ctypes.c_char]) -> int:
    """bpf(2), where the kernel writes into `attr`. Raises OSError."""
    result: int = libc.syscall(_SYS_BPF[os.uname().machine], command, attr, len(attr))
    if result < 0:
        raise os_error()
    return result


def perf_event_open(attr: bytes) -> int:
    """A perf event of every task, on CPU 0 if that matters; returns its descriptor. Raises OSError.

    attr: struct perf_event_attr.
    """
    every_task, cpu, no_group = -1, 0, -1
    event: int = libc.syscall(
        *(_SYS_PERF_EVENT_OPEN[os.uname().machine], attr),
        *(every_task, cpu, no_group, _PERF_FLAG_FD_CLOEXEC),
    )
    if event < 0:
        raise os_error()
    return event


def os_error() -> OSError:
    """What the last call through the C library failed with."""
    errno = ctypes.get_errno()
    return OSError(errno, os.strerror(errno))


_FALLOC_FL_KEEP_SIZE = 1


def reserve(fd: int, size: int) -> bool:
    """Have the first `size` bytes of a file ready on its disk, however much is written yet; False:
    the file system cannot."""
    length = ctypes.c_longlong(size)
    return bool(libc.fallocate64(fd, _FALLOC_FL_KEEP_SIZE, ctypes.c_longlong(0), length) == 0)


_LOCK_EX, _LOCK_NB = 2, 4


def lock_file(fd: int) -> bool:
    """Lock an open file or directory (flock(2)); False: another process has."""
    return bool(libc.flock(fd, _LOCK_EX | _LOCK_NB) == 0)
