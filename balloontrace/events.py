# SPDX-License-Identifier: Apache-2.0
"""The schema: every event and every field of the trace, declared once.

From these declarations come the C struct and constants the BPF programs are compiled with
(`c_header`), the layout of the bytes in a recording (`record_layout`, which a recording carries in
its header, so that a reader never depends on this file's version) and the event reference in
docs/events.md (`markdown`).

All events share one fixed record of 56 bytes. With the ring buffer's own 8-byte header that makes
64, so a consumed span of the ring can be checked and appended as one slice, without unpacking it.

The unit of `asked` and `done` is the balloon page, 4 KiB (VIRTIO_BALLOON_PFN_SHIFT in
include/uapi/linux/virtio_balloon.h), unless the kind says otherwise.
"""

from __future__ import annotations

import struct

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, TypeVar

    import numpy as np
    import numpy.typing as npt

    _Pages = TypeVar("_Pages", int, npt.NDArray[np.int64])

BALLOON_PAGE_BYTES = 4096
CHUNK_PAGES = 256
"""The driver moves at most one array of page numbers at a time, under its lock
(VIRTIO_BALLOON_ARRAY_PFNS_MAX in drivers/virtio/virtio_balloon.c): so many balloon pages can be
counted by /proc/vmstat on one side of a moment and traced on the other."""

RING_HEADER_BYTES = 8
"""struct bpf_ringbuf_hdr {u32 len; u32 pg_off;}, before each record (kernel/bpf/ringbuf.c)."""

UNKNOWN_PAGES = 0xFFFFFFFF
"""In `asked` or `done`: this seam's rung cannot see the number."""

OPEN_DURATION = 0xFFFFFFFFFFFFFFFF
"""In `duration_ns`: the call had not returned when the recording ended."""


# No NamedTuples here, nor elsewhere in what the recorder loads: `typing` alone is 0.6 MiB.


class Field:
    """One field of the event record. `ctype` is a key of `_CTYPES`."""

    __slots__ = ("ctype", "doc", "name", "unit")

    def __init__(self, name: str, ctype: str, unit: str, doc: str) -> None:
        self.name, self.ctype, self.unit, self.doc = name, ctype, unit, doc


class Kind:
    """One kind of event: what a record with this `kind` means."""

    __slots__ = ("asked", "doc", "done", "name", "number")

    def __init__(self, name: str, number: int, doc: str, asked: str, done: str) -> None:
        self.name, self.number, self.doc = name, number, doc
        self.asked, self.done = asked, done

    @property
    def moves_pages(self) -> bool:
        """Whether `done` is a number of pages that this call has moved."""
        return self.name not in ("target", "oom_kill", "bind", "stats", "stats_ask", "refuse")


class Bit:
    """One named value or bit of a small field."""

    __slots__ = ("doc", "name", "number")

    def __init__(self, name: str, number: int, doc: str) -> None:
        self.name, self.number, self.doc = name, number, doc


_CTYPES = {
    "u64": ("unsigned long long", "<u8", "Q"),
    "u32": ("unsigned int", "<u4", "I"),
    "u16": ("unsigned short", "<u2", "H"),
    "u8": ("unsigned char", "<u1", "B"),
    "char16": ("char", "S16", "16s"),
}
"""Our type name -> C type, numpy format, format of `struct`."""

RECORD: tuple[Field, ...] = (
    Field("start_ns", "u64", "ns", "CLOCK_MONOTONIC when the call was entered"),
    Field("duration_ns", "u64", "ns", "return minus entry; all ones: still open at the end"),
    Field("asked", "u32", "balloon pages", "what the call was asked for; all ones: not visible"),
    Field("done", "u32", "balloon pages", "what the call did; all ones: not visible"),
    Field("tid", "u32", "", "thread that made the call (its id in the initial pid namespace)"),
    Field("pid", "u32", "", "process of that thread"),
    Field("cpu", "u16", "", "CPU on which the call returned"),
    Field("kind", "u8", "", "kind of event, see below"),
    Field("within", "u8", "bits", "calls of the driver this one was made from, see below"),
    Field("queue", "u8", "", "virtqueue of an `ack`, see below"),
    Field("flags", "u8", "bits", "see below"),
    Field("reserved", "u16", "", "zero"),
    Field("comm", "char16", "", "name of the thread: chosen by the guest, not to be trusted"),
)

