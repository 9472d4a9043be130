"""The few system calls Python has no function for, through the C library."""

from __future__ import annotations

import ctypes
import os
import struct
from collections.abc import Iterator

_libc = ctypes.CDLL(None, use_errno=True)

_SYS_BPF = {"x86_64": 321, "aarch64": 280}
_MAP_LOOKUP_ELEM, _MAP_GET_NEXT_KEY, _PROG_LOAD = 1, 4, 5
_PROG_TYPE_KPROBE = 2
_INSTRUCTION_BYTES = 8
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
    while _element(_MAP_GET_NEXT_KEY, fd, current, ctypes.addressof(following)):
        key.raw = following.raw
        current = ctypes.addressof(key)
        if _element(_MAP_LOOKUP_ELEM, fd, current, ctypes.addressof(value)):
            yield struct.unpack("@I", key.raw)[0], value.raw


def load_kprobe_program(code: bytes, name: str) -> int:
    """Load a compiled kprobe program; returns its descriptor. Raises OSError.

    union bpf_attr {u32 prog_type, insn_cnt; u64 insns, license; u32 log_level, log_size;
    u64 log_buf; u32 kern_version, prog_flags; char prog_name[16]}. The licence is what BCC gives
    its programs: the helpers that read kernel memory are for GPL programs only.
    """
    instructions = ctypes.create_string_buffer(code, len(code))
    licence = ctypes.create_string_buffer(b"GPL")
    attr = struct.pack(
        "@IIQQIIQII16s",
        _PROG_TYPE_KPROBE,
        len(code) // _INSTRUCTION_BYTES,
        ctypes.addressof(instructions),
        ctypes.addressof(licence),
        *(0, 0, 0, 0, 0),
        name.encode()[:15],
    )
    return _bpf(_PROG_LOAD, attr)


def _element(command: int, fd: int, key: int, value: int) -> bool:
    """bpf(2) on a map element: union bpf_attr {u32 map_fd; u64 key; u64 value; u64 flags}.

    False if there is no such key, or none after it.
    """
    try:
        _bpf(command, struct.pack("@IxxxxQQQ", fd, key, value, 0))
    except FileNotFoundError:
        return False
    return True


def _bpf(command: int, attr: bytes) -> int:
    """bpf(2). Raises OSError."""
    result: int = _libc.syscall(_SYS_BPF[os.uname().machine], command, attr, len(attr))
    if result < 0:
        errno = ctypes.get_errno()
        raise OSError(errno, os.strerror(errno))
    return result
