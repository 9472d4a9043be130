# SPDX-License-Identifier: Apache-2.0
"""What the kernel itself says that programs and links have missed."""

from __future__ import annotations

import ctypes
import struct

from balloontrace.tracers.machine.system_calls import bpf

_OBJ_GET_INFO_BY_FD = 15
_LINK_TYPE_KPROBE_MULTI = 8

_PROGRAM_BYTES, _RECURSION_MISSES_AT = 216, 208
"""struct bpf_prog_info, u64 recursion_misses: commit 9ed9e9ba2337 "bpf: Count the number of times
recursion was prevented" (in v5.12); the kernel leaves 0 there before."""

_LINK_BYTES, _MISSED_AT = 40, 32
"""struct bpf_link_info, u64 kprobe_multi.missed: commit e2b2cd592a41 "bpf: Add missed value to
kprobe_multi link info" (in v6.7)."""


def missed_by_programs(programs: list[int]) -> int:
    """How often the kernel passed these programs by, for it or another was running on that CPU."""
    return sum(_word(program, _PROGRAM_BYTES, _RECURSION_MISSES_AT) for program in programs)


def missed_by_links(probes: list[int]) -> int:
    """How many hits the kernel had no room for, of the links of kprobe.multi among `probes`."""
    return sum(
        _word(probe, _LINK_BYTES, _MISSED_AT)
        for probe in probes
        if _word(probe, 8, 0) & 0xFFFFFFFF == _LINK_TYPE_KPROBE_MULTI
    )


def _word(descriptor: int, size: int, at: int) -> int:
    """The u64 at `at` in the description of an object of BPF; 0 if there is none."""
    info = ctypes.create_string_buffer(size)
    attr = struct.pack("@IIQ", descriptor, len(info), ctypes.addressof(info))
    try:
        bpf(_OBJ_GET_INFO_BY_FD, attr)
    except OSError:
        return 0
    word: int = struct.unpack_from("@Q", info.raw, at)[0]
    return word
