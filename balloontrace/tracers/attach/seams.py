# SPDX-License-Identifier: Apache-2.0
"""The seams of the balloon driver: where a probe goes, by which means, and what each means costs.

A seam has rungs in order of preference. A rung is usable if the kernel has its functions (looked up
in /proc/kallsyms), the seams it builds upon are traced, and BTF tells the offsets it needs; it is
used if its probes then attach. Kernel versions are never compared: distributions backport.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from balloontrace.tracers.attach.state import FILL_FROM
from balloontrace.tracers.machine.balloon import DRIVER_MODULE
from balloontrace.tracers.machine.btf import SIZE, UP_TO_NEXT

MODULES = (DRIVER_MODULE, "virtio_pci", "virtio_mmio", "virtio_ring", "virtio_ccw")
"""The modules that hold the functions below, where they are not built in."""

OFFSETS = {
    "num_pfns": ("virtio_balloon", "num_pfns"),
    "num_pages": ("virtio_balloon", "num_pages"),
    "size_work": ("virtio_balloon", "update_balloon_size_work"),
    "free_blocks": ("virtio_balloon", "num_free_page_blocks"),
    "hint_work": ("virtio_balloon", "report_free_page_work"),
    "sg_bytes": ("scatterlist", SIZE),
    "task_comm": ("task_struct", "comm"),
    "task_tgid": ("task_struct", "tgid"),
    "task_flags": ("task_struct", "flags"),
    "oom_memcg": ("oom_control", "memcg"),
    "stats_work": ("virtio_balloon", "update_balloon_stats_work"),
    "stats": ("virtio_balloon", "stats"),
    "stats_bytes": ("virtio_balloon", f"{UP_TO_NEXT}stats"),
}
"""Entries of state.LAYOUT that BTF knows -> structure and member, or what btf.py takes for one."""


class Probe(NamedTuple):
    """A function of the kernel and what it is to bpf/balloon.c.

    call: a call or a moment of state.py; returns, enters: its return, its entry is traced;
    arguments: they must be those of its source, which a compiler may change; transport: of
    balloon.TRANSPORTS, of other devices it says nothing; beside: of several functions of that name
    it is the one in the source file of the first of these two, not that of the second. A linker
    keeps files together.
    """

    function: str
    call: str
    returns: bool = True
    enters: bool = True
    arguments: bool = True
    transport: str = ""
    beside: tuple[str, ...] = ()


class Tracepoint(NamedTuple):
    """A raw tracepoint and the program of bpf/balloon.c that runs there."""

    name: str
    program: str


class Rung(NamedTuple):
    """One way to observe a seam.

    name: for people; probes and tracepoints: all needed; one_of: probes of which at least one is
    needed, all that exist for the device's transport are attached; offsets: keys of OFFSETS it
    needs; settings: entries of state.LAYOUT it sets; needs: those that a seam before it must have
    set; loses: what this rung cannot tell that the one above it can; feature: what it sees happens
    only if that is negotiated; all_devices: its probes are hit by what other devices do, too, which
    is not worth while as long as the seam's feature is not negotiated; by_commit_limit: every fork
    and mmap of the guest hits it, and only a guest that never overcommits has anything to tell.
    """

    name: str
    probes: Sequence[Probe] = ()
    one_of: Sequence[Probe] = ()
    tracepoints: Sequence[Tracepoint] = ()
    offsets: Sequence[str] = ()
    settings: Mapping[str, int] = {}
    needs: Sequence[str] = ()
    loses: str = ""
    feature: str = ""
    all_devices: bool = False
    by_commit_limit: bool = False


class Seam(NamedTuple):
    """One thing to observe and the ways to do it.

    feature: it happens only once this one (of balloon.FEATURES) is negotiated, which may be later:
    a device can be bound, or plugged in, while it is traced; required: a recording without it is
    worth nothing.
    """

    name: str
    rungs: Sequence[Rung]
    feature: str = ""
    required: bool = False


def _plain(function: str, call: str) -> Rung:
    """The rung that is one function's entry and return."""
    return Rung(function, [Probe(function, call)])


_TELL_HOST = Probe("tell_host", "ack")
_WORKER = Probe("update_balloon_size_func", "worker")
_HINT = Probe("report_free_page_func", "hint")
_STATS = Probe("update_balloon_stats_func", "stats")
_OUT_OF_MEMORY = Probe("out_of_memory", "out_of_memory")
_OOM_KILL = Probe("__oom_kill_process", "oom_kill", arguments=False)
_MARK_VICTIM = Probe("mark_oom_victim", "victim", returns=False)
_VICTIM_MARKED = Tracepoint("mark_victim", "victim_tracepoint")

