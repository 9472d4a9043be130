# SPDX-License-Identifier: Apache-2.0
"""What the BPF programs keep between a call's entry and its return, declared once.

`c_header` gives bpf/balloon.c its structures and the rows of its calls; the recorder reads the same
bytes with `sum_counters` and `open_calls`.
"""

from __future__ import annotations

import struct
import sys

from balloontrace import events

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from typing import Any

_ALLOCATE = ("worker", "fill", "bind", "restore", "freeze", "remove")
"""Calls within which memory is allocated, and hence anything of reclaim, compaction and OOM."""


class Call:
    """One call that a task can be in: a row of bpf/balloon.c.

    kind: of the event its return writes, '' for none; callers: the calls it can be made from,
    directly or not: whatever else seems open when it is entered has lost its return; asked: where
    the event's `asked` comes from; done: where its `done` does; kept: the argument its return needs
    again; in_worker: of interest within the size worker only.
    """

    __slots__ = ("asked", "callers", "done", "in_worker", "kept", "kind", "name")

    def __init__(
        self,
        name: str,
        kind: str = "",
        callers: tuple[str, ...] = (),
        asked: str = "unknown",
        done: str = "nothing",
        kept: str = "nothing",
        in_worker: bool = False,
    ) -> None:
        self.name, self.kind, self.callers = name, kind, callers
        self.asked, self.done, self.kept = asked, done, kept
        self.in_worker = in_worker


ASKED = ("unknown", "one", "second", "to_scan", "in_blocks")
"""Where `asked` of a call can come from: 1, its second argument, the nr_to_scan of its second, the
sum of the blocks of its second."""

DONE = ("nothing", "unknown", "result", "success", "asked", "asked_if_success", "grown", "special")
"""Where `done` of a call can come from: 0, not visible, its return value, whether that is 0,
`asked`, `asked` if that is 0, how much the number behind what is kept has grown, and what only
balloon.c can tell."""

KEPT = ("nothing", "first", "second", "third")
"""Which argument of a call its return can need again."""

CALLS: tuple[Call, ...] = (
    # update_balloon_size_func(work)
    Call("worker", "fill", done="special", kept="first"),
    # leak_balloon(vb, num)
    Call(
        "leak",
        "leak",
        (*_ALLOCATE, "reclaim", "scan", "out_of_memory", "oom"),
        asked="second",
        done="result",
    ),
    # virtio_balloon_shrinker_scan(shrinker, sc)
    Call("scan", "scan", (*_ALLOCATE, "reclaim"), asked="to_scan", done="special"),
    # virtio_balloon_oom_notify(nb, dummy, unsigned long *freed)
    Call("oom", "oom_notify", (*_ALLOCATE, "out_of_memory"), done="grown", kept="third"),
    Call("remove", "remove"),
    Call("freeze", "freeze"),
    # virtballoon_migratepage(info, newpage, page, mode)
    Call("migrate", "migrate", (*_ALLOCATE, "compact"), asked="one", done="success"),
    # tell_host(vb, vq)
    Call(
        "ack",
        "ack",
        (*_ALLOCATE, "reclaim", "compact", "scan", "out_of_memory", "oom", "leak", "migrate"),
        done="asked",
        kept="second",
    ),
    Call("count", "count", (*_ALLOCATE, "reclaim"), done="result"),
    # get(vdev, offset, buf, len)
    Call("config", "", ("worker",), done="special", kept="third", in_worker=True),
    # fill_balloon(vb, num)
    Call("fill", "fill", ("worker",), asked="second", done="result"),
    # virtballoon_free_page_report(prdev, sg, nents)
    Call("report", "report", ("reporting",), asked="in_blocks", done="asked_if_success"),
    # report_free_page_func(work)
    Call("hint", "hint", done="special"),
    Call("sleep", "sleep", ("worker", "fill"), in_worker=True),
    # try_to_free_pages(...), or mm_vmscan_direct_reclaim
    Call("reclaim", "reclaim", ("worker", "fill"), done="result", in_worker=True),
    Call("compact", "compact", ("worker", "fill"), done="unknown", in_worker=True),
    # out_of_memory(oc)
    Call("out_of_memory", "", _ALLOCATE),
    # __oom_kill_process(victim, ...)
    Call("oom_kill", "", (*_ALLOCATE, "out_of_memory")),
    Call("bind", "bind", done="success"),
    Call("restore", "restore"),
    Call("reporting", "reporting", done="special"),
    # update_balloon_stats_func(work)
    Call("stats", "stats", done="special", kept="first"),
)
"""Calls a task can be in. The first are the bits of an event's `within`, in the same order."""

MOMENTS: tuple[str, ...] = (
    *("outbuf", "inbuf", "enqueue", "notice", "victim", "proof", "stats_ask", "refuse"),
)
"""Functions of which the entry alone matters, but for `proof`, which the tracer calls itself, and
for `refuse`, of which the return does. They are numbered after the calls."""

