# SPDX-License-Identifier: Apache-2.0
"""Attaches the seams to the running kernel, each by the first rung that works.

Needs the compiled programs and no compiler: the loader does it at the start, and a child of the
recorder again when the driver comes back.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from balloontrace.errors import EXIT_UNSUPPORTED, UserError
from balloontrace.events import BALLOON_PAGE_BYTES
from balloontrace.tracers.attach import means, state, switches
from balloontrace.tracers.attach.forced import Forced
from balloontrace.tracers.attach.kernel import Kernel
from balloontrace.tracers.attach.means import Held, Loading, Means, Placed, Refused, Wanted
from balloontrace.tracers.attach.seams import (
    OFFSETS,
    SEAMS,
    Probe,
    Rung,
    Seam,
)
from balloontrace.tracers.machine import balloon, bpf_calls, namespaces, overcommit
from balloontrace.tracers.machine.symbols import Symbol


class Attachment(NamedTuple):
    """What is attached: for the recording (`seams`, `means`, `balloon`, `driver_identity`), and the
    descriptors that hold it."""

    described: dict[str, Any]
    held: Held


NO_RUNG = {"rung": None, "number": 0, "loses": ""}
"""Of a seam that is not attached, in the header."""


def _page_pages() -> int:
    """Balloon pages in a page of the kernel."""
    return os.sysconf("SC_PAGE_SIZE") // BALLOON_PAGE_BYTES


def hint_block_pages() -> int:
    """Balloon pages in a block of free page hinting: the largest the buddy allocator has.

    VIRTIO_BALLOON_HINT_BLOCK_ORDER is the kernel's largest order, MAX_ORDER - 1 until commit
    23baf831a32c "mm, treewide: redefine MAX_ORDER sanely" (in v6.4) and MAX_ORDER or MAX_PAGE_ORDER
    since; /proc/buddyinfo has one column for each order.
    """
    first = Path("/proc/buddyinfo").read_text(encoding="ascii").splitlines()[0]
    orders = len(first.partition("zone")[2].split()) - 1
    return _page_pages() << (orders - 1)


def _machine_layout(kernel: Kernel) -> dict[str, int]:
    """The entries of state.LAYOUT that neither a seam nor the recorder sets."""
    device, inode = namespaces.pid_namespace()
    return {
        "task_flags": 0 if namespaces.is_initial() else kernel.layout().get("task_flags", 0),
        "hint_block_pages": hint_block_pages(),
        "page_pages": _page_pages(),
        "pid_ns_inode": inode,
        "pid_ns_device": device,
    }


def attach(
    code: Mapping[str, bytes],
    layout_map: int,
    kernel: Kernel,
    settings: Mapping[str, int],
    forced: Forced,
) -> Attachment:
    """Attach every seam by the first means that the kernel has. code: the programs, linked;
    settings: entries of state.LAYOUT that are the recorder's to decide.

    Raises UserError if a required seam cannot be observed by any.
    """
    reasons: list[str] = []
    remedies: list[str] = []
    for candidate in means.preferred():
        if forced.means not in ("", candidate.name):
            continue
        if remedy := switches.remedy(candidate.switches):
            # Nothing is attached then, for kernels do not always survive that ftrace is switched on
            # again under what was (seen with 5.10 and 6.1).
            reasons.append(f"{candidate.name}: switched off")
            remedies.append(remedy)
            continue
        layout = {**_machine_layout(kernel), **settings}
        trial = _Trial(candidate, kernel, forced.rungs, layout)
        try:
            described, held = trial.attach(code, layout_map)
        except Refused as refusal:
            reasons.append(f"{candidate.name}: {'; '.join(refusal.reasons.values())}")
            continue
        used = {"used": candidate.name, "not": reasons}
        return Attachment({**described, "means": used, **driver(kernel)}, held)
    raise UserError(
        f"kernel {os.uname().release} lets no probe be attached: {', '.join(reasons)}",
        next(iter(remedies), "")
        or "it needs kprobes for BPF (CONFIG_KPROBE_EVENTS), or BTF and ftrace's direct calls",
        EXIT_UNSUPPORTED,
    )


def nothing() -> Attachment:
    """The attachment while there is no driver."""
    described = {
        "seams": {},
        "calls": {},
        "means": {"used": None, "not": []},
        "balloon": balloon.describe(),
        "driver_identity": 0,
    }
    return Attachment(described, Held([], []))


def driver(kernel: Kernel) -> dict[str, Any]:
    """The balloon and its driver. Raises UserError if the kernel does not tell its functions."""
    described = balloon.describe()
    described["driver"]["symbols"] = sorted(kernel.symbols())
    return {"balloon": described, "driver_identity": kernel.driver}


class _Trial:
    """One means, and for each seam the first rung that can be had by it."""

    def __init__(
        self, by: Means, kernel: Kernel, forced: Mapping[str, int], layout: Mapping[str, int]
    ) -> None:
        self._means, self._kernel, self._forced = by, kernel, forced
        self._machine = dict(layout)
        self._layout: dict[str, int] = {}
        self._features = balloon.features()
        self._transport = balloon.transport(balloon.device()) or "pci"  # what can be plugged in
        self._refused: dict[str, str] = {}

    def attach(self, code: Mapping[str, bytes], layout_map: int) -> tuple[dict[str, Any], Held]:
        """`seams`, `calls` and `fill_from` of the header, and what holds the seams.

        Raises Refused if the means, or by it a required seam, is not to be had.
        """
        while True:
            self._layout = dict(self._machine)
            chosen = {seam.name: self._choose(seam) for seam in SEAMS}
            rungs = [rung for rung, _ in chosen.values() if rung]
            bpf_calls.update_element(layout_map, 0, state.pack_layout(self._layout))
            held = Held([], [])
            placed = self._placed(rungs)
            try:
                self._means.attach(code, placed, held)
                self._attach_tracepoints(code, rungs, held)
            except Refused as refusal:
                held.close()
                if "" in refusal.reasons or refusal.reasons.keys() <= self._refused.keys():
                    raise
                self._refused.update(refusal.reasons)
                continue
            described = {
                "seams": {name: described for name, (_, described) in chosen.items()},
                "calls": _functions_of_calls(placed),
                "fill_from": state.FILL_FROM[self._layout.get("fill_from", 0)],
            }
            return described, held

    def _choose(self, seam: Seam) -> tuple[Rung | None, dict[str, Any]]:
        """The rung to use for `seam`, if there is one, and the seam's entry of the header.

        Raises Refused if a required seam cannot be observed by this means.
        """
        reasons: list[str] = []
        for number, rung in enumerate(seam.rungs, 1):
            if self._forced.get(seam.name, number) != number:
                reason = "another rung was asked for"
            elif rung.all_devices and seam.feature not in self._features:
                reason = f"{seam.feature} is not negotiated, and other devices would pay"
            elif rung.by_commit_limit and not overcommit.is_refused():
                reason = "the guest overcommits (vm.overcommit_memory), and every fork would pay"
            else:
                reason = self._why_not(rung)
            if not reason:
                self._layout.update({key: self._kernel.layout()[key] for key in rung.offsets})
                self._layout.update(rung.settings)
                described = {"rung": rung.name, "number": number, "loses": rung.loses}
                return rung, {**described, "not": reasons, "feature": seam.feature}
            reasons.append(f"{rung.name}: {reason}")
        if seam.required:
            raise Refused({"": f"cannot trace the balloon's {seam.name}: {'; '.join(reasons)}"})
        return None, {**NO_RUNG, "not": reasons, "feature": seam.feature}

    def _why_not(self, rung: Rung) -> str:
        """Why `rung` cannot be used on this kernel; '' if it can be tried."""
        if unset := [name for name in rung.needs if not self._layout.get(name)]:
            return f"not so here: {', '.join(dict(state.LAYOUT)[name] for name in unset)}"
        if rung.feature and self._features and rung.feature not in self._features:
            return f"{rung.feature} is not negotiated"
        probes, one_of = self._on_transport(rung.probes), self._on_transport(rung.one_of)
        if len(probes) < len(rung.probes) or len(one_of) < bool(rung.one_of):
            return f"says nothing of devices on {self._transport.upper()}"
        known = self._kernel.layout()
        if unknown := {OFFSETS[key][0] for key in rung.offsets if key not in known}:
            return f"no BTF for struct {', '.join(sorted(unknown))}"
        symbols = self._kernel.symbols()
        if missing := [p.function for p in rung.probes if p.function not in symbols]:
            return "this kernel has no " + (
                "such function" if missing == [rung.name] else ", ".join(missing)
            )
        if one_of and not any(probe.function in symbols for probe in one_of):
            return f"this kernel has none of {', '.join(probe.function for probe in one_of)}"
        refused = [reason for probe in rung.probes if (reason := self._refusal(probe))]
        if not refused and one_of and not self._usable(one_of):
            refused = [self._refusal(probe) for probe in one_of]
        for tracepoint in rung.tracepoints:
            if reason := self._refused.get(tracepoint.name, ""):
                refused.append(f"the kernel refuses {tracepoint.name} ({reason})")
        return next(filter(None, refused), "")

    def _refusal(self, probe: Probe) -> str:
        """Why `probe` cannot be attached; '' if it can be tried, or is not there."""
        places = self._places(probe)
        changed = [symbol.name for symbol in places if symbol.altered]
        if changed and probe.arguments:
            return f"the compiler changed the arguments: {', '.join(changed)}"
        if places and (reason := self._means.unable(places)):
            return f"{reason} ({probe.function})"
        if reason := self._refused.get(probe.function, ""):
            return f"the kernel refuses a probe ({reason})"
        return ""

    def _places(self, probe: Probe) -> Sequence[Symbol]:
        """Where the kernel has the function. Given a name, it takes the first it lists itself."""
        symbols = self._kernel.symbols()
        places = symbols.get(probe.function, ())
        if len(places) < 2 or not {*probe.beside} or not {*probe.beside} <= symbols.keys():
            return places
        ours, other = (symbols[name][0].address for name in probe.beside)
        only = (min if ours < other else max)(places, key=lambda symbol: symbol.address)
        return [only] if only.address and only == places[0] else places

    def _on_transport(self, probes: Iterable[Probe]) -> list[Probe]:
        """Those that say something of our device."""
        return [probe for probe in probes if probe.transport in ("", self._transport)]

    def _usable(self, probes: Iterable[Probe]) -> list[Probe]:
        symbols, ours = self._kernel.symbols(), self._on_transport(probes)
        return [p for p in ours if p.function in symbols and not self._refusal(p)]

    def _placed(self, rungs: Sequence[Rung]) -> list[Placed]:
        """Every probe of `rungs`, each once, in all its places."""
        probes = [probe for rung in rungs for probe in (*rung.probes, *self._usable(rung.one_of))]
        by_function = {probe.function: probe for probe in probes}
        return [
            Placed(probe, symbol)
            for probe in by_function.values()
            for symbol in self._places(probe)
        ]

    def _attach_tracepoints(
        self, code: Mapping[str, bytes], rungs: Sequence[Rung], held: Held
    ) -> None:
        """Raises Refused."""
        wanted = {
            at: Wanted(at.name, code[at.program], at.program, bpf_calls.RAW_TRACEPOINT)
            for rung in rungs
            for at in rung.tracepoints
        }
        with Loading(wanted, held) as loaded:
            for at in wanted:
                program = loaded[at]
                try:
                    held.probes.append(bpf_calls.attach_raw_tracepoint(program, at.name))
                except OSError as error:
                    raise Refused({at.name: str(error.strerror)}) from None


def _functions_of_calls(placed: Sequence[Placed]) -> dict[str, list[str]]:
    """Call -> the functions that it is on this kernel."""
    found: dict[str, list[str]] = {}
    for probe, symbol in placed:
        found.setdefault(probe.call, []).append(symbol.name)
    return {call: list(dict.fromkeys(names)) for call, names in found.items()}
