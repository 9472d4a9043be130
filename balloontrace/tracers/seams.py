"""The seams of the balloon driver: where a probe goes, by which means, and what each means costs.

A seam has rungs in order of preference. A rung is usable if the kernel has its functions (looked up
in /proc/kallsyms), the seams it builds upon are traced, and BTF tells the offsets it needs; it is
used if its probes then attach. Kernel versions are never compared: distributions backport.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from balloontrace.tracers.driver import DRIVER_MODULE
from balloontrace.tracers.state import FILL_FROM

MODULES = (DRIVER_MODULE, "virtio_pci", "virtio_mmio", "virtio_ring", "virtio_ccw")
"""The modules that hold the functions below, where they are not built in."""

SIZE = ""
"""In OFFSETS, in place of a member: the size of the structure."""

OFFSETS = {
    "num_pfns": ("virtio_balloon", "num_pfns"),
    "num_pages": ("virtio_balloon", "num_pages"),
    "size_work": ("virtio_balloon", "update_balloon_size_work"),
    "free_blocks": ("virtio_balloon", "num_free_page_blocks"),
    "hint_work": ("virtio_balloon", "report_free_page_work"),
    "sg_bytes": ("scatterlist", SIZE),
    "task_comm": ("task_struct", "comm"),
    "task_tgid": ("task_struct", "tgid"),
    "oom_memcg": ("oom_control", "memcg"),
}
"""Entries of state.LAYOUT that BTF knows -> structure and member."""


class Probe(NamedTuple):
    """One place in the kernel and the programs of bpf/balloon.c that run there.

    place: a function, or a tracepoint; entry, exit: the programs at its entry and its return, ''
    for none; call: the call of state.CALLS which those are about, '' if they know it themselves.
    """

    place: str
    entry: str = ""
    exit: str = ""
    call: str = ""
    tracepoint: bool = False

    def programs(self) -> Iterator[tuple[str, bool]]:
        """(program, whether it runs at the return), the return first: an entry alone would leave
        calls open."""
        if self.exit:
            yield self.exit, True
        if self.entry:
            yield self.entry, False


class Rung(NamedTuple):
    """One way to observe a seam.

    name: for people; probes: all needed, in order of attachment; one_of: probes of which at least
    one is needed, all that exist are attached; offsets: keys of OFFSETS it needs; settings: entries
    of state.LAYOUT it sets; needs: those that a seam before it must have set; altered: it can do
    with a function whose arguments the compiler has changed; loses: what this rung cannot tell that
    the one above it can.
    """

    name: str
    probes: Sequence[Probe] = ()
    one_of: Sequence[Probe] = ()
    offsets: Sequence[str] = ()
    settings: Mapping[str, int] = {}
    needs: Sequence[str] = ()
    altered: bool = False
    loses: str = ""


class Seam(NamedTuple):
    """One thing to observe and the ways to do it.

    feature: without this feature of the device (guest.FEATURES) it never happens; required: a
    recording without it is worth nothing; frames_others: its calls stand in for those of other
    seams, or tell what they are for: it is detached after those.
    """

    name: str
    rungs: Sequence[Rung]
    feature: str = ""
    required: bool = False
    frames_others: bool = False


def _call(function: str, call: str, entry: str = "any_entry") -> Probe:
    """Entry and return of one function."""
    return Probe(function, entry, "any_return", call)


def _plain(function: str, call: str) -> Rung:
    """The rung that is one function's entry and return."""
    return Rung(function, [_call(function, call)])


def _moment(tracepoint: str, program: str) -> Probe:
    return Probe(tracepoint, program, tracepoint=True)


_TELL_HOST = _call("tell_host", "ack")
_WORKER = _call("update_balloon_size_func", "worker")
_LEAK = _call("leak_balloon", "leak")
_HINT = _call("report_free_page_func", "hint")
_OUT_OF_MEMORY = _call("out_of_memory", "out_of_memory")

_CONFIG_GETS = [
    _call(function, "config", "config_entry")
    for function in ("vp_get", "vm_get", "virtio_ccw_get_config")
]
"""virtio_config_ops.get of the PCI transports (modern and legacy share the name), MMIO and CCW."""

_EVERY_SEND = "a probe hit for every buffer any virtio device sends"
_EVERY_RECEIVE = "a probe hit for every buffer any virtio device receives into"