KINDS: tuple[Kind, ...] = (
    Kind(
        "fill",
        1,
        "the size worker took one chunk of pages (at most 256) into the balloon",
        "target minus balloon size when the worker looked",
        "pages put into the balloon and told to the host",
    ),
    Kind(
        "leak",
        2,
        "`leak_balloon` gave one chunk of pages (at most 256) back to the guest",
        "pages the caller wanted back",
        "pages given back",
    ),
    Kind(
        "ack",
        3,
        "`tell_host` sent one array of page numbers and waited until the host took it",
        "pages in the array",
        "the same, or 0 while it waits",
    ),
    Kind(
        "count",
        4,
        "reclaim asked the balloon's shrinker how much it could free, and it offered something",
        "not used",
        "pages the shrinker offered (kernel pages)",
    ),
    Kind(
        "scan",
        5,
        "reclaim made the balloon's shrinker free pages",
        "pages to scan (kernel pages)",
        "pages freed (kernel pages)",
    ),
    Kind(
        "oom_notify",
        6,
        "the OOM killer asked the balloon for memory before choosing a victim",
        "not used",
        "pages freed (kernel pages)",
    ),
    Kind(
        "migrate",
        7,
        "compaction moved one page of the balloon",
        "1 (a kernel page)",
        "1 if it was moved (a kernel page)",
    ),
    Kind(
        "target",
        8,
        "the size worker read a target that differs from the one it read before",
        "the target: the balloon size the host wants",
        "the balloon size at that moment",
    ),
    Kind(
        "notice",
        9,
        "the host's configuration change interrupt arrived; no duration, no task",
        "not used",
        "not used",
    ),
    Kind(
        "report",
        10,
        "free page reporting told the host of free blocks and waited until it took them",
        "pages in the blocks",
        "the same, or 0 if the driver refused",
    ),
    Kind(
        "hint",
        11,
        "free page hinting lent free blocks to the host, or took them back (flag `returned`)",
        "not used",
        "pages lent; pages taken back, with the flag `returned` (those the shrinker took: `scan`)",
    ),
    Kind(
        "sleep",
        12,
        'the size worker got no page ("Out of puff") and slept before it tries again',
        "not used",
        "not used",
    ),
    Kind(
        "reclaim",
        13,
        "the size worker's allocation reclaimed memory directly",
        "not used",
        "pages it reclaimed (kernel pages)",
    ),
    Kind(
        "compact",
        14,
        "the size worker's allocation compacted a zone",
        "not used",
        "not used",
    ),
    Kind(
        "kswapd_wake",
        15,
        "the size worker's allocation woke kswapd; no duration",
        "not used",
        "not used",
    ),
    Kind(
        "oom_kill",
        16,
        "the OOM killer chose a victim: `comm` is the victim's, `tid` and `pid` are those of the "
        "task that needed memory; no duration",
        "not used",
        "process id of the victim (its thread id where only that is visible)",
    ),
    Kind(
        "bind",
        17,
        "`virtballoon_probe`: the driver took the device",
        "not used",
        "1 if it did, 0 if it failed",
    ),
    Kind("remove", 18, "`virtballoon_remove`: the driver left the device", "not used", "not used"),
    Kind("freeze", 19, "`virtballoon_freeze`: the guest is suspended", "not used", "not used"),
    Kind("restore", 20, "`virtballoon_restore`: the guest resumes", "not used", "not used"),
    Kind(
        "reporting",
        21,
        "the kernel looked for free blocks that it has not reported yet, and reported them "
        "(`page_reporting_process`: of all memory, every two seconds while there are any)",
        "not used",
        "pages it reported",
    ),
    Kind(
        "stats_ask",
        22,
        "the host asked for the guest's statistics: the statistics queue's interrupt; no duration, "
        "no task",
        "not used",
        "not used",
    ),
    Kind(
        "stats",
        23,
        "the driver read the guest's statistics and sent them (the values stand in samples)",
        "not used",
        "values sent, if that is visible",
    ),
    Kind(
        "refuse",
        24,
        "the kernel refused a task address space: its limit of committed memory is reached "
        "(`__vm_enough_memory`: ENOMEM, whatever memory is free); no duration",
        "not used",
        "not used",
    ),
)

WITHIN: tuple[Bit, ...] = (
    Bit("worker", 1, "the size worker, `update_balloon_size_func`"),
    Bit("leak", 2, "`leak_balloon`"),
    Bit("scan", 4, "the shrinker's scan"),
    Bit("oom", 8, "the OOM notifier"),
    Bit("remove", 16, "`virtballoon_remove`: the driver is unbound"),
    Bit("freeze", 32, "`virtballoon_freeze`: the guest is suspended"),
    Bit("migrate", 64, "`virtballoon_migratepage`"),
)

QUEUES: tuple[Bit, ...] = (
    Bit("none", 0, "not an `ack`"),
    Bit("inflate", 1, "pages given to the host"),
    Bit("deflate", 2, "pages taken back"),
    Bit("other", 3, "another virtqueue"),
)

FLAGS: tuple[Bit, ...] = (
    Bit(
        "partial",
        1,
        "the call was entered before the probes were attached; its start is that of its `ack`",
    ),
    Bit("stop", 2, "the shrinker answered SHRINK_STOP"),
    Bit("memcg", 4, "the OOM was that of a memory cgroup, not of the whole guest"),
    Bit("returned", 8, "free page hinting gave the blocks back to the guest"),
    Bit(
        "missed",
        16,
        "the call's return was not seen: `done` is what its acks told, and its duration, which is "
        "not known, stands as 0",
    ),
    Bit("kswapd", 32, "kswapd made the call; only where the header cannot name its threads"),
)

