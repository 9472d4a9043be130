"""Compiles and attaches, in a child process that hands its descriptors over and is gone.

BCC with LLVM costs over 100 MiB. The child pays that once; what tracing needs afterwards is a
handful of file descriptors (maps, and the perf events that hold the attached programs), which go to
the recorder over a Unix socket. The recorder stays as small as Python is.
"""

from __future__ import annotations

import os
import resource
import socket
import struct
from collections.abc import Mapping
from contextlib import suppress

from balloontrace import __version__, events
from balloontrace.errors import EXIT_UNSUPPORTED, UserError
from balloontrace.tracers import attach, cache, compiler, guest, handover, probes, seams, state
from balloontrace.tracers.compiled import Compiled
from balloontrace.tracers.driver import identity


def start(
    ring_bytes: int, forced: Mapping[str, int], keep: bool = True
) -> tuple[int, socket.socket]:
    """Fork the loader. Returns its process id and the socket on which it answers.

    forced: see attach.attach; keep: what had to be compiled may be left in the cache.
    """
    return handover.in_child(lambda: _load(os.getppid(), ring_bytes, forced, keep))


def _load(
    recorder: int, ring_bytes: int, forced: Mapping[str, int], keep: bool
) -> handover.Handover:
    """Everything the child does: look, compile, load, attach if the driver is there."""
    running = attach.Kernel() if identity() else None
    code, from_cache = _code(ring_bytes, keep)
    # What BPF holds counted as locked memory until commit d5299b67dd59 "bpf: Memcg-based memory
    # accounting for bpf maps" and those that follow it (in v5.11); BCC lifts the limit as well.
    with suppress(ValueError, OSError):  # without CAP_SYS_RESOURCE
        resource.setrlimit(resource.RLIMIT_MEMLOCK, (resource.RLIM_INFINITY,) * 2)
    made = _maps(code)
    named = {definition.name: fd for definition, fd in zip(code.maps, made, strict=True)}
    programs = _load_programs(code.linked(made), named["stages"])
    maps = {name: named[name] for name in handover.MAPS}
    if running:
        attached = attach.attach(programs, maps["layout"], running, forced)
    else:
        attached = attach.nothing()
    header = {
        "tool": f"balloontrace {__version__}",
        **guest.describe(recorder),
        **attached.described,
        "record": events.record_layout(),
        "ring_header_bytes": events.RING_HEADER_BYTES,
        "kinds": {kind.name: kind.number for kind in events.KINDS},
        "within": {bit.name: bit.number for bit in events.WITHIN},
        "queues": {bit.name: bit.number for bit in events.QUEUES},
        "flags": {bit.name: bit.number for bit in events.FLAGS},
        "ring_bytes": ring_bytes,
        "possible_cpus": guest.possible_cpus(),
        "from_cache": from_cache,
    }
    return handover.Handover(header, maps, programs, attached.probes)


def _code(ring_bytes: int, keep: bool) -> tuple[Compiled, bool]:
    """The compiled programs, and whether they are from the cache. Raises UserError."""
    flags = compiler.definitions(ring_bytes)
    name = cache.key(compiler.source(), flags)
    if kept := cache.find(name):
        return kept, True
    code = compiler.compile_programs(flags)
    if keep:
        cache.keep(name, code)
    return code, False


def _maps(code: Compiled) -> list[int]:
    """Make the maps of `code`, in their order. Raises UserError."""
    try:
        return [probes.create_map(definition) for definition in code.maps]
    except OSError as error:
        raise UserError(
            f"kernel {os.uname().release} makes no map for the events: {error.strerror}",
            "raise the limit of locked memory (ulimit -l), or record with a smaller --ring-kib",
            EXIT_UNSUPPORTED,
        ) from None


def _load_programs(code: Mapping[str, bytes], stages: int) -> dict[str, int]:
    """Load the programs of every seam, and fill the map `stages` with those they go on to.

    code: bytecode by name; returns the seams' descriptors by attach.program_name. Raises UserError
    if the kernel refuses one.
    """
    for number, stage in enumerate(compiler.STAGES):
        descriptor = _program(stage, code[stage])
        probes.update_element(stages, number, struct.pack("@I", descriptor))
    loaded: dict[str, int] = {}
    for probe in seams.probes():
        for program, _ in probe.programs():
            name = attach.program_name(program, probe.call)
            if name not in loaded:
                ours = state.for_call(code[program], probe.call) if probe.call else code[program]
                shown = program.replace("any", probe.call) if probe.call else program
                loaded[name] = _program(shown, ours, probe.tracepoint)
    return loaded


def _program(name: str, code: bytes, raw_tracepoint: bool = False) -> int:
    """Load one program, as `name` for bpftool (15 characters of it). Raises UserError."""
    try:
        return probes.load_program(code, name, raw_tracepoint)
    except OSError as error:
        raise UserError(
            f"kernel {os.uname().release} refuses the BPF program {name}: {error.strerror}",
            "is BPF restricted here (lockdown, LSM)? otherwise please report this line",
            EXIT_UNSUPPORTED,
        ) from None
