# SPDX-License-Identifier: Apache-2.0
"""What bpf(2) and perf events do for us, without BCC: maps, programs, and attaching them."""

from __future__ import annotations

import ctypes
import errno
import fcntl
import functools
import os
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from balloontrace.tracers.machine.system_calls import bpf, bpf_in_place, perf_event_open

_MAP_CREATE, _MAP_UPDATE_ELEM, _PROG_LOAD = 0, 2, 5
_OBJ_GET_INFO_BY_FD, _RAW_TRACEPOINT_OPEN = 15, 17
_BTF_GET_FD_BY_ID, _BTF_GET_NEXT_ID, _LINK_CREATE = 19, 23, 28
_KPROBE_MULTI_RETURN = 1
_INSTRUCTION_BYTES = 8
_LOG_BYTES = 1 << 20
_PERF_ATTR_BYTES = 72  # PERF_ATTR_SIZE_VER1
_PERF_EVENT_IOC_ENABLE, _PERF_EVENT_IOC_SET_BPF = 0x2400, 0x40042408
KPROBE_EVENTS = Path("/sys/bus/event_source/devices/kprobe")
"""There where the kernel has kprobes for perf, and hence for BPF."""


_MAP_INFO = struct.Struct("@IxxxxIIII16s")
"""The start of struct bpf_map_info: u32 type, id, key_size, value_size, max_entries, map_flags;
char name[16]. The id is passed over."""


class MapDefinition(NamedTuple):
    """What a BPF map is made from. kind: enum bpf_map_type; sizes in bytes."""

    kind: int
    key_bytes: int
    value_bytes: int
    entries: int
    flags: int
    name: str


def map_definition(fd: int) -> MapDefinition:
    """What the map with descriptor `fd` was made from. Raises OSError."""
    info = ctypes.create_string_buffer(_MAP_INFO.size)
    attr = struct.pack("@IIQ", fd, _MAP_INFO.size, ctypes.addressof(info))
    bpf(_OBJ_GET_INFO_BY_FD, attr)
    kind, keys, values, entries, flags, name = _MAP_INFO.unpack(info.raw)
    return MapDefinition(kind, keys, values, entries, flags, name.rstrip(b"\0").decode())


def create_map(definition: MapDefinition) -> int:
    """A new map; returns its descriptor. Raises OSError.

    union bpf_attr {u32 map_type, key_size, value_size, max_entries, map_flags, inner_map_fd,
    numa_node; char map_name[16]}.
    """
    *numbers, name = definition
    return bpf(_MAP_CREATE, struct.pack("@5III16s", *numbers, 0, 0, name.encode()))


class ProgramType(NamedTuple):
    """What a program is to be loaded as: enum bpf_prog_type, enum bpf_attach_type."""

    number: int
    attach: int = 0


KPROBE = ProgramType(2)
KPROBE_MULTI = ProgramType(2, 42)
RAW_TRACEPOINT = ProgramType(17)
FENTRY = ProgramType(26, 24)
FEXIT = ProgramType(26, 25)

_LOAD = struct.Struct("@IIQQIIQII16sIIIIQIIQIIII")
"""union bpf_attr {u32 prog_type, insn_cnt; u64 insns, license; u32 log_level, log_size;
u64 log_buf; u32 kern_version, prog_flags; char prog_name[16]; u32 prog_ifindex,
expected_attach_type, prog_btf_fd, func_info_rec_size; u64 func_info; u32 func_info_cnt,
line_info_rec_size; u64 line_info; u32 line_info_cnt, attach_btf_id, attach_btf_obj_fd,
core_relo_cnt}."""