MOST_STATS = 16
"""Values that the driver sends at most: VIRTIO_BALLOON_S_NR of them, 10 in 5.10, 16 since 6.14."""

LAYOUT: tuple[tuple[str, str], ...] = (
    ("num_pfns", "offset in struct virtio_balloon"),
    ("num_pages", "offset in struct virtio_balloon"),
    ("size_work", "offset in struct virtio_balloon"),
    ("free_blocks", "offset in struct virtio_balloon"),
    ("hint_work", "offset in struct virtio_balloon"),
    ("hint_block_pages", "balloon pages in one block of free page hinting"),
    ("hint_inbufs", "the blocks of free page hinting are counted as they are lent"),
    ("page_pages", "balloon pages in one page of the kernel"),
    ("sg_bytes", "size of struct scatterlist"),
    ("task_comm", "offset in struct task_struct"),
    ("task_tgid", "offset in struct task_struct"),
    ("task_flags", "offset in struct task_struct, where kswapd is known by its flag only"),
    ("oom_memcg", "offset in struct oom_control"),
    ("stats_work", "offset in struct virtio_balloon"),
    ("stats", "offset in struct virtio_balloon"),
    ("stats_bytes", "bytes of that member"),
    ("fill_from", "where the pages of a fill are counted, enum fill_from"),
    ("ack_pages", "the pages of an ack are visible"),
    ("leak_arguments", "leak_balloon has the arguments its source has"),
    ("leak_from_acks", "leak_balloon itself is not traced"),
    ("kills_marked", "the OOM killer's own function is traced: other marks are no kills"),
    ("wake_events", "unread events from which the reader is woken before its timer"),
    ("silent", "no event is written: sums are all that is kept"),
    ("pid_ns_inode", "the tracer's PID namespace, as stat(2) tells it"),
    ("pid_ns_device", "and the device of that"),
)
"""What of the kernel the programs are told when they are attached; 0: not known. In a map and not
compiled in, so that the compiled programs serve any build of the driver."""

FILL_FROM = ("acks", "enqueues", "fill_balloon")
"""Values of LAYOUT's `fill_from`."""

PHASES = ("attaching", "tracing", "ending", "ended")
"""Values of CONTROL's `phase`. Attaching: calls are followed, for what is made within them, and
neither counted nor written. Ending: only what is made within a call that is being traced is traced;
so nothing loses its cause, in whatever order probes are attached and detached. Ended: nothing is
counted or written any more, and the accounts can be closed before the probes are detached."""

CONTROL: tuple[tuple[str, str], ...] = (
    ("phase", "enum phase; set by the reader"),
    ("written", "events, ever"),
    ("read", "events, ever; set by the reader"),
    ("idle", "the reader sleeps for long: the next event wakes it; set by the reader"),
    ("prover", "process that proves the probes, its id in its PID namespace; set by itself"),
    ("proof_task", "what bpf_get_current_pid_tgid calls the prover"),
    ("proof_entered", "entries of the prover"),
    ("proof_returned", "returns of the prover"),
)
"""Words that reader and programs share, in memory that both have mapped."""

STATS: tuple[tuple[str, str], ...] = (
    ("answers", "of the driver, ever"),
    ("answered_ns", "CLOCK_MONOTONIC when it sent the last ones"),
    ("bytes", "of `sent` that it sent"),
)
"""Words of what was last sent on the statistics queue, before `sent`: pairs of a u16 tag and a u64
value, packed (struct virtio_balloon_stat in include/uapi/linux/virtio_balloon.h)."""

_ASK_FOR_COOKIE = struct.pack("<BBhi", 0x85, 0, 0, 174)
"""The instruction that calls bpf_get_attach_cookie."""

COUNTERS: tuple[tuple[str, str], ...] = (
    ("entered", "calls entered"),
    ("written", "events written to the ring when the call returned"),
    ("lost", "events the ring had no room for"),
    ("lost_pages", "pages those events would have told of"),
    ("untracked", "calls for which `calls` had no room"),
    ("skipped", "calls that did nothing, and are counted here instead of written"),
    ("missed", "calls whose return was not seen"),
)
"""What is counted for each kind of event on each CPU: entered is the sum of written, lost,
untracked, skipped, missed, and of the calls that are still open."""

ENDS = ("written", "lost", "untracked", "skipped", "missed", "open")
"""What can have become of a call that was entered; `open` is counted by the recorder."""

_SEEN_LEAK, _SEEN_SLEEP = 1, 2

_KINDS = max(kind.number for kind in events.KINDS) + 1
_COUNTERS = struct.Struct(f"@{len(COUNTERS)}Q")
_TASK = struct.Struct("@IIIIII16s")
_SLOT = struct.Struct("@QQIIII")

