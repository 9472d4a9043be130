# SPDX-License-Identifier: Apache-2.0
"""The means by which the programs of bpf/balloon.c are attached to functions of the kernel.

In order of preference. `kprobe.multi` is one link for all entries and one for all returns: it is
made and closed at once, and has no return probes to run out of. Where a kernel has no kprobes, as
those of micro-VMs, trampolines (fentry and fexit) may be there. Else a kprobe for each entry and
one for each return. All run the same programs.
"""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Generic, NamedTuple, TypeVar

from balloontrace.tracers.attach import state
from balloontrace.tracers.attach.seams import Probe
from balloontrace.tracers.attach.switches import FTRACE, KPROBES
from balloontrace.tracers.machine import bpf_calls, btf
from balloontrace.tracers.machine.symbols import Symbol


class Placed(NamedTuple):
    """A probe, and one of the places where this kernel has its function."""

    probe: Probe
    symbol: Symbol


class Refused(Exception):
    """Function -> why it cannot be attached to; '' stands for all of them."""

    def __init__(self, reasons: Mapping[str, str]) -> None:
        super().__init__(reasons)
        self.reasons = reasons


class Held(NamedTuple):
    """Descriptors, while they grow: what holds programs attached, and the programs."""

    probes: list[int]
    programs: list[int]

    def close(self) -> None:
        """Detach and unload everything."""
        for descriptor in (*self.probes, *self.programs):
            os.close(descriptor)
        self.probes.clear()
        self.programs.clear()

    def load(
        self,
        code: bytes,
        name: str,
        kind: bpf_calls.ProgramType = bpf_calls.KPROBE,
        btf_id: int = 0,
        btf_fd: int = 0,
    ) -> int:
        """Load a program and hold it; returns its descriptor. Raises OSError."""
        program = bpf_calls.load_program(code, name, kind, btf_id, btf_fd)
        self.programs.append(program)  # whose last may be another thread's by now
        return program


class Means(NamedTuple):
    """One means.

    name: for people; attach: the probes, in all their places, with programs of that bytecode;
    raises Refused if one cannot be; unable: why this means cannot tell a probe's places apart, ''
    if it can; switches: what can switch it off.
    """

    name: str
    attach: Callable[[Mapping[str, bytes], Sequence[Placed], Held], None]
    unable: Callable[[Sequence[Symbol]], str]
    switches: tuple[str, ...]


Key = TypeVar("Key", bound=Hashable)


class Wanted(NamedTuple):
    """A program to be loaded: see bpf_calls.load_program. function: of whose refusal it is."""

    function: str
    code: bytes
    name: str
    kind: bpf_calls.ProgramType = bpf_calls.KPROBE
    btf_id: int = 0
    btf_fd: int = 0


_MOST_LOADERS = 4
"""Threads that load, the one that attaches among them."""

_STACK_BYTES = 1 << 18
"""Of each thread beside: one of 8 MiB would be charged for where the guest may not overcommit."""


class Loading(Generic[Key]):
    """Programs that are being loaded, in order, on several CPUs: the verifier is half of what
    attaching takes. Those that are there can be attached while others are not yet. As a context
    manager it ends with nothing under way."""

    def __init__(self, wanted: Mapping[Key, Wanted], held: Held) -> None:
        self._wanted, self._held = wanted, held
        self._waiting = list(wanted)[::-1]
        self._loaded: dict[Key, int | Exception] = {}
        self._more = threading.Condition()
        self._beside: list[threading.Thread] = []

    def __enter__(self) -> Loading[Key]:
        number = min(_MOST_LOADERS, len(self._wanted), len(os.sched_getaffinity(0)))
        threading.stack_size(_STACK_BYTES)
        for _ in range(1, number):
            thread = threading.Thread(target=self._load_all)
            try:
                thread.start()
            except RuntimeError:  # no more tasks, or no memory for one: those that are there do
                break
            self._beside.append(thread)
        return self

    def __exit__(self, *_: object) -> None:
        self._waiting.clear()
        for thread in self._beside:
            thread.join()

    def __getitem__(self, key: Key) -> int:
        """A program's descriptor. Raises Refused if it is refused."""
        while key not in self._loaded:
            if not self._load_next():
                with self._more:
                    self._more.wait_for(lambda: key in self._loaded)
        loaded = self._loaded[key]
        if isinstance(loaded, OSError):
            raise Refused({self._wanted[key].function: str(loaded.strerror)})
        if isinstance(loaded, Exception):
            raise loaded
        return loaded

    def _load_all(self) -> None:
        while self._load_next():
            pass

    def _load_next(self) -> bool:
        """Load one that nobody has begun; returns whether there was one."""
        try:
            key = self._waiting.pop()
        except IndexError:
            return False
        loaded: int | Exception
        try:
            loaded = self._held.load(*self._wanted[key][1:])
        except Exception as error:  # who waits for it is told, whatever it is
            loaded = error
        with self._more:
            self._loaded[key] = loaded
            self._more.notify_all()
        return True


