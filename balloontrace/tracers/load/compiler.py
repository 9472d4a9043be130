# SPDX-License-Identifier: Apache-2.0
"""Compiles bpf/balloon.c with BCC, against stub headers: the kernel's own are not needed."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from balloontrace import events, sums
from balloontrace.errors import EXIT_FAILURE, EXIT_UNSUPPORTED, UserError
from balloontrace.tracers.attach import seams, state
from balloontrace.tracers.load import bytecode, packages
from balloontrace.tracers.machine import bpf_calls

_BPF = Path(__file__).parents[1] / "bpf"
_SOURCE = _BPF / "balloon.c"
_STUBS = _BPF / "stubs"

PROGRAMS = (
    *("kprobe_entry", "kprobe_return", "fentry", "fexit"),
    *dict.fromkeys(
        tracepoint.program
        for seam in seams.SEAMS
        for rung in seam.rungs
        for tracepoint in rung.tracepoints
    ),
)
"""The programs of bpf/balloon.c: those of each means of attachment, and of the tracepoints."""

FLAGS = (
    # The loader gives the maps their sizes.
    "-DCPUS=1",
    "-DRING_PAGES=1",
    # Newer BCC asks for x86's branch protection, which other machines do not have.
    "-fcf-protection=none",
    # Headers of kernels from 6.19 on need these of BCC's compiler; older ones do not mind.
    *("-fms-extensions", "-Wno-microsoft-anon-tag", "-Wno-unused-function"),
)
"""For BCC's compiler, beside where the stubs are."""


def flags() -> list[str]:
    """FLAGS, and where the headers are that stand in for the kernel's."""
    return [*FLAGS, f"-I{_STUBS}/include"]


def source() -> str:
    """The BPF program's text: the declarations of events.py, state.py and sums.py, then
    bpf/balloon.c."""
    declarations = events.c_header() + state.c_header() + sums.c_header()
    return f"#include <linux/types.h>\n{declarations}\n{_SOURCE.read_text()}"


def has_source() -> bool:
    """Whether what the programs are made of is here: the one file for guests (bundle.py)
    and the package with its content have bytecode only."""
    return _SOURCE.is_file()


def digest() -> str | None:
    """Of all that the programs are made of. None if that is not here."""
    if not has_source():
        return None
    import hashlib  # OpenSSL

    stubs = [path.read_text() for path in sorted(_STUBS.glob("**/*")) if path.is_file()]
    return hashlib.sha256("\0".join((source(), *stubs, *FLAGS)).encode()).hexdigest()


def compile_programs() -> bytecode.Compiled:
    """Every one of PROGRAMS, for this machine, or that which BCC's variable ARCH names. Raises
    UserError with the compiler's first complaint."""
    with _captured_output() as words:
        bpf = _compile(words)
    programs = {name: bpf.dump_func(name.encode()) for name in PROGRAMS}
    made = bytecode.map_descriptors(programs.values())
    return bytecode.unlinked(programs, {fd: bpf_calls.map_definition(fd) for fd in made})


def _compile(words: _Words) -> Any:
    """The compiled module, a bcc.BPF, which holds the maps."""
    os.environ["BCC_KERNEL_SOURCE"] = str(_STUBS)
    packages.find("bcc")
    import bcc

    try:
        return bcc.BPF(text=source(), cflags=flags())
    except Exception as error:
        complaint = words.first("error") or words.first("") or str(error)
        unsupported = "not permitted" in complaint or "Invalid argument" in complaint
        raise UserError(
            f"BCC {bcc.__version__} could not compile or load the probes: {complaint}",
            "is BPF disabled here (lockdown, CONFIG_BPF_SYSCALL)?" if unsupported else "",
            EXIT_UNSUPPORTED if unsupported else EXIT_FAILURE,
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
        for descriptor, copy in zip((1, 2), saved):
            os.dup2(copy, descriptor)
            os.close(copy)