_CONFIG_GETS = [
    Probe("vp_get", "config", transport="pci"),
    Probe("vm_get", "config", transport="mmio"),
    Probe("virtio_ccw_get_config", "config", transport="ccw"),
]
"""virtio_config_ops.get of the PCI transports (modern and legacy share the name), MMIO and CCW."""

_MODERN_GET = _CONFIG_GETS[0]._replace(
    beside=("virtio_pci_modern_probe", "virtio_pci_legacy_probe")
)
"""Alone, for a means that can have but the first function of a name."""

_VICTIM = ("task_comm", "task_tgid", "oom_memcg")

_EVERY_SEND = "a probe hit for every buffer any virtio device sends"
_EVERY_RECEIVE = "a probe hit for every buffer any virtio device receives into"
_NO_NAME = "the victim's name on kernels whose tracepoint gives its thread id only"
_EVERY_MARK = "kills apart from marks of tasks that were about to exit anyway"

SEAMS: tuple[Seam, ...] = (
    # In this order, for what a rung needs must be set by a seam before it.
    Seam("proof", [_plain("vmstat_start", "proof")]),
    Seam("migrate", [_plain("virtballoon_migratepage", "migrate")]),
    Seam(
        "ack",
        [
            Rung(
                "tell_host, pages from vb->num_pfns",
                [_TELL_HOST],
                offsets=["num_pfns"],
                settings={"ack_pages": 1},
            ),
            Rung(
                "tell_host, pages from the length of its buffer",
                [_TELL_HOST, Probe("virtqueue_add_outbuf", "outbuf", returns=False)],
                settings={"ack_pages": 1},
                loses=_EVERY_SEND,
            ),
            Rung(
                "tell_host, without pages",
                [_TELL_HOST._replace(arguments=False)],
                loses="pages and queue of an ack",
            ),
        ],
    ),
    Seam(
        "target",
        [
            Rung(
                "config read by the size worker",
                one_of=_CONFIG_GETS,
                offsets=["num_pages", "size_work"],
            ),
            Rung(
                "config read by the size worker from a modern PCI device",
                [_MODERN_GET],
                offsets=["num_pages", "size_work"],
                feature="version_1",
            ),
            Rung(
                "config read by the size worker, without the balloon's size",
                one_of=_CONFIG_GETS,
                loses="what a fill was asked for",
            ),
        ],
    ),
    Seam("restore", [_plain("virtballoon_restore", "restore")]),
    Seam("freeze", [_plain("virtballoon_freeze", "freeze")]),
    Seam("remove", [_plain("virtballoon_remove", "remove")]),
    Seam("bind", [_plain("virtballoon_probe", "bind")]),
    Seam("oom_notify", [_plain("virtio_balloon_oom_notify", "oom")]),
    Seam("scan", [_plain("virtio_balloon_shrinker_scan", "scan")]),
    Seam("count", [_plain("virtio_balloon_shrinker_count", "count")]),
    Seam(
        "leak",
        [
            _plain("leak_balloon", "leak")._replace(settings={"leak_arguments": 1}),
            Rung(
                "leak_balloon, however the compiler changed its arguments",
                [Probe("leak_balloon", "leak", arguments=False)],
                loses="what a leak was asked for",
            ),
            Rung(
                "acks on the deflate queue",
                settings={"leak_from_acks": 1},
                needs=["ack_pages"],
                loses="what a leak was asked for, and its time but for the host's ack",
            ),
        ],
        required=True,
    ),
    Seam(
        "fill",
        [
            Rung(
                "fill_balloon",
                [Probe("fill_balloon", "fill"), _WORKER],
                settings={"fill_from": FILL_FROM.index("fill_balloon")},
            ),
            Rung("size worker, pages from its acks", [_WORKER], needs=["ack_pages"]),
            Rung(
                "size worker, pages from balloon_page_enqueue",
                [Probe("balloon_page_enqueue", "enqueue", returns=False), _WORKER],
                settings={"fill_from": FILL_FROM.index("enqueues")},
                loses="a probe hit for every page",
            ),
        ],
        required=True,
    ),
    Seam(
        "notice",
        [Rung("virtballoon_changed", [Probe("virtballoon_changed", "notice", returns=False)])],
    ),
    Seam("reporting", [_plain("page_reporting_process", "reporting")], feature="reporting"),
    Seam(
        "report",
        [
            Rung(
                "virtballoon_free_page_report",
                [Probe("virtballoon_free_page_report", "report")],
                offsets=["sg_bytes"],
            ),
            Rung(
                "virtballoon_free_page_report, without pages",
                [Probe("virtballoon_free_page_report", "report")],
                loses="the pages reported",
            ),
        ],
        feature="reporting",
    ),
    Seam(
        "hint",
        [
            Rung(
                "report_free_page_func, pages from vb->num_free_page_blocks",
                [_HINT],
                offsets=["free_blocks", "hint_work"],
            ),
            Rung(
                "report_free_page_func, pages from its receive buffers",
                [_HINT, Probe("virtqueue_add_inbuf", "inbuf", returns=False)],
                settings={"hint_inbufs": 1},
                loses=f"pages taken back; {_EVERY_RECEIVE}",
                all_devices=True,
            ),
            Rung("report_free_page_func", [_HINT], loses="the pages lent"),
        ],
        feature="free_page_hint",
    ),
    Seam(
        "stats_ask",
        [Rung("stats_request", [Probe("stats_request", "stats_ask", returns=False)])],
        feature="stats_vq",
    ),
    Seam(
        "stats",
        [
            Rung(
                "update_balloon_stats_func, values from vb->stats",
                [_STATS],
                offsets=["stats", "stats_bytes", "stats_work"],
            ),
            Rung("update_balloon_stats_func", [_STATS], loses="the values sent"),
        ],
        feature="stats_vq",
    ),
    Seam(
        "refuse",
        [
            Rung(
                "return of __vm_enough_memory",
                [Probe("__vm_enough_memory", "refuse", enters=False, arguments=False)],
                by_commit_limit=True,
            )
        ],
    ),
    Seam("sleep", [Rung("msleep within the size worker", [Probe("msleep", "sleep")])]),
    Seam(
        "reclaim",
        [
            Rung(
                "mm_vmscan_direct_reclaim within the size worker",
                tracepoints=[
                    Tracepoint("mm_vmscan_direct_reclaim_end", "reclaim_end"),
                    Tracepoint("mm_vmscan_direct_reclaim_begin", "reclaim_begin"),
                ],
            ),
            Rung(
                "try_to_free_pages within the size worker",
                [Probe("try_to_free_pages", "reclaim")],
                loses="returns, when many tasks reclaim at once",
            ),
        ],
    ),
    Seam(
        "compact",
        [
            Rung(
                "mm_compaction within the size worker",
                tracepoints=[
                    Tracepoint("mm_compaction_end", "compact_end"),
                    Tracepoint("mm_compaction_begin", "compact_begin"),
                ],
            )
        ],
    ),
    Seam(
        "kswapd_wake",
        [
            Rung(
                "mm_vmscan_wakeup_kswapd within the size worker",
                tracepoints=[Tracepoint("mm_vmscan_wakeup_kswapd", "kswapd_tracepoint")],
            )
        ],
    ),
    Seam(
        "oom_kill",
        [
            Rung(
                "mark_oom_victim within __oom_kill_process",
                [_OUT_OF_MEMORY, _OOM_KILL, _MARK_VICTIM],
                offsets=_VICTIM,
                settings={"kills_marked": 1},
            ),
            Rung(
                "tracepoint mark_victim within __oom_kill_process",
                [_OUT_OF_MEMORY, _OOM_KILL],
                tracepoints=[_VICTIM_MARKED],
                offsets=_VICTIM,
                settings={"kills_marked": 1},
                loses=_NO_NAME,
            ),
            Rung(
                "mark_oom_victim",
                [_OUT_OF_MEMORY, _MARK_VICTIM],
                offsets=_VICTIM,
                loses=_EVERY_MARK,
            ),
            Rung(
                "tracepoint mark_victim",
                tracepoints=[_VICTIM_MARKED],
                loses=f"the victim's name, whether the OOM was a memory cgroup's, {_EVERY_MARK}",
            ),
        ],
    ),
    Seam(
        "exit",
        [
            Rung(
                "sched_process_exit",
                tracepoints=[Tracepoint("sched_process_exit", "task_exit")],
            )
        ],
    ),
)


def functions() -> list[str]:
    """Every kernel function that any rung names, each once."""
    rungs = [rung for seam in SEAMS for rung in seam.rungs]
    probes = [probe for rung in rungs for probe in (*rung.probes, *rung.one_of)]
    return list(dict.fromkeys(name for p in probes for name in (p.function, *p.beside)))
