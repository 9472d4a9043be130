"""The seams of the balloon driver: where a probe goes, by which means, and what each means costs.

A seam has rungs in order of preference. A rung is usable if the kernel has its functions (looked up
in /proc/kallsyms) and, where it needs them, the driver's structure offsets from BTF; it is used if
its probes then attach. Kernel versions are never compared: distributions backport.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from balloontrace.tracers.symbols import Symbol

DRIVER_MODULE = "virtio_balloon"

MODULES = (DRIVER_MODULE, "virtio_pci", "virtio_mmio", "virtio_ring", "virtio_ccw")
"""The modules that hold the functions below, where they are not built in."""

STRUCT = "virtio_balloon"
MEMBERS = {
    "VB_NUM_PFNS": "num_pfns",
    "VB_NUM_PAGES": "num_pages",
    "VB_SIZE_WORK": "update_balloon_size_work",
}
"""Constants of bpf/balloon.c -> members of struct virtio_balloon whose offsets they are."""


class Probe(NamedTuple):
    """One kernel function and what runs there.

    call: the call of state.CALLS that is entered and left there, '' for none; entry: a program of
    its own for the entry, '' for the one every call has.
    """

    function: str
    call: str
    entry: str = ""


class Rung(NamedTuple):
    """One way to observe a seam.

    name: for people; probes: all needed, in order of attachment; one_of: probes of which at least
    one is needed, all that exist are attached; btf: needs the driver's structure offsets; loses:
    what this rung cannot tell that the one above it can.
    """

    name: str
    probes: Sequence[Probe] = ()
    one_of: Sequence[Probe] = ()
    btf: bool = False
    loses: str = ""


class Seam(NamedTuple):
    """One thing to observe and the ways to do it."""

    name: str
    rungs: Sequence[Rung]
    required: bool = False


def _calls(function: str, call: str) -> Rung:
    """The plain rung: entry and return of one function."""
    return Rung(function, [Probe(function, call)])


_TELL_HOST = Probe("tell_host", "ack")

_CONFIG_GETS = [
    Probe(function, "config", "config_entry")
    for function in ("vp_get", "vm_get", "virtio_ccw_get_config")
]
"""virtio_config_ops.get of the PCI transports (modern and legacy share the name), MMIO and CCW."""

SEAMS: tuple[Seam, ...] = (
    # Order of attachment. Migration goes first, because an ack inside of it moves no balloon pages;
    # then the ack, which stands in for a fill or leak that was entered before its own probe.
    Seam("migrate", [_calls("virtballoon_migratepage", "migrate")]),
    Seam(
        "ack",
        [
            Rung("tell_host, pages from vb->num_pfns", [_TELL_HOST], btf=True),
            Rung(
                "tell_host, pages from the length of its buffer",
                [Probe("virtqueue_add_outbuf", "", "outbuf_entry"), _TELL_HOST],
                loses="a probe hit for every buffer any virtio device sends",
            ),
        ],
        required=True,
    ),
    Seam(
        "target",
        [
            Rung("config read by the size worker", one_of=_CONFIG_GETS, btf=True),
            Rung(
                "config read by the size worker, without the balloon's size",
                one_of=_CONFIG_GETS,
                loses="what a fill was asked for",
            ),
        ],
    ),
    Seam("freeze", [_calls("virtballoon_freeze", "freeze")]),
    Seam("remove", [_calls("virtballoon_remove", "remove")]),
    Seam("oom_notify", [_calls("virtio_balloon_oom_notify", "oom")]),
    Seam("scan", [_calls("virtio_balloon_shrinker_scan", "scan")]),
    Seam("count", [_calls("virtio_balloon_shrinker_count", "count")]),
    Seam("leak", [_calls("leak_balloon", "leak")], required=True),
    Seam(
        "fill",
        [
            Rung(
                "size worker, pages from its acks",
                [Probe("update_balloon_size_func", "worker")],
            )
        ],
        required=True,
    ),
    Seam(
        "notice", [Rung("virtballoon_changed", [Probe("virtballoon_changed", "", "notice_entry")])]
    ),
)


def functions() -> list[str]:
    """Every kernel function that any rung names, each once."""
    names = [
        probe.function
        for seam in SEAMS
        for rung in seam.rungs
        for probe in (*rung.probes, *rung.one_of)
    ]
    return list(dict.fromkeys(names))


def why_not(rung: Rung, symbols: Mapping[str, Sequence[Symbol]], btf: bool) -> str:
    """Why `rung` cannot be used on this kernel; '' if it can be tried."""
    if rung.btf and not btf:
        return f"no BTF for struct {STRUCT} (/sys/kernel/btf/{DRIVER_MODULE})"
    missing = [probe.function for probe in rung.probes if probe.function not in symbols]
    if missing == [rung.name]:
        return "this kernel has no such function"
    if missing:
        return f"this kernel has no {', '.join(missing)}"
    if rung.one_of and not any(probe.function in symbols for probe in rung.one_of):
        return f"this kernel has none of {', '.join(probe.function for probe in rung.one_of)}"
    return ""
