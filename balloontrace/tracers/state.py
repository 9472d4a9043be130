"""What the BPF programs keep between a call's entry and its return, declared once.

`c_header` gives bpf/balloon.c its structures; the recorder reads the same bytes with `CounterTable`
and `open_calls`.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator, Mapping

from balloontrace import events

CALLS: tuple[tuple[str, str], ...] = (
    ("worker", "fill"),
    ("leak", "leak"),
    ("scan", "scan"),
    ("oom", "oom_notify"),
    ("remove", "remove"),
    ("freeze", "freeze"),
    ("migrate", "migrate"),
    ("ack", "ack"),
    ("count", "count"),
    ("config", ""),
    ("fill", "fill"),
    ("report", "report"),
    ("hint", "hint"),
    ("sleep", "sleep"),
    ("reclaim", "reclaim"),
    ("compact", "compact"),
    ("out_of_memory", ""),
    ("bind", "bind"),
    ("restore", "restore"),
)
"""Calls a task can be in -> the kind of event their return writes. The first are the bits of an
event's `within`, in the same order."""

LAYOUT: tuple[tuple[str, str], ...] = (
    ("num_pfns", "offset in struct virtio_balloon"),
    ("num_pages", "offset in struct virtio_balloon"),
    ("size_work", "offset in struct virtio_balloon"),
    ("free_blocks", "offset in struct virtio_balloon"),
    ("hint_work", "offset in struct virtio_balloon"),
    ("hint_block_pages", "balloon pages in one block of free page hinting"),
    ("hint_inbufs", "the blocks of free page hinting are counted as they are lent"),
    ("sg_bytes", "size of struct scatterlist"),
    ("task_comm", "offset in struct task_struct"),
    ("task_tgid", "offset in struct task_struct"),
    ("oom_memcg", "offset in struct oom_control"),
    ("fill_from", "where the pages of a fill are counted, enum fill_from"),
    ("ack_pages", "the pages of an ack are visible"),
    ("leak_arguments", "leak_balloon has the arguments its source has"),
    ("leak_from_acks", "leak_balloon itself is not traced"),
)
"""What of the kernel the programs are told when they are attached; 0: not known. In a map and not
compiled in, so that the compiled programs serve any build of the driver."""

FILL_FROM = ("acks", "enqueues", "fill_balloon")
"""Values of LAYOUT's `fill_from`."""

ANY_CALL = 0x0CA11000
"""Stands for the number of a call in the compiled templates of bpf/balloon.c."""

COUNTERS: tuple[tuple[str, str], ...] = (
    ("entered", "calls entered"),
    ("written", "events written to the ring"),
    ("lost", "events the ring had no room for"),
    ("lost_pages", "pages those events would have told of"),
    ("untracked", "calls for which `calls` had no room"),
    ("skipped", "calls that did nothing, and are counted here instead of written"),
)
"""What is counted for each kind of event on each CPU."""

_SEEN_LEAK, _SEEN_SLEEP = 1, 2

_KINDS = max(kind.number for kind in events.KINDS) + 1
_COUNTERS = struct.Struct(f"@{len(COUNTERS)}Q")
_TASK = struct.Struct("@IIIII16sxxxx")
_SLOT = struct.Struct("@QQII")

_SLOTS = 32
"""A power of two with room for CALLS: what indexes it is masked, which the verifier understands."""

COUNTERS_BYTES = _KINDS * _COUNTERS.size
"""Size of one CPU's counters, one element of the map `counters`."""

_LAYOUT = struct.Struct(f"@{len(LAYOUT)}I")

TASK_BYTES = _TASK.size + _SLOTS * _SLOT.size
"""Size of one value of the map `calls`."""