CAUSES: tuple[tuple[str, str], ...] = (
    ("shrinker", "scan"),
    ("oom", "oom"),
    ("remove", "remove"),
    ("freeze", "freeze"),
    ("host", "worker"),
)
"""Cause of a leak -> the bit of `within` that shows it, innermost caller first: reclaim runs in the
worker's own allocations, so a scan within the worker is the shrinker's doing, not the host's."""


LOSSES = ("lost", "untracked", "missed", "unpaired")
"""Counters of a trailer whose sum is `lost_events`: calls of which the recording has no event, or
none with a duration (docs/format.md)."""


def whole_pages(target: _Pages, pages_per_page: int) -> _Pages:
    """The size at which a driver stops that has this target, in balloon pages, or that of each;
    pages_per_page: balloon pages in one page of the guest.

    A target between two of the guest's pages is met by the larger size (towards_target in
    drivers/virtio/virtio_balloon.c since commit 07622bd41563; before, it was overshot by as much,
    over and over).
    """
    return -(-target // pages_per_page) * pages_per_page


def number_of(table: tuple[Bit, ...] | tuple[Kind, ...], name: str) -> int:
    """The number of the entry called `name`; KeyError if there is none."""
    for entry in table:
        if entry.name == name:
            return entry.number
    raise KeyError(name)


def cause_of(within: int) -> str:
    """The cause of a leak made within these calls (metrics.md: cause of a leak)."""
    for cause, bit in CAUSES:
        if within & number_of(WITHIN, bit):
            return cause
    return "unknown"


def _record_struct() -> struct.Struct:
    return struct.Struct("<" + "".join(_CTYPES[field.ctype][2] for field in RECORD))


def record_bytes() -> int:
    """Size of one record in bytes, without the ring's header."""
    return _record_struct().size


def pack(**values: int | bytes) -> bytes:
    """One event as it stands in the ring, ring header first; fields not given are zero."""
    empty = {field.name: b"" if field.ctype == "char16" else 0 for field in RECORD}
    fields = {**empty, **values}
    return bytes(RING_HEADER_BYTES) + _record_struct().pack(*(fields[f.name] for f in RECORD))


def unpack(record: bytes) -> tuple[Any, ...]:
    """The fields of one record, in the order of RECORD, without the ring's header."""
    return _record_struct().unpack(record)


def as_missed(event: bytes) -> bytes:
    """An event of `pack` that is open, as one whose return was missed."""
    record = event[RING_HEADER_BYTES:]
    fields = dict(zip((field.name for field in RECORD), unpack(record)))
    flags = fields["flags"] | number_of(FLAGS, "missed")
    return pack(**{**fields, "duration_ns": 0, "flags": flags})


def record_layout() -> list[list[str]]:
    """[name, numpy format] of every field in order: what a recording's header carries."""
    return [[field.name, _CTYPES[field.ctype][1]] for field in RECORD]


def c_header() -> str:
    """C declarations of the record and of every constant above, for the BPF programs."""
    lines = ["struct balloon_event {"]
    for field in RECORD:
        array = "[16]" if field.ctype == "char16" else ""
        lines.append(f"\t{_CTYPES[field.ctype][0]} {field.name}{array};")
    lines.append("};")
    tables: tuple[tuple[str, tuple[Bit, ...] | tuple[Kind, ...]], ...] = (
        ("KIND", KINDS),
        ("WITHIN", WITHIN),
        ("QUEUE", QUEUES),
        ("FLAG", FLAGS),
    )
    for prefix, table in tables:
        lines += [f"#define {prefix}_{entry.name.upper()} {entry.number}" for entry in table]
    lines.append(f"#define KINDS {max(kind.number for kind in KINDS) + 1}")
    lines.append(f"#define UNKNOWN_PAGES {UNKNOWN_PAGES}u")
    return "\n".join(lines) + "\n"


def markdown() -> str:
    """The event reference, docs/events.md."""
    out = [
        "# Events",
        "",
        "Generated from `balloontrace/events.py` by `make docs`. One event is one call of the",
        "driver, written when the call returns. Unit of pages: 4 KiB, whatever the guest's page",
        "size.",
        "",
        "| field | type | unit | meaning |",
        "|---|---|---|---|",
    ]
    out += [f"| `{f.name}` | {f.ctype} | {f.unit} | {f.doc} |" for f in RECORD]
    out += ["", "| kind | number | what happened | `asked` | `done` |", "|---|---|---|---|---|"]
    out += [f"| `{k.name}` | {k.number} | {k.doc} | {k.asked} | {k.done} |" for k in KINDS]
    for title, table in (("within", WITHIN), ("queue", QUEUES), ("flags", FLAGS)):
        out += ["", f"| `{title}` | value | meaning |", "|---|---|---|"]
        out += [f"| {bit.name} | {bit.number} | {bit.doc} |" for bit in table]
    out += ["", "The cause of a leak follows from `within`, the first that applies:", ""]
    out += [f"- `{cause}`: within {bit}" for cause, bit in CAUSES]
    out += ["- `unknown`: none of these", ""]
    return "\n".join(out)
