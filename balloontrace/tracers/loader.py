"""Compiles and attaches, in a child process that hands its descriptors over and is gone.

BCC with LLVM costs over 100 MiB. The child pays that once; what tracing needs afterwards is a
handful of file descriptors (maps, and the perf events that hold the attached programs), which go to
the recorder over a Unix socket. The recorder stays as small as Python is.
"""

from __future__ import annotations

import os
import signal
import socket
import threading
import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from balloontrace import __version__, events
from balloontrace.errors import EXIT_FAILURE, EXIT_UNSUPPORTED, UserError
from balloontrace.tracers import guest, handover, kernel, state
from balloontrace.tracers.btf import struct_offsets
from balloontrace.tracers.ring import ITEM_BYTES
from balloontrace.tracers.samplers.vmstat import balloon_counters
from balloontrace.tracers.seams import (
    DRIVER_MODULE,
    MEMBERS,
    MODULES,
    SEAMS,
    STRUCT,
    Probe,
    Rung,
    Seam,
    functions,
    why_not,
)
from balloontrace.tracers.symbols import Symbol, find_functions

_SOURCE = Path(__file__).parent / "bpf" / "balloon.c"
_STUBS = Path(__file__).parent / "bpf" / "stubs"
_RING_PAGE_BYTES = 4096

STAGES = (b"entered", b"returned")
"""The programs in the map `stages`, by index."""

_INSTALL = "apt install python3-bpfcc (Debian, Ubuntu), dnf install python3-bcc (Fedora)"


def start(ring_bytes: int, btf: bool) -> tuple[int, socket.socket]:
    """Fork the loader. Returns its process id and the socket on which it answers."""
    ours, theirs = handover.channel()
    pid = os.fork()
    if pid:
        theirs.close()
        return pid, ours
    try:
        ours.close()
        # Ctrl-C is the recorder's to handle; it goes to every process of the terminal's group.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        handover.send(theirs, _load(os.getppid(), ring_bytes, btf))
    except UserError as error:
        handover.send_error(theirs, error)
    except BaseException:
        last = traceback.format_exc().strip().splitlines()[-1]
        handover.send_error(theirs, UserError(f"the loader failed: {last}"))
    finally:
        os._exit(0)
    return 0, ours


def _load(recorder: int, ring_bytes: int, btf: bool) -> handover.Handover:
    """Everything the child does: look, compile, attach."""
    found: dict[str, list[Symbol]] = {}
    look = threading.Thread(target=lambda: found.update(find_functions(functions(), MODULES)))
    look.start()
    members = list(MEMBERS.values())
    offsets = struct_offsets(STRUCT, members, DRIVER_MODULE) if btf else None
    with _captured_output() as words:
        bpf = _compile(ring_bytes, offsets, words)
        look.join()
        before = balloon_counters()
        fill_stages(bpf)
        attached = _Attached(bpf, found, offsets is not None)
        seams = {seam.name: attached.seam(seam) for seam in SEAMS}
        after = balloon_counters()
    described = guest.describe(recorder)
    described["balloon"]["driver"]["symbols"] = sorted(found)
    header = {
        "tool": f"balloontrace {__version__}",
        **described,
        "seams": seams,
        "record": events.record_layout(),
        "ring_header_bytes": events.RING_HEADER_BYTES,
        "kinds": {kind.name: kind.number for kind in events.KINDS},
        "within": {bit.name: bit.number for bit in events.WITHIN},
        "queues": {bit.name: bit.number for bit in events.QUEUES},
        "flags": {bit.name: bit.number for bit in events.FLAGS},
        "vmstat_attach": {"before": before, "after": after},
        "ring_bytes": ring_bytes,
        "possible_cpus": guest.possible_cpus(),
    }
    maps = {name: bpf[name.encode()].map_fd for name in handover.MAPS}
    return handover.Handover(header, maps, attached.descriptors)


def _import_bcc() -> Any:
    """The BPF Compiler Collection's module. Raises UserError if it is not there, or is another."""
    try:
        import bcc
    except ImportError:
        raise UserError(
            "BCC, the BPF compiler, is not installed for this Python", _INSTALL, EXIT_UNSUPPORTED
        ) from None
    if not hasattr(bcc, "BPF"):
        raise UserError(
            "the 'bcc' found here is PyPI's unrelated lattice package",
            f"pip uninstall bcc; {_INSTALL}",
            EXIT_UNSUPPORTED,
        )
    return bcc


def source() -> str:
    """The BPF program's text: the declarations of events.py and state.py, then bpf/balloon.c."""
    declarations = events.c_header() + state.c_header()
    return f"#include <linux/types.h>\n{declarations}\n{_SOURCE.read_text()}"