def c_header() -> str:
    """C declarations of the above."""
    layout = "\n".join(f"\tu32 {name}; /* {doc} */" for name, doc in LAYOUT)
    fill_from = ", ".join(f"FILL_FROM_{name.upper()}" for name in FILL_FROM)
    calls = "\n".join(f"\tCALL_{name.upper()}," for name, _ in CALLS)
    counters = "\n".join(f"\tu64 {name}; /* {doc} */" for name, doc in COUNTERS)
    within = "".join(
        f'_Static_assert(1 << CALL_{bit.name.upper()} == WITHIN_{bit.name.upper()}, "");\n'
        for bit in events.WITHIN
    )
    kinds = "\n".join(
        f"\tcase CALL_{name.upper()}: return KIND_{kind.upper()};" for name, kind in CALLS if kind
    )
    return f"""enum call {{
{calls}
}};
#define SLOTS {_SLOTS}
#define ANY_CALL {ANY_CALL}
{within}#define WITHIN_MASK {sum(bit.number for bit in events.WITHIN)}
static inline u32 kind_of_call(u32 call)
{{
	switch (call) {{
{kinds}
	default: return 0;
	}}
}}
enum fill_from {{ {fill_from} }};
#define SEEN_LEAK {_SEEN_LEAK}
#define SEEN_SLEEP {_SEEN_SLEEP}
struct layout {{
{layout}
}};
struct counters {{
{counters}
}};
struct cpu_counters {{
	struct counters kind[KINDS];
}};
struct slot {{
	u64 start;
	u64 object; /* what the return program needs again */
	u32 asked;
	u32 done;
}};
struct task_calls {{
	u32 open; /* bits of enum call */
	u32 seen; /* SEEN_LEAK, SEEN_SLEEP: what this run of the size worker did */
	u32 queue; /* of the open CALL_ACK */
	u32 orphan; /* kind of the call the open CALL_ACK belongs to, if its entry was not seen */
	u32 pid;
	char comm[16];
	struct slot slot[SLOTS];
}};
"""


def pack_layout(values: Mapping[str, int]) -> bytes:
    """The value of the map `layout`; what `values` lacks is not known."""
    return _LAYOUT.pack(*(values.get(name, 0) for name, _ in LAYOUT))


def for_call(template: bytes, call: str) -> bytes:
    """The compiled template with the number of `call` in place of ANY_CALL.

    Raises ValueError if it is not there exactly once, KeyError if there is no such call.
    """
    placeholder = struct.pack("<I", ANY_CALL)
    if template.count(placeholder) != 1:
        raise ValueError("the template does not name its call exactly once")
    number = {name: number for number, (name, _) in enumerate(CALLS)}[call]
    return template.replace(placeholder, struct.pack("<I", number))


def sum_counters(table: bytes | memoryview) -> dict[str, dict[str, int]]:
    """Kind -> counter -> sum over all CPUs, from the bytes of the map `counters`."""
    total = {kind.name: dict.fromkeys((name for name, _ in COUNTERS), 0) for kind in events.KINDS}
    for cpu in range(len(table) // COUNTERS_BYTES):
        for kind in events.KINDS:
            at = cpu * COUNTERS_BYTES + kind.number * _COUNTERS.size
            sums = total[kind.name]
            for (name, _), value in zip(COUNTERS, _COUNTERS.unpack_from(table, at), strict=True):
                # A call may be counted on one CPU and taken back on another.
                sums[name] = (sums[name] + value) % 2**64
    return total


def open_calls(tasks: Iterable[tuple[int, bytes]]) -> Iterator[tuple[str, bytes]]:
    """(kind, event as it stands in the ring) of every call that has not returned.

    tasks: (thread id, value) of each entry of the map `calls`. The event of a size worker that is
    there but does not fill is empty: its entry was counted as a fill's (balloon.c).
    """
    within_bits = sum(bit.number for bit in events.WITHIN)
    for tid, value in tasks:
        opened, seen, queue, _, pid, comm = _TASK.unpack_from(value)
        for number, (call, kind) in enumerate(CALLS):
            if not kind or not opened >> number & 1:
                continue
            start, _, asked, done = _SLOT.unpack_from(value, _TASK.size + number * _SLOT.size)
            if call == "worker" and not done and (seen & _SEEN_LEAK or asked == 0):
                yield kind, b""
                continue
            yield (
                kind,
                events.pack(
                    start_ns=start,
                    duration_ns=events.OPEN_DURATION,
                    asked=asked,
                    # `done` of an OOM notification starts as what others had freed (balloon.c)
                    done=0 if call == "oom" else done,
                    tid=tid,
                    pid=pid,
                    kind=events.number_of(events.KINDS, kind),
                    within=opened & within_bits & ~(1 << number),
                    queue=queue if call == "ack" else 0,
                    comm=comm,
                ),
            )
