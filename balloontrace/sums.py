# SPDX-License-Identifier: Apache-2.0
"""What the BPF programs sum up of the calls they tell of, declared once.

A call is added where its event is made, whether the ring then has room for the event or not, and
also if no events are written at all (`silent` of state.LAYOUT): sums need no room that can run out.
`c_header` gives bpf/balloon.c the structures; the recorder reads the same bytes with `of_rows`.
"""

from __future__ import annotations

from balloontrace import events

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

FIRST_BITS = 10
SLOTS = 28
"""Of a histogram of durations: those of at most 2^FIRST_BITS ns, of at most twice as much, and so
on; the last slot is of all that are longer than any other holds (2^36 ns, 69 s)."""

_ROWS = 32
"""A power of two with room for all: what indexes them is masked, which the verifier understands."""

_KINDS = max(kind.number for kind in events.KINDS)
_QUEUES = ("inflate", "deflate")
_CAUSE_ROWS = {bit: _KINDS + place for place, (_, bit) in enumerate(events.CAUSES)}
_QUEUE_ROWS = {queue: _KINDS + len(_CAUSE_ROWS) + place for place, queue in enumerate(_QUEUES)}
"""Behind those of the kinds: for the bit of `within` that shows the cause, and for the queue. Those
of no cause, and of other queues, have the row of their kind."""

_TOTALS = ("calls", "asked", "done", "ns")
"""Of a row: calls; balloon pages asked for and done, where a kind's are pages and visible (see
events.py for its unit); nanoseconds from entry to return."""

_WORDS = len(_TOTALS) + SLOTS

BYTES = 8 * _ROWS * _WORDS
"""Size of one CPU's rows, one element of the map `sums`."""


class Row:
    """Of what calls a row is. kind: of event; detail: cause of a leak, queue of an ack, or ''."""

    __slots__ = ("detail", "kind", "number")

    def __init__(self, kind: str, detail: str, number: int) -> None:
        self.kind, self.detail, self.number = kind, detail, number

    @property
    def name(self) -> str:
        """As a trailer calls it: `fill`, `leak shrinker`, `ack inflate`."""
        return f"{self.kind} {self.detail}".rstrip()


def _rows() -> Iterator[Row]:
    for kind in events.KINDS:
        own = kind.number - 1
        if kind.name == "leak":
            yield from (Row("leak", cause, _CAUSE_ROWS[bit]) for cause, bit in events.CAUSES)
            yield Row("leak", "unknown", own)
        elif kind.name == "ack":
            yield from (Row("ack", queue, row) for queue, row in _QUEUE_ROWS.items())
            yield Row("ack", "other", own)
        else:
            yield Row(kind.name, "", own)


ROWS: tuple[Row, ...] = tuple(_rows())
"""A row for each kind of event; for each cause of those of leaks, for each queue of acks."""


class Sum:
    """What a row has come to.

    calls, asked, done, ns: see _TOTALS; slots: calls by duration, see SLOTS; those whose return was
    missed, and events without a duration, are in no slot and have no nanoseconds.
    """

    __slots__ = ("asked", "calls", "done", "ns", "slots")

    def __init__(self, calls: int, asked: int, done: int, ns: int, slots: list[int]) -> None:
        self.calls, self.asked, self.done, self.ns = calls, asked, done, ns
        self.slots = slots

    def __sub__(self, before: Sum) -> Sum:
        """What was added since `before`."""
        slots = [now - then for now, then in zip(self.slots, before.slots)]
        return Sum(
            self.calls - before.calls,
            self.asked - before.asked,
            self.done - before.done,
            self.ns - before.ns,
            slots,
        )


def of_rows(table: bytes | memoryview) -> dict[str, Sum]:
    """Name of a row -> its sum over all CPUs, from the bytes of the map `sums`."""
    words = memoryview(table).cast("Q")
    cpus = [cpu * _ROWS * _WORDS for cpu in range(len(table) // BYTES)]
    found = {}
    for row in ROWS:
        at = row.number * _WORDS
        spans = [words[cpu + at : cpu + at + _WORDS] for cpu in cpus]
        calls, asked, done, ns, *slots = map(sum, zip(*spans))
        found[row.name] = Sum(calls, asked, done, ns, slots)
    return found


def as_json(sums: dict[str, Sum]) -> dict[str, Any]:
    """`sums` of the trailer: rows with a call in them; slots up to the last that is not 0."""
    return {
        name: {
            **{total: getattr(row, total) for total in _TOTALS},
            "slots": row.slots[: max((i + 1 for i, n in enumerate(row.slots) if n), default=0)],
        }
        for name, row in sums.items()
        if row.calls
    }


def longest_ns(slot: int) -> int | None:
    """The longest duration that a slot holds; None: there is no limit."""
    return 1 << (FIRST_BITS + slot) if slot < SLOTS - 1 else None


def c_header() -> str:
    """C declarations of the above."""
    totals = "\n".join(f"\tu64 {name};" for name in _TOTALS)
    return f"""#define SUM_ROWS {_ROWS}
#define SUM_SLOTS {SLOTS}
#define SUM_FIRST_BITS {FIRST_BITS}
struct sums {{
{totals}
	u64 slot[SUM_SLOTS];
}};
struct cpu_sums {{
	struct sums row[SUM_ROWS];
}};
{_choose_row()}"""


def _choose_row() -> str:
    """The row of a call, chosen with CHOOSE and the functions of bpf/balloon.c: the first of
    events.CAUSES that applies is chosen last."""
    causes = [
        f"CHOOSE(row, is_leak & nonzero(within & WITHIN_{bit.upper()}), {row}ull);"
        for bit, row in reversed(_CAUSE_ROWS.items())
    ]
    queues = [
        f"CHOOSE(row, is_ack & is_equal(queue, QUEUE_{queue.upper()}), {row}ull);"
        for queue, row in _QUEUE_ROWS.items()
    ]
    lines = [
        "u64 row = kind - 1;",
        "u64 is_leak = is_equal(kind, KIND_LEAK), is_ack = is_equal(kind, KIND_ACK);",
        *(*causes, *queues, "return row;"),
    ]
    body = " \\\n\t".join(lines)
    return f"#define RETURN_ROW_OF(kind, within, queue) \\\n\t{body}\n"
