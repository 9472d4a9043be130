"""The few system calls Python has no function for, through the C library."""

from __future__ import annotations

import ctypes
import os
import struct
from collections.abc import Iterator

_libc = ctypes.CDLL(None, use_errno=True)

_SYS_BPF = {"x86_64": 321, "aarch64": 280}
_MAP_LOOKUP_ELEM, _MAP_GET_NEXT_KEY = 1, 4
_MCL_CURRENT, _MCL_FUTURE, _MCL_ONFAULT = 1, 2, 4


def lock_memory() -> bool:
    """Keep every page this process has touched or will touch in memory (mlockall, on fault).

    On fault, because locking the whole of Python's mappings costs 5 MiB that are never used.
    """
    flags = _MCL_CURRENT | _MCL_FUTURE | _MCL_ONFAULT
    return bool(_libc.mlockall(flags) == 0)


def map_entries(fd: int, value_bytes: int) -> Iterator[tuple[int, bytes]]:
    """(key, value) of every entry of a BPF hash map with u32 keys. Raises OSError."""
    key = ctypes.create_string_buffer(4)
    following = ctypes.create_string_buffer(4)
    value = ctypes.create_string_buffer(value_bytes)
    current = 0  # NULL: begin with the first key
    while _bpf(_MAP_GET_NEXT_KEY, fd, current, ctypes.addressof(following)):
        key.raw = following.raw
        current = ctypes.addressof(key)
        if _bpf(_MAP_LOOKUP_ELEM, fd, current, ctypes.addressof(value)):
            yield struct.unpack("@I", key.raw)[0], value.raw


def _bpf(command: int, fd: int, key: int, value: int) -> bool:
    """bpf(2) on a map element: union bpf_attr {u32 map_fd; u64 key; u64 value; u64 flags}."""
    attr = struct.pack("@IxxxxQQQ", fd, key, value, 0)
    number = _SYS_BPF[os.uname().machine]
    if _libc.syscall(number, command, attr, len(attr)) == 0:
        return True
    errno = ctypes.get_errno()
    if errno == 2:  # ENOENT: no such key, or none after it
        return False
    raise OSError(errno, os.strerror(errno))