_STAT = struct.Struct("<HQ")
_SENT_BYTES = MOST_STATS * _STAT.size
_STATS = struct.Struct(f"@{len(STATS)}Q")

STATS_BYTES = _STATS.size + _SENT_BYTES
"""Size of the only element of the map `sent_stats`."""

_SLOTS = 32
"""A power of two with room for CALLS: what indexes it is masked, which the verifier understands."""

COUNTERS_BYTES = _KINDS * _COUNTERS.size
"""Size of one CPU's counters, one element of the map `counters`."""

TARGET_BYTES = 8
"""Size of the only element of the map `last_target`."""

CONTROL_BYTES = 8 * len(CONTROL)
"""Size of the only element of the map `control`."""

_LAYOUT = struct.Struct(f"@{len(LAYOUT)}I")

TASK_BYTES = _TASK.size + _SLOTS * _SLOT.size
"""Size of one value of the map `calls`."""


def number_of_call(name: str) -> int:
    """The number of a call or of a moment. Raises ValueError if there is none of that name."""
    return [*(call.name for call in CALLS), *MOMENTS].index(name)


def number_of_control(name: str) -> int:
    """The place of a word of CONTROL. Raises ValueError if there is none of that name."""
    return [word for word, _ in CONTROL].index(name)


def c_header() -> str:
    """C declarations of the above."""
    names = [f"CALL_{name.upper()}" for name in (*(call.name for call in CALLS), *MOMENTS)]
    within = "".join(
        f'_Static_assert(1 << CALL_{bit.name.upper()} == WITHIN_{bit.name.upper()}, "");\n'
        for bit in events.WITHIN
    )
    paged = sum(1 << kind.number for kind in events.KINDS if kind.moves_pages)
    return f"""{_enum("call", names)}
#define CALLS {len(CALLS)}
#define SLOTS {_SLOTS}
{within}#define WITHIN_MASK {sum(bit.number for bit in events.WITHIN)}
#define KINDS_OF_PAGES {paged}u
{_prefixed("ASKED", ASKED)}
{_prefixed("DONE", DONE)}
{_prefixed("KEPT", KEPT)}
{_prefixed("FILL_FROM", FILL_FROM)}
{_prefixed("PHASE", PHASES)}
{_rows()}
#define SEEN_LEAK {_SEEN_LEAK}
#define SEEN_SLEEP {_SEEN_SLEEP}
struct layout {{
{_members("u32", LAYOUT)}
}};
struct control {{
{_members("u64", CONTROL)}
}};
struct counters {{
{_members("u64", COUNTERS)}
}};
struct sent_stats {{
{_members("u64", STATS)}
	char sent[{_SENT_BYTES}];
}};
struct cpu_counters {{
	struct counters kind[KINDS];
}};
struct slot {{
	u64 start;
	u64 object; /* what the return needs again */
	u32 asked;
	u32 done;
	u32 outer; /* bits of enum call: open when this one was entered */
	u32 unused;
}};
struct task_calls {{
	u32 open; /* bits of enum call */
	u32 traced; /* those of them that are counted, and will be written */
	u32 seen; /* SEEN_LEAK, SEEN_SLEEP: what this run of the size worker did */
	u32 queue; /* of the open CALL_ACK */
	u32 orphan; /* kind of the call the open CALL_ACK belongs to, if its entry was not traced */
	u32 pid;
	char comm[16];
	struct slot slot[SLOTS];
}};
"""


def _enum(name: str, values: Iterable[str]) -> str:
    return f"enum {name} {{ {', '.join(values)} }};"


def _prefixed(prefix: str, values: Iterable[str]) -> str:
    return _enum(prefix.lower(), (f"{prefix}_{value.upper()}" for value in values))


def _members(ctype: str, table: Iterable[tuple[str, str]]) -> str:
    return "\n".join(f"\t{ctype} {name}; /* {doc} */" for name, doc in table)


def _rows() -> str:
    """A function for each column of CALLS, which the compiler or the verifier folds."""
    columns = {
        "kind_of_call": [f"KIND_{call.kind.upper()}" if call.kind else "0" for call in CALLS],
        "asked_of_call": [f"ASKED_{call.asked.upper()}" for call in CALLS],
        "done_of_call": [f"DONE_{call.done.upper()}" for call in CALLS],
        "kept_of_call": [f"KEPT_{call.kept.upper()}" for call in CALLS],
        "callers_of_call": [
            str(sum(1 << number_of_call(caller) for caller in call.callers)) for call in CALLS
        ],
    }
    in_worker = sum(1 << number for number, call in enumerate(CALLS) if call.in_worker)
    functions = [_column(name, values) for name, values in columns.items()]
    return "\n".join([*functions, f"#define CALLS_IN_WORKER {in_worker}u"])