def _attach_all(code: Mapping[str, bytes], placed: Sequence[Placed], held: Held) -> None:
    """Two links. Whose fault a refusal is, the kernel does not say: each place is tried alone."""
    if bpf_calls.without_kprobe_multi():
        raise Refused({"": os.strerror(errno.EOPNOTSUPP)})  # before anything is verified for it
    entries = _cookies([place for place in placed if place.probe.enters])
    returns = _cookies([place for place in placed if place.probe.returns])
    names = ("kprobe_return", "returns"), ("kprobe_entry", "entries")
    wanted = {name: Wanted("", code[name], shown, bpf_calls.KPROBE_MULTI) for name, shown in names}
    with Loading(wanted, held) as loaded:
        at_return, at_entry = loaded["kprobe_return"], loaded["kprobe_entry"]
    try:
        held.probes.append(bpf_calls.attach_kprobes(at_return, True, returns))
        held.probes.append(bpf_calls.attach_kprobes(at_entry, False, entries))
    except OSError as error:
        alone = _refused_alone(at_entry, placed)
        every = len(alone) in (0, len({place.probe.function for place in placed}))
        raise Refused({"": str(error.strerror)} if every else alone) from None


def _cookies(placed: Sequence[Placed]) -> dict[int, int]:
    """Address -> the number of the call that is there."""
    return {place.symbol.address: state.number_of_call(place.probe.call) for place in placed}


def _refused_alone(program: int, placed: Sequence[Placed]) -> dict[str, str]:
    reasons: dict[str, str] = {}
    for place in placed:
        try:
            os.close(bpf_calls.attach_kprobes(program, False, _cookies([place])))
        except OSError as error:
            reasons[place.probe.function] = str(error.strerror)
    return reasons


class _End(NamedTuple):
    """Of a function: its return, or its entry. kprobe, trampoline: the programs that run there, the
    latter loaded as `kind`."""

    is_return: bool
    kprobe: str
    trampoline: str
    kind: bpf_calls.ProgramType

    def of(self, placed: Sequence[Placed]) -> list[Placed]:
        """Those that have it traced."""
        return [at for at in placed if (at.probe.returns if self.is_return else at.probe.enters)]


_ENDS = (
    _End(True, "kprobe_return", "fexit", bpf_calls.FEXIT),
    _End(False, "kprobe_entry", "fentry", bpf_calls.FENTRY),
)


def _attach_pairs(code: Mapping[str, bytes], placed: Sequence[Placed], held: Held) -> None:
    """A kprobe for each entry and one for each return, these first: an entry alone would leave
    calls open."""
    ends = [(end, place) for end in _ENDS for place in end.of(placed)]
    wanted = {
        (end, probe.call): Wanted(
            probe.function,
            state.for_call(code[end.kprobe], probe.call),
            _shown(end.kprobe, probe.call),
        )
        for end, (probe, _) in ends
    }
    with Loading(wanted, held) as loaded:
        for end, (probe, symbol) in ends:
            program = loaded[end, probe.call]
            try:
                held.probes.append(
                    bpf_calls.attach_kprobe(program, end.is_return, symbol.name, symbol.address)
                )
            except OSError as error:
                raise Refused({probe.function: str(error.strerror)}) from None


def _attach_trampolines(code: Mapping[str, bytes], placed: Sequence[Placed], held: Held) -> None:
    """A program of its own for the entry of each function and for its return."""
    try:
        found = btf.functions({(place.symbol.name, place.symbol.module) for place in placed})
    except (OSError, ValueError) as error:
        raise Refused({"": f"no BTF ({error})"}) from None
    modules: dict[str, int] = {"": 0}
    ends = [(end, place) for end in _ENDS for place in end.of(placed)]
    wanted: dict[tuple[_End, Placed], Wanted] = {}
    for end, place in ends:
        probe, symbol = place
        try:
            number, module = found[symbol.name, symbol.module]
            if module not in modules:
                modules[module] = bpf_calls.module_btf(module)
                held.programs.append(modules[module])
        except KeyError:
            raise Refused({probe.function: "BTF does not know it"}) from None
        except OSError as error:
            raise Refused({probe.function: str(error.strerror)}) from None
        ours = state.for_call(code[end.trampoline], probe.call)
        shown = _shown(end.trampoline, probe.call)
        wanted[end, place] = Wanted(probe.function, ours, shown, end.kind, number, modules[module])
    with Loading(wanted, held) as loaded:
        for end, place in ends:
            program = loaded[end, place]
            try:
                held.probes.append(bpf_calls.attach_trampoline(program))
            except OSError as error:
                raise Refused({place.probe.function: str(error.strerror)}) from None


def _shown(template: str, call: str) -> str:
    """A program's name for bpftool, of which the kernel keeps 15 characters."""
    return f"{call}_{template.removeprefix('kprobe_')}"


def _need_addresses(places: Sequence[Symbol]) -> str:
    return "" if all(symbol.address for symbol in places) else "addresses are hidden"


def _told_apart(places: Sequence[Symbol]) -> str:
    if len(places) <= 1 or all(symbol.address for symbol in places):
        return ""
    return "addresses are hidden, and this kernel has several"


def _only_one(places: Sequence[Symbol]) -> str:
    return "" if len(places) <= 1 else "BTF does not tell several functions of that name apart"


MULTI = Means("kprobe.multi", _attach_all, _need_addresses, (FTRACE,))
TRAMPOLINES = Means("fentry", _attach_trampolines, _only_one, (FTRACE,))
PAIRS = Means("kprobe", _attach_pairs, _told_apart, (FTRACE, KPROBES))

MEANS = (MULTI, TRAMPOLINES, PAIRS)


def preferred() -> tuple[Means, ...]:
    """All means, in the order in which they are to be tried on this kernel."""
    if bpf_calls.KPROBE_EVENTS.exists():
        return (MULTI, PAIRS, TRAMPOLINES)
    return (MULTI, TRAMPOLINES, PAIRS)