SEAMS: tuple[Seam, ...] = (
    # Order of attachment. Migration goes first, because an ack inside of it moves no balloon pages;
    # then the ack, which stands in for a fill or leak that was entered before its own probe.
    Seam("migrate", [_plain("virtballoon_migratepage", "migrate")], frames_others=True),
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
                [Probe("virtqueue_add_outbuf", "outbuf_entry"), _TELL_HOST],
                settings={"ack_pages": 1},
                loses=_EVERY_SEND,
            ),
            Rung(
                "tell_host, without pages",
                [_TELL_HOST],
                altered=True,
                loses="pages and queue of an ack",
            ),
        ],
        frames_others=True,
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
            Rung("leak_balloon", [_LEAK], settings={"leak_arguments": 1}),
            Rung(
                "leak_balloon, however the compiler changed its arguments",
                [_LEAK],
                altered=True,
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
                [_call("fill_balloon", "fill"), _WORKER],
                settings={"fill_from": FILL_FROM.index("fill_balloon")},
            ),
            Rung("size worker, pages from its acks", [_WORKER], needs=["ack_pages"]),
            Rung(
                "size worker, pages from balloon_page_enqueue",
                [Probe("balloon_page_enqueue", "enqueue_entry"), _WORKER],
                settings={"fill_from": FILL_FROM.index("enqueues")},
                loses="a probe hit for every page",
            ),
        ],
        required=True,
    ),
    Seam("notice", [Rung("virtballoon_changed", [Probe("virtballoon_changed", "notice_entry")])]),
    Seam(
        "report",
        [
            Rung(
                "virtballoon_free_page_report",
                [_call("virtballoon_free_page_report", "report", "report_entry")],
                offsets=["sg_bytes"],
            ),
            Rung(
                "virtballoon_free_page_report, without pages",
                [_call("virtballoon_free_page_report", "report", "report_entry")],
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
                [Probe("virtqueue_add_inbuf", "inbuf_entry"), _HINT],
                settings={"hint_inbufs": 1},
                loses=f"pages taken back; {_EVERY_RECEIVE}",
            ),
            Rung("report_free_page_func", [_HINT], loses="the pages lent"),
        ],
        feature="free_page_hint",
    ),
    Seam(
        "sleep", [Rung("msleep within the size worker", [_call("msleep", "sleep", "worker_entry")])]
    ),
    Seam(
        "reclaim",
        [
            Rung(
                "mm_vmscan_direct_reclaim within the size worker",
                [
                    _moment("mm_vmscan_direct_reclaim_end", "reclaim_end"),
                    _moment("mm_vmscan_direct_reclaim_begin", "reclaim_begin"),
                ],
            ),
            Rung(
                "try_to_free_pages within the size worker",
                [_call("try_to_free_pages", "reclaim", "worker_entry")],
                loses="returns, when many tasks reclaim at once",
            ),
        ],
    ),
    Seam(
        "compact",
        [
            Rung(
                "mm_compaction within the size worker",
                [
                    _moment("mm_compaction_end", "compact_end"),
                    _moment("mm_compaction_begin", "compact_begin"),
                ],
            )
        ],
    ),
    Seam(
        "kswapd_wake",
        [
            Rung(
                "mm_vmscan_wakeup_kswapd within the size worker",
                [_moment("mm_vmscan_wakeup_kswapd", "kswapd_tracepoint")],
            )
        ],
    ),
    Seam(
        "oom_kill",
        [
            Rung(
                "mark_oom_victim",
                [_OUT_OF_MEMORY, Probe("mark_oom_victim", "victim_entry")],
                offsets=["task_comm", "task_tgid", "oom_memcg"],
            ),
            Rung(
                "tracepoint mark_victim",
                [_OUT_OF_MEMORY, _moment("mark_victim", "victim_tracepoint")],
                offsets=["task_comm", "task_tgid", "oom_memcg"],
                loses="the victim's name on kernels whose tracepoint gives its thread id only",
            ),
            Rung(
                "tracepoint mark_victim alone",
                [_moment("mark_victim", "victim_tracepoint")],
                loses="the victim's name, and whether the OOM was a memory cgroup's",
            ),
        ],
    ),
)


def probes() -> list[Probe]:
    """Every probe that any rung names, each once."""
    named = [
        probe for seam in SEAMS for rung in seam.rungs for probe in (*rung.probes, *rung.one_of)
    ]
    return list(dict.fromkeys(named))


def functions() -> list[str]:
    """Every kernel function that any rung names, each once."""
    return list(dict.fromkeys(probe.place for probe in probes() if not probe.tracepoint))