def _column(name: str, values: Iterable[str]) -> str:
    cases = "\n".join(
        f"\tcase CALL_{call.name.upper()}: return {value};"
        for call, value in zip(CALLS, values)
        if value not in ("0", "ASKED_UNKNOWN", "DONE_NOTHING", "KEPT_NOTHING")
    )
    head = f"static inline __attribute__((always_inline)) u32 {name}(u32 call)"
    return f"{head}\n{{\n\tswitch (call) {{\n{cases}\n\tdefault: return 0;\n\t}}\n}}"


def pack_layout(values: Mapping[str, int]) -> bytes:
    """The value of the map `layout`; what `values` lacks is not known."""
    return _LAYOUT.pack(*(values.get(name, 0) for name, _ in LAYOUT))


def for_call(template: bytes, call: str) -> bytes:
    """The compiled program that asks which call it is about, with the number of `call` instead.

    Raises ValueError if it does not ask exactly once, or if there is no such call.
    """
    if template.count(_ASK_FOR_COOKIE) != 1:
        raise ValueError("the program does not ask exactly once which call it is about")
    number = struct.pack("<BBhi", 0xB7, 0, 0, number_of_call(call))  # r0 = number
    return template.replace(_ASK_FOR_COOKIE, number)


def sum_counters(table: bytes | memoryview) -> dict[str, dict[str, int]]:
    """Kind -> counter -> sum over all CPUs, from the bytes of the map `counters`."""
    total = {kind.name: dict.fromkeys((name for name, _ in COUNTERS), 0) for kind in events.KINDS}
    for cpu in range(len(table) // COUNTERS_BYTES):
        for kind in events.KINDS:
            at = cpu * COUNTERS_BYTES + kind.number * _COUNTERS.size
            sums = total[kind.name]
            for (name, _), value in zip(COUNTERS, _COUNTERS.unpack_from(table, at)):
                sums[name] += value
    return total


def last_target(value: bytes) -> int | None:
    """The map `last_target`: balloon pages; None if no target was read yet (bpf/balloon.c)."""
    one_more = int.from_bytes(value[:TARGET_BYTES], sys.byteorder)
    return one_more - 1 if one_more else None


def sent_stats(value: bytes) -> dict[str, Any]:
    """The map `sent_stats`: `answers`, `answered_ns`, and `sent`, pairs of tag and value.

    Of what the driver did not fill in, tag and value are 0; the first that it fills in is tag 0,
    where it does that at all (update_balloon_stats in drivers/virtio/virtio_balloon.c).
    """
    answers, answered_ns, size = _STATS.unpack_from(value)
    pairs = [
        _STAT.unpack_from(value, _STATS.size + at)
        for at in range(0, min(size, _SENT_BYTES) - _STAT.size + 1, _STAT.size)
    ]
    sent = [list(pair) for number, pair in enumerate(pairs) if pair[0] or not number]
    return {"answers": answers, "answered_ns": answered_ns, "sent": sent}


class OpenCall:
    """A call that has not returned. event: as it would stand in the ring."""

    __slots__ = ("call", "event", "kind", "start_ns", "tid")

    def __init__(self, call: str, kind: str, tid: int, start_ns: int, event: bytes) -> None:
        self.call, self.kind, self.tid = call, kind, tid
        self.start_ns, self.event = start_ns, event


def open_calls(tasks: Iterable[tuple[int, bytes]], fill_from: str) -> Iterator[OpenCall]:
    """Every traced call that has not returned.

    tasks: (thread id, value) of each entry of the map `calls`; fill_from: of FILL_FROM. A run of
    the size worker is one only if it fills, as far as can be told (was_fill of balloon.c).
    """
    within_bits = sum(bit.number for bit in events.WITHIN)
    for tid, value in tasks:
        opened, traced, seen, queue, _, pid, comm = _TASK.unpack_from(value)
        for number, (call, kind) in enumerate((call.name, call.kind) for call in CALLS):
            if not kind or not traced >> number & 1:
                continue
            start, _, asked, done, _, _ = _SLOT.unpack_from(value, _TASK.size + number * _SLOT.size)
            if call == "worker" and (
                fill_from == "fill_balloon" or not _is_fill(asked, done, seen, traced)
            ):
                continue
            event = events.pack(
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
            )
            yield OpenCall(call, kind, tid, start, event)


def _is_fill(asked: int, done: int, seen: int, traced: int) -> bool:
    """Whether an open run of the size worker fills: it took pages in, or tries to."""
    if done:
        return True
    if seen & _SEEN_LEAK or traced >> number_of_call("leak") & 1:
        return False
    return asked > 0 if asked != events.UNKNOWN_PAGES else bool(seen & _SEEN_SLEEP)