def definitions(ring_bytes: int, offsets: Mapping[str, int] | None) -> list[str]:
    """Compiler flags: the constants balloon.c is compiled with."""
    constants = {
        "CPUS": guest.possible_cpus(),
        "RING_PAGES": ring_bytes // _RING_PAGE_BYTES,
        "WAKE_EVENTS": ring_bytes // ITEM_BYTES // 2,
    }
    if offsets is not None:
        constants.update({name: offsets[member] for name, member in MEMBERS.items()})
    # Headers of kernels from 6.19 on need these of BCC's compiler; older ones do not mind.
    flags = ["-fms-extensions", "-Wno-microsoft-anon-tag", "-Wno-unused-function"]
    return flags + [f"-D{name}={value}" for name, value in constants.items()]


def _compile(ring_bytes: int, offsets: Mapping[str, int] | None, words: _Words) -> Any:
    """The compiled module, a bcc.BPF. Raises UserError with the compiler's first complaint."""
    os.environ["BCC_KERNEL_SOURCE"] = str(_STUBS)
    bcc = _import_bcc()
    try:
        return bcc.BPF(text=source(), cflags=definitions(ring_bytes, offsets))
    except Exception as error:
        complaint = words.first("error") or words.first("") or str(error)
        unsupported = "not permitted" in complaint or "Invalid argument" in complaint
        raise UserError(
            f"BCC {bcc.__version__} could not compile or load the probes: {complaint}",
            "is BPF disabled here (lockdown, CONFIG_BPF_SYSCALL)?" if unsupported else "",
            EXIT_UNSUPPORTED if unsupported else EXIT_FAILURE,
        ) from None


def fill_stages(bpf: Any) -> None:
    """Load the programs that the others go on to (bpf/balloon.c)."""
    table = bpf[b"stages"]
    for number, stage in enumerate(STAGES):
        table[table.Key(number)] = table.Leaf(bpf.load_func(stage, bpf.KPROBE).fd)


class _Attached:
    """Attaches seams, each by the first rung that works, and keeps the descriptors."""

    def __init__(self, bpf: Any, symbols: Mapping[str, Sequence[Symbol]], btf: bool) -> None:
        from bcc.libbcc import lib

        self._bpf, self._lib, self._symbols, self._btf = bpf, lib, symbols, btf
        self.descriptors: list[int] = []
        self._programs: dict[str, int] = {}

    def seam(self, seam: Seam) -> dict[str, Any]:
        """Attach `seam`; returns its entry of the header: the rung used, or why there is none.

        Raises UserError if a required seam cannot be observed.
        """
        reasons: list[str] = []
        for rung in seam.rungs:
            reason = why_not(rung, self._symbols, self._btf) or self._rung(rung)
            if not reason:
                return {"rung": rung.name, "loses": rung.loses, "not": reasons}
            reasons.append(f"{rung.name}: {reason}")
        if seam.required:
            raise UserError(
                f"cannot trace the balloon's {seam.name} here: {'; '.join(reasons)}",
                exit_code=EXIT_UNSUPPORTED,
            )
        return {"rung": None, "loses": "", "not": reasons}

    def _rung(self, rung: Rung) -> str:
        """Attach all of a rung's probes or none; returns why not, or ''."""
        mark = len(self.descriptors)
        for probe in (*rung.probes, *rung.one_of):
            for symbol in self._symbols.get(probe.function, ()):
                if not self._probe(probe, symbol, len(self._symbols[probe.function]) > 1):
                    for descriptor in self.descriptors[mark:]:
                        os.close(descriptor)
                    del self.descriptors[mark:]
                    return f"the kernel refuses a probe on {symbol.name}"
        return ""

    def _probe(self, probe: Probe, symbol: Symbol, ambiguous: bool) -> bool:
        """Attach one function's programs, the return first: an entry alone would leave calls open.

        Where a name stands for several functions the address tells which; an empty name makes the
        kernel take the offset for an address (perf_kprobe_init in kernel/trace/trace_event_perf.c).
        """
        name = b"" if ambiguous else symbol.name.encode()
        offset = symbol.address if ambiguous else 0
        for is_return in (1, 0) if probe.call else (0,):
            program = self._program(probe, is_return)
            event = f"balloontrace_{probe.function}_{is_return}_{os.getpid()}".encode()
            descriptor = self._lib.bpf_attach_kprobe(program, is_return, event, name, offset, 0)
            if descriptor < 0:
                return False
            self.descriptors.append(descriptor)
        return True

    def _program(self, probe: Probe, is_return: int) -> int:
        """The descriptor of the program for one end of a probe, loaded once."""
        own = "" if is_return else probe.entry
        name = own or f"{probe.call}_{'return' if is_return else 'entry'}"
        if name not in self._programs:
            if own:
                self._programs[name] = self._bpf.load_func(own.encode(), self._bpf.KPROBE).fd
            else:
                template = self._bpf.dump_func(b"any_return" if is_return else b"any_entry")
                code = state.for_call(template, probe.call)
                self._programs[name] = kernel.load_kprobe_program(code, name)
        return self._programs[name]


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