def load_program(
    code: bytes, name: str, kind: ProgramType = KPROBE, btf_id: int = 0, btf_fd: int = 0
) -> int:
    """Load a compiled program; returns its descriptor. Raises OSError.

    btf_id, btf_fd: of FENTRY and FEXIT, the function, and the BTF that has it if not vmlinux's. The
    licence is one of those of balloon.c: the helpers that read kernel memory are for GPL programs
    only. A program that is refused is loaded again for the verifier's last words: its log costs
    time.
    """
    instructions = ctypes.create_string_buffer(code, len(code))
    licence = ctypes.create_string_buffer(b"GPL")

    def load(log: ctypes.Array[ctypes.c_char] | None = None) -> int:
        attr = _LOAD.pack(
            *(kind.number, len(code) // _INSTRUCTION_BYTES),
            *(ctypes.addressof(instructions), ctypes.addressof(licence)),
            *((1, len(log), ctypes.addressof(log)) if log else (0, 0, 0)),
            *(0, 0, name.encode()[:15]),
            *(0, kind.attach, 0, 0, 0, 0, 0, 0, 0, btf_id, btf_fd, 0),
        )
        # Kernels that know fewer members do not mind zeros in the others.
        return bpf(_PROG_LOAD, attr)

    try:
        return load()
    except OSError as error:
        refusal = error
    log = ctypes.create_string_buffer(_LOG_BYTES)
    try:
        return load(log)
    except OSError:
        words = log.value.decode(errors="replace").strip().splitlines()
        said = [line for line in words if not line.startswith("processed ")]
        raise OSError(
            refusal.errno, f"{refusal.strerror}{': ' + said[-1] if said else ''}"
        ) from None


def attach_kprobes(program: int, is_return: bool, places: Mapping[int, int]) -> int:
    """Run `program` at entry or return of many kernel functions; closing the link ends it.

    places: address -> cookie, which the program can ask for. Raises OSError. Commit 0dcac2725406
    "bpf: Add multi kprobe link" (in v5.18): union bpf_attr {u32 prog_fd, target_fd, attach_type,
    flags; struct {u32 flags, cnt; u64 syms, addrs, cookies} kprobe_multi}.
    """
    addresses = (ctypes.c_uint64 * len(places))(*places)
    cookies = (ctypes.c_uint64 * len(places))(*places.values())
    attr = struct.pack(
        "@IIIIIIQQQ",
        *(program, 0, KPROBE_MULTI.attach, 0),
        *(_KPROBE_MULTI_RETURN if is_return else 0, len(places)),
        *(0, ctypes.addressof(addresses), ctypes.addressof(cookies)),
    )
    return bpf(_LINK_CREATE, attr)


_NOTHING = struct.pack("@BBhi", 0xB7, 0, 0, 0) + struct.pack("@BBhi", 0x95, 0, 0, 0)
"""A program: r0 = 0; exit."""


def without_kprobe_multi() -> bool:
    """Whether the kernel says, of a link to no function, that it has no such links: one built
    without CONFIG_FPROBE. Others refuse it for other reasons."""
    try:
        program = load_program(_NOTHING, "nothing", KPROBE_MULTI)
    except OSError:
        return False
    try:
        os.close(attach_kprobes(program, False, {}))
    except OSError as error:
        return error.errno == errno.EOPNOTSUPP
    finally:
        os.close(program)
    return False


def attach_trampoline(program: int) -> int:
    """Run a FENTRY or FEXIT program where it was loaded for; closing the descriptor ends it.

    Raises OSError.
    """
    return bpf(_RAW_TRACEPOINT_OPEN, struct.pack("@QIxxxx", 0, program))


def module_btf(name: str) -> int:
    """A descriptor of the BTF of a module. Raises OSError: FileNotFoundError if it has none.

    struct bpf_btf_info {u64 btf; u32 btf_size, id; u64 name; u32 name_len, kernel_btf}.
    """
    current = 0
    while True:
        # union bpf_attr {u32 start_id, next_id, open_flags}, which the kernel fills in
        attr = ctypes.create_string_buffer(struct.pack("@III", current, 0, 0), 12)
        bpf_in_place(_BTF_GET_NEXT_ID, attr)
        (current,) = struct.unpack_from("@I", attr.raw, 4)
        fd = bpf(_BTF_GET_FD_BY_ID, struct.pack("@III", current, 0, 0))
        text = ctypes.create_string_buffer(64)
        info = ctypes.create_string_buffer(
            struct.pack("@QIIQII", 0, 0, 0, ctypes.addressof(text), len(text), 0), 32
        )
        bpf(_OBJ_GET_INFO_BY_FD, struct.pack("@IIQ", fd, len(info), ctypes.addressof(info)))
        if text.value == name.encode():
            return fd
        os.close(fd)


def attach_kprobe(program: int, is_return: bool, function: str, address: int = 0) -> int:
    """Run `program` at entry or return of a kernel function; closing the descriptor ends it.

    Where a name stands for several functions `address` tells which: without a name the kernel takes
    the offset for an address (perf_kprobe_init in kernel/trace/trace_event_perf.c). Raises OSError.
    struct perf_event_attr {u32 type, size; u64 config, sample_period, sample_type, read_format,
    flags; u32 wakeup_events, bp_type; u64 kprobe_func, probe_offset}.
    """
    event_type, return_bit = _kprobe_event()
    name = ctypes.create_string_buffer(function.encode())
    attr = struct.pack(
        "@IIQQQQQIIQQ",
        event_type,
        _PERF_ATTR_BYTES,
        int(is_return) << return_bit,
        *(1, 0, 0, 0, 1, 0),
        0 if address else ctypes.addressof(name),
        address,
    )
    event = perf_event_open(attr)
    try:
        fcntl.ioctl(event, _PERF_EVENT_IOC_SET_BPF, program)
        fcntl.ioctl(event, _PERF_EVENT_IOC_ENABLE, 0)
    except OSError:
        os.close(event)
        raise
    return event


def attach_raw_tracepoint(program: int, name: str) -> int:
    """Run `program` at a tracepoint; closing the descriptor ends it. Raises OSError."""
    text = ctypes.create_string_buffer(name.encode())
    return bpf(_RAW_TRACEPOINT_OPEN, struct.pack("@QIxxxx", ctypes.addressof(text), program))


def update_element(fd: int, key: int, value: bytes) -> None:
    """Write one element of a BPF map with u32 keys. Raises OSError."""
    keys, values = struct.pack("@I", key), ctypes.create_string_buffer(value, len(value))
    buffer = ctypes.create_string_buffer(keys, len(keys))
    addresses = (ctypes.addressof(buffer), ctypes.addressof(values))
    bpf(_MAP_UPDATE_ELEM, struct.pack("@IxxxxQQQ", fd, *addresses, 0))


@functools.cache
def _kprobe_event() -> tuple[int, int]:
    """The event's type, and the bit of `config` that asks for a return probe: 'config:0'."""
    retprobe = (KPROBE_EVENTS / "format" / "retprobe").read_text()
    return int((KPROBE_EVENTS / "type").read_text()), int(retprobe.partition(":")[2])
