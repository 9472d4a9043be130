"""Compiles and attaches, in a child process that hands its descriptors over and is gone.

BCC with LLVM costs over 100 MiB. The child pays that once; what tracing needs afterwards is a
handful of file descriptors (maps, and the perf events that hold the attached programs), which go to
the recorder over a Unix socket. The recorder stays as small as Python is.
"""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from balloontrace import __version__, events
from balloontrace.errors import EXIT_FAILURE, EXIT_UNSUPPORTED, UserError
from balloontrace.tracers import attach, guest, handover, packages, probes, seams, state
from balloontrace.tracers.driver import identity
from balloontrace.tracers.ring import ITEM_BYTES

_SOURCE = Path(__file__).parent / "bpf" / "balloon.c"
_STUBS = Path(__file__).parent / "bpf" / "stubs"
_RING_PAGE_BYTES = 4096

STAGES = ("entered", "returned")
"""The programs in the map `stages`, by index."""


def start(ring_bytes: int, forced: Mapping[str, int]) -> tuple[int, socket.socket]:
    """Fork the loader. Returns its process id and the socket on which it answers.

    forced: see attach.attach.
    """
    return handover.in_child(lambda: _load(os.getppid(), ring_bytes, forced))


def _load(recorder: int, ring_bytes: int, forced: Mapping[str, int]) -> handover.Handover:
    """Everything the child does: look, compile, load, attach if the driver is there."""
    running = attach.Kernel() if identity() else None
    with _captured_output() as words:
        bpf = _compile(ring_bytes, words)
        programs = load_programs(bpf)
        fill_stages(bpf)
    maps = {name: bpf[name.encode()].map_fd for name in handover.MAPS}
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
    }
    return handover.Handover(header, maps, programs, attached.probes)


def source() -> str:
    """The BPF program's text: the declarations of events.py and state.py, then bpf/balloon.c."""
    declarations = events.c_header() + state.c_header()
    return f"#include <linux/types.h>\n{declarations}\n{_SOURCE.read_text()}"


def definitions(ring_bytes: int) -> list[str]:
    """Compiler flags: the constants balloon.c is compiled with."""
    constants = {
        "CPUS": guest.possible_cpus(),
        "RING_PAGES": ring_bytes // _RING_PAGE_BYTES,
        "WAKE_EVENTS": ring_bytes // ITEM_BYTES // 2,
    }
    # Headers of kernels from 6.19 on need these of BCC's compiler; older ones do not mind.
    flags = ["-fms-extensions", "-Wno-microsoft-anon-tag", "-Wno-unused-function"]
    return flags + [f"-D{name}={value}" for name, value in constants.items()]


def _compile(ring_bytes: int, words: _Words) -> Any:
    """The compiled module, a bcc.BPF. Raises UserError with the compiler's first complaint."""
    os.environ["BCC_KERNEL_SOURCE"] = str(_STUBS)
    packages.find("bcc")
    import bcc

    try:
        return bcc.BPF(text=source(), cflags=definitions(ring_bytes))
    except Exception as error:
        complaint = words.first("error") or words.first("") or str(error)
        unsupported = "not permitted" in complaint or "Invalid argument" in complaint
        raise UserError(
            f"BCC {bcc.__version__} could not compile or load the probes: {complaint}",
            "is BPF disabled here (lockdown, CONFIG_BPF_SYSCALL)?" if unsupported else "",
            EXIT_UNSUPPORTED if unsupported else EXIT_FAILURE,
        ) from None


def load_programs(bpf: Any) -> dict[str, int]:
    """Load the programs of every seam; returns their descriptors by attach.program_name.

    Raises UserError if the kernel refuses one.
    """
    loaded: dict[str, int] = {}
    for probe in seams.probes():
        for program, _ in probe.programs():
            name = attach.program_name(program, probe.call)
            if name not in loaded:
                loaded[name] = _program(bpf, program, probe.call, probe.tracepoint)
    return loaded


def fill_stages(bpf: Any) -> None:
    """Load the programs that the others go on to (bpf/balloon.c)."""
    for number, stage in enumerate(STAGES):
        program = _program(bpf, stage)
        probes.update_element(bpf[b"stages"].map_fd, number, struct.pack("@I", program))


def _program(bpf: Any, name: str, call: str = "", raw_tracepoint: bool = False) -> int:
    """Load one compiled program, made for `call` if that is given."""
    code = bpf.dump_func(name.encode())
    try:
        return probes.load_program(
            state.for_call(code, call) if call else code, name, raw_tracepoint
        )
    except OSError as error:
        raise UserError(
            f"kernel {os.uname().release} refuses the BPF program {name}: {error.strerror}",
            "is BPF restricted here (lockdown, LSM)? otherwise please report this line",
            EXIT_UNSUPPORTED,
        ) from None


class _Words:
    """What the compiler said on the standard streams."""

    def __init__(self) -> None:
        self.descriptor = os.memfd_create("compiler")

    def first(self, pattern: str) -> str:
        """The first line that contains `pattern`, or ''."""
        text = os.pread(self.descriptor, 1 << 16, 0).decode(errors="replace")
        lines = (line.strip() for line in text.splitlines())
        return next((line for line in lines if line and pattern in line), "")


@contextmanager
def _captured_output() -> Iterator[_Words]:
    """Keep clang's and libbpf's words off the user's terminal: they go to fds 1 and 2 directly."""
    words = _Words()
    saved = [os.dup(1), os.dup(2)]
    os.dup2(words.descriptor, 1)
    os.dup2(words.descriptor, 2)
    try:
        yield words
    finally:
        for descriptor, copy in zip((1, 2), saved, strict=True):
            os.dup2(copy, descriptor)
            os.close(copy)
