"""Attaches the seams to the running kernel, each by the first rung that works.

Needs the loaded programs and no compiler: the loader does it at the start, and the recorder again
when the driver comes back.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from balloontrace.behaviour import NOT_OFFERED
from balloontrace.errors import EXIT_UNSUPPORTED, UserError
from balloontrace.events import BALLOON_PAGE_BYTES
from balloontrace.tracers import guest, probes, state
from balloontrace.tracers.btf import Btf
from balloontrace.tracers.driver import DRIVER_MODULE, identity
from balloontrace.tracers.samplers.vmstat import balloon_counters
from balloontrace.tracers.seams import (
    MODULES,
    OFFSETS,
    SEAMS,
    Probe,
    Rung,
    Seam,
    functions,
)
from balloontrace.tracers.symbols import Symbol, find_functions


class Attachment(NamedTuple):
    """What is attached: for the recording, and the descriptors that hold it.

    described: `seams`, `vmstat_attach`, `balloon`, `driver_identity`; probes: see
    handover.Handover.
    """

    described: dict[str, Any]
    probes: list[list[int]]


class Kernel:
    """What the running kernel has to attach to: its functions, and its structures' layout.

    Both are read on a thread, for the loader is waiting for its compiler meanwhile.
    """

    def __init__(self) -> None:
        self._symbols: dict[str, list[Symbol]] = {}
        self._layout: dict[str, int] = {}
        self._read = threading.Thread(target=self._look)
        self._read.start()

    def _look(self) -> None:
        self._symbols = find_functions(functions(), MODULES)
        self._layout = _offsets()

    def symbols(self) -> Mapping[str, Sequence[Symbol]]:
        """Function -> where the kernel has it; functions it does not have are left out."""
        self._read.join()
        return self._symbols

    def layout(self) -> Mapping[str, int]:
        """Keys of seams.OFFSETS -> bytes; what BTF does not tell is left out."""
        self._read.join()
        return self._layout


def _offsets() -> dict[str, int]:
    try:
        btf = Btf(DRIVER_MODULE)
    except (OSError, ValueError):
        return {}
    found = {key: btf.offset(*where) for key, where in OFFSETS.items()}
    return {key: value for key, value in found.items() if value is not None}


def hint_block_pages() -> int:
    """Balloon pages in a block of free page hinting: the largest the buddy allocator has.

    VIRTIO_BALLOON_HINT_BLOCK_ORDER is the kernel's largest order, MAX_ORDER - 1 until commit
    23baf831a32c "mm, treewide: redefine MAX_ORDER sanely" (in v6.4) and MAX_ORDER or MAX_PAGE_ORDER
    since; /proc/buddyinfo has one column for each order.
    """
    first = Path("/proc/buddyinfo").read_text(encoding="ascii").splitlines()[0]
    orders = len(first.partition("zone")[2].split()) - 1
    return (os.sysconf("SC_PAGE_SIZE") // BALLOON_PAGE_BYTES) << (orders - 1)


def attach(
    programs: Mapping[str, int], layout_map: int, kernel: Kernel, forced: Mapping[str, int]
) -> Attachment:
    """Attach every seam. programs: seams' programs by `program_name` -> descriptor; forced: seam ->
    number of the only rung to try, from 1.

    Raises UserError if a required seam cannot be observed.
    """
    rungs = _Rungs(programs, layout_map, kernel, forced)
    driver = identity()
    before = balloon_counters()
    try:
        seams = {seam.name: rungs.seam(seam) for seam in SEAMS}
    except UserError:
        rungs.close()
        raise
    after = balloon_counters()
    balloon = guest.describe_balloon()
    balloon["driver"]["symbols"] = sorted(kernel.symbols())
    described = {
        "seams": seams,
        "vmstat_attach": {"before": before, "after": after},
        "balloon": balloon,
        "driver_identity": driver,
    }
    return Attachment(described, rungs.groups())


def nothing() -> Attachment:
    """The attachment while there is no driver."""
    now = balloon_counters()
    described = {
        "seams": {},
        "vmstat_attach": {"before": now, "after": now},
        "balloon": guest.describe_balloon(),
        "driver_identity": 0,
    }
    return Attachment(described, [])


def program_name(program: str, call: str) -> str:
    """The name under which a program is kept, one for each call it is about."""
    return f"{program}:{call}" if call else program


class _Held(NamedTuple):
    """A descriptor that holds an attached program, and what says when it is to go."""

    descriptor: int
    is_return: bool
    frames_others: bool


class _Rungs:
    """Attaches seams one by one and keeps the descriptors."""

    def __init__(
        self,
        programs: Mapping[str, int],
        layout_map: int,
        kernel: Kernel,
        forced: Mapping[str, int],
    ) -> None:
        self._held: list[_Held] = []
        self._programs, self._layout_map, self._forced = programs, layout_map, forced
        self._kernel = kernel
        self._features = guest.features()
        self._layout = {"hint_block_pages": hint_block_pages()}

    def seam(self, seam: Seam) -> dict[str, Any]:
        """Attach `seam`; returns its entry of the header: the rung used, or why there is none.

        Raises UserError if a required seam cannot be observed.
        """
        reasons: list[str] = []
        if seam.feature and seam.feature not in self._features:
            return _untraced([f"{NOT_OFFERED} {seam.feature}"])
        for number, rung in enumerate(seam.rungs, 1):
            if self._forced.get(seam.name, number) != number:
                reason = "another rung was asked for"
            else:
                reason = self._why_not(rung) or self._attach(rung, seam.frames_others)
            if not reason:
                return {"rung": rung.name, "number": number, "loses": rung.loses, "not": reasons}
            reasons.append(f"{rung.name}: {reason}")
        if seam.required:
            raise UserError(
                f"cannot trace the balloon's {seam.name} here: {'; '.join(reasons)}",
                exit_code=EXIT_UNSUPPORTED,
            )
        return _untraced(reasons)

    def groups(self) -> list[list[int]]:
        """The descriptors in the order in which they are to be detached: entries, then returns, for
        an entry alone would leave calls open; last, one by one and backwards, those of the seams
        whose calls stand in for others or tell them apart."""
        free = [held for held in self._held if not held.frames_others]
        framing = [held for held in reversed(self._held) if held.frames_others]
        entries = [held.descriptor for held in free if not held.is_return]
        returns = [held.descriptor for held in free if held.is_return]
        return [entries, returns, *([held.descriptor] for held in framing)]

    def close(self, first: int = 0) -> None:
        """Detach what was attached, from the `first` on."""
        for held in self._held[first:]:
            os.close(held.descriptor)
        del self._held[first:]

    def _why_not(self, rung: Rung) -> str:
        """Why `rung` cannot be used on this kernel; '' if it can be tried."""
        if unset := [name for name in rung.needs if not self._layout.get(name)]:
            return f"not so here: {', '.join(dict(state.LAYOUT)[name] for name in unset)}"
        known = self._kernel.layout()
        if unknown := {OFFSETS[key][0] for key in rung.offsets if key not in known}:
            return f"no BTF for struct {', '.join(sorted(unknown))}"
        symbols = self._kernel.symbols()
        functions = [probe.place for probe in rung.probes if not probe.tracepoint]
        if missing := [function for function in functions if function not in symbols]:
            return "this kernel has no " + (
                "such function" if missing == [rung.name] else ", ".join(missing)
            )
        if rung.one_of and not any(probe.place in symbols for probe in rung.one_of):
            return f"this kernel has none of {', '.join(probe.place for probe in rung.one_of)}"
        several = [probe.place for probe in (*rung.probes, *rung.one_of)]
        if hidden := [f for f in several if not _told_apart(symbols.get(f, ()))]:
            return f"addresses are hidden, and this kernel has several {', '.join(hidden)}"
        changed = [s.name for function in functions for s in symbols[function] if s.altered]
        if changed and not rung.altered:
            return f"the compiler changed the arguments: {', '.join(changed)}"
        return ""

    def _attach(self, rung: Rung, frames_others: bool) -> str:
        """Attach all of a rung's probes or none; returns why not, or ''."""
        mark = len(self._held)
        layout = dict(self._layout)
        self._layout.update({key: self._kernel.layout()[key] for key in rung.offsets})
        self._layout.update(rung.settings)
        self._tell()
        try:
            for probe in (*rung.probes, *rung.one_of):
                self._probe(probe, frames_others)
        except OSError as error:
            self.close(mark)
            self._layout = layout
            self._tell()
            return f"the kernel refuses a probe ({error.strerror})"
        return ""

    def _tell(self) -> None:
        probes.update_element(self._layout_map, 0, state.pack_layout(self._layout))

    def _probe(self, probe: Probe, frames_others: bool) -> None:
        """Attach one probe wherever the kernel has its function. Raises OSError."""
        for program, is_return in probe.programs():
            descriptor = self._programs[program_name(program, probe.call)]
            if probe.tracepoint:
                attached = probes.attach_raw_tracepoint(descriptor, probe.place)
                self._held.append(_Held(attached, is_return, frames_others))
                continue
            places = self._kernel.symbols().get(probe.place, ())
            for symbol in places:
                address = symbol.address if len(places) > 1 else 0
                attached = probes.attach_kprobe(descriptor, is_return, symbol.name, address)
                self._held.append(_Held(attached, is_return, frames_others))


def _told_apart(places: Sequence[Symbol]) -> bool:
    """Whether each of the functions of one name can be attached to: by name if it is the only."""
    return len(places) <= 1 or all(symbol.address for symbol in places)


def _untraced(reasons: Sequence[str]) -> dict[str, Any]:
    return {"rung": None, "number": 0, "loses": "", "not": list(reasons)}
