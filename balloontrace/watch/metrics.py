# SPDX-License-Identifier: Apache-2.0
"""The metrics, each declared once: name, labels with every value they can have, and where from.

`exposition.py` makes the page of them, `markdown` makes docs/metrics.md. No label has a value that
is not declared here, but for those of `balloontrace_info`: what a guest does makes no new series.
"""

from __future__ import annotations

import os

from balloontrace import events, sums
from balloontrace.conditions.agreement import COUNTERS
from balloontrace.conditions.triggers import FINDINGS
from balloontrace.tracers.attach import state

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from typing import Union

    Labels = tuple[str, ...]
    Value = Union[int, float, sums.Sum, None]

KERNEL_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
"""What compaction moves; anything else here is balloon pages."""

NS_PER_S = 10**9

OF_ANY_PROCESS = "process_"
"""How the names begin of what any process has that shows metrics: by Prometheus' convention."""

ASKED = "asked"
"""Why a recording is written that somebody asked for, and no finding."""

RESTART = "restart"
"""Why one is written of what the watcher before had kept when it ended, or was ended."""

DUMPED_FOR = (*FINDINGS, ASKED)

UNKEPT = ("events", "recordings")
"""What can be kept of the last minutes, and sometimes is not."""

REASONS = {"ring": "lost", "untracked": "untracked", "missed": "missed"}
"""Why a call is lost -> the counter of state.COUNTERS that says so."""

BUCKETS_NS = tuple(1 << bits for bits in range(14, 37, 2))
"""Upper limits of the histograms, inclusive; each is the limit of a slot of sums.py, too."""


class Reading:
    """What is known at one moment.

    sums: of sums.of_rows; counters: of state.sum_counters; size_pages, target_pages: balloon pages,
    None if not known; differences: name of COUNTERS -> summed pages less those of /proc/vmstat
    over the same span, in balloon pages, None if they cannot be compared; progress_pages: by which
    the size came closer to its target, ever; no_progress_ns: in which it was short of its target
    and came no closer although pages moved, ever; findings: how often each fired; dumps: recordings
    written, by why; kept_bytes: of segments on the disk; unkept: of UNKEPT, how many; means: of
    attachment; kernel: release; cpu_ns, rss_bytes, started_s (since the epoch): of the watcher;
    reading_ns: what the last reading took.
    """

    __slots__ = (
        *("attached", "counters", "cpu_ns", "differences", "dumps", "findings", "kept_bytes"),
        *("kernel", "means", "no_progress_ns", "progress_pages", "reading_ns", "rss_bytes"),
        *("size_pages", "started_s", "sums", "target_pages", "unkept", "version"),
    )

    def __init__(
        self,
        *,
        sums: Mapping[str, sums.Sum] | None = None,
        counters: Mapping[str, Mapping[str, int]] | None = None,
        size_pages: int | None = None,
        target_pages: int | None = None,
        differences: Mapping[str, int | None] | None = None,
        progress_pages: int = 0,
        no_progress_ns: int = 0,
        findings: Mapping[str, int] | None = None,
        dumps: Mapping[str, int] | None = None,
        kept_bytes: int = 0,
        unkept: Mapping[str, int] | None = None,
        attached: bool = False,
        means: str = "",
        version: str = "",
        kernel: str = "",
        cpu_ns: int = 0,
        rss_bytes: int = 0,
        started_s: float = 0.0,
        reading_ns: int = 0,
    ) -> None:
        self.sums, self.counters = sums or {}, counters or {}
        self.size_pages, self.target_pages = size_pages, target_pages
        self.differences = differences or {}
        self.progress_pages, self.no_progress_ns = progress_pages, no_progress_ns
        self.findings, self.dumps, self.kept_bytes = findings or {}, dumps or {}, kept_bytes
        self.unkept = unkept or {}
        self.attached, self.means, self.version, self.kernel = attached, means, version, kernel
        self.cpu_ns, self.rss_bytes, self.started_s = cpu_ns, rss_bytes, started_s
        self.reading_ns = reading_ns


class Sample:
    """One line of a page. suffix: what follows the metric's name; labels: name, value."""

    __slots__ = ("labels", "suffix", "value")

    def __init__(self, suffix: str, labels: tuple[tuple[str, str], ...], value: float) -> None:
        self.suffix, self.labels, self.value = suffix, labels, value


class Metric:
    """One metric.

    kind: counter, gauge or histogram; labels: their names; series: their values, of every series
    there can be; value: of a reading and one of `series`; None: no sample; a histogram's is a sum.
    told: in place of `series`, the values of the only series there is.
    """

    __slots__ = ("help", "kind", "labels", "name", "series", "told", "unit", "value")

    def __init__(
        self,
        name: str,
        kind: str,
        unit: str,
        help: str,
        value: Callable[..., Value],
        labels: Labels = (),
        series: tuple[Labels, ...] = ((),),
        told: Callable[[Reading], Labels] | None = None,
    ) -> None:
        self.name, self.kind, self.unit, self.help = name, kind, unit, help
        self.value, self.labels, self.series, self.told = value, labels, series, told

    @property
    def most_samples(self) -> int:
        """The samples of a reading of which everything is known."""
        each = len(BUCKETS_NS) + len(("+Inf", "_sum", "_count")) if self.kind == "histogram" else 1
        return each * len(self.series)

    def samples(self, reading: Reading) -> Iterator[Sample]:
        """What a reading says of it."""
        for values in self.series:
            value = self.value(reading, *values)
            named = tuple(zip(self.labels, self.told(reading) if self.told else values))
            if isinstance(value, sums.Sum):
                yield from _histogram(named, value)
            elif value is not None:
                yield Sample("", named, value)


def _histogram(labels: tuple[tuple[str, str], ...], durations: sums.Sum) -> Iterator[Sample]:
    counts = cumulative(durations.slots)
    for limit_ns, count in zip(BUCKETS_NS, counts):
        yield Sample("_bucket", (*labels, ("le", decimal(limit_ns / NS_PER_S))), count)
    yield Sample("_bucket", (*labels, ("le", "+Inf")), counts[-1])
    yield Sample("_sum", labels, durations.ns / NS_PER_S)
    yield Sample("_count", labels, counts[-1])


def cumulative(slots: Sequence[int]) -> list[int]:
    """Calls that took at most as long as each of BUCKETS_NS, and those of any duration."""
    return [sum(slots[:end]) for end in _ENDS_OF_BUCKETS] + [sum(slots)]


_ENDS_OF_BUCKETS = [
    1 + next(slot for slot in range(sums.SLOTS) if sums.longest_ns(slot) == limit_ns)
    for limit_ns in BUCKETS_NS
]


def decimal(value: float) -> str:
    """The shortest decimal number, without an exponent, that is read as `value` (finite)."""
    if value == int(value):
        return str(int(value))
    mantissa, _, exponent = repr(value).partition("e")
    if not exponent:
        return mantissa
    # Below 0.0001. Not by formatting: of 2^-24, that makes a number that is read as another one.
    digits, sign = mantissa.lstrip("-").replace(".", ""), "-" if value < 0 else ""
    return f"{sign}0.{'0' * (-int(exponent) - 1)}{digits}"


_NOTHING = sums.Sum(0, 0, 0, 0, [0] * sums.SLOTS)

_ROWS_OF = {
    kind.name: [row.name for row in sums.ROWS if row.kind == kind.name] for kind in events.KINDS
}


def _sum(reading: Reading, row: str) -> sums.Sum:
    return reading.sums.get(row, _NOTHING)


def _calls(reading: Reading, kind: str) -> int:
    return sum(_sum(reading, row).calls for row in _ROWS_OF[kind])


def _durations(reading: Reading, kind: str) -> sums.Sum:
    rows = [_sum(reading, row) for row in _ROWS_OF[kind]]
    if len(rows) == 1:
        return rows[0]
    slots = [sum(column) for column in zip(*(row.slots for row in rows))]
    return sums.Sum(0, 0, 0, sum(row.ns for row in rows), slots)


def _moved_bytes(reading: Reading, direction: str, cause: str) -> int:
    row = "fill" if direction == "in" else f"leak {cause}"
    return _sum(reading, row).done * events.BALLOON_PAGE_BYTES


def _in_bytes(pages: int | None) -> int | None:
    return None if pages is None else pages * events.BALLOON_PAGE_BYTES


def _lost_calls(reading: Reading, reason: str) -> int:
    return sum(counts.get(REASONS[reason], 0) for counts in reading.counters.values())


def _agrees(reading: Reading) -> int | None:
    known = [pages for pages in map(reading.differences.get, COUNTERS) if pages is not None]
    return int(not any(known)) if known else None


def _one_label(values: Sequence[str]) -> tuple[Labels, ...]:
    return tuple((value,) for value in values)


_CAUSES = tuple(row.detail for row in sums.ROWS if row.kind == "leak")
_QUEUES = tuple(row.detail for row in sums.ROWS if row.kind == "ack")
_KINDS = tuple(kind.name for kind in events.KINDS)
_WITH_RETURN = {call.kind for call in state.CALLS} - {"ack"}
_TIMED = tuple(name for name in _KINDS if name in _WITH_RETURN)
"""Kinds whose events have a duration; those of acks are told by queue."""

METRICS: tuple[Metric, ...] = (
    Metric(
        "balloontrace_info",
        "gauge",
        "1",
        "What watches: its version, the kernel's release, the means of attachment.",
        lambda reading: 1,
        ("version", "kernel", "means"),
        told=lambda reading: (reading.version, reading.kernel, reading.means),
    ),
    Metric(
        "balloontrace_attached",
        "gauge",
        "1 or 0",
        "Whether the driver is there and traced.",
        lambda reading: int(reading.attached),
    ),
    Metric(
        "balloontrace_calls_total",
        "counter",
        "calls",
        "Calls and moments of the balloon driver by kind of event.",
        _calls,
        ("kind",),
        _one_label(_KINDS),
    ),
    Metric(
        "balloontrace_moved_bytes_total",
        "counter",
        "bytes",
        "Memory moved into the balloon, which only the host causes, and out of it, by cause.",
        _moved_bytes,
        ("direction", "cause"),
        (("in", "host"), *(("out", cause) for cause in _CAUSES)),
    ),
    Metric(
        "balloontrace_leaks_total",
        "counter",
        "calls",
        "Chunks given back to the guest by cause.",
        lambda reading, cause: _sum(reading, f"leak {cause}").calls,
        ("cause",),
        _one_label(_CAUSES),
    ),
    Metric(
        "balloontrace_migrated_bytes_total",
        "counter",
        "bytes",
        "Memory of the balloon that compaction moved.",
        lambda reading: _sum(reading, "migrate").done * KERNEL_PAGE_BYTES,
    ),
    Metric(
        "balloontrace_call_duration_seconds",
        "histogram",
        "seconds",
        "Durations of calls by kind of event, but for acks.",
        _durations,
        ("kind",),
        _one_label(_TIMED),
    ),
    Metric(
        "balloontrace_host_ack_duration_seconds",
        "histogram",
        "seconds",
        "How long the host took to take an array of pages, by virtqueue.",
        lambda reading, queue: _sum(reading, f"ack {queue}"),
        ("queue",),
        _one_label(_QUEUES),
    ),
    Metric(
        "balloontrace_size_bytes",
        "gauge",
        "bytes",
        "Memory in the balloon. No sample while it is not known.",
        lambda reading: _in_bytes(reading.size_pages),
    ),
    Metric(
        "balloontrace_target_bytes",
        "gauge",
        "bytes",
        "Memory the host wants in the balloon. No sample while it is not known.",
        lambda reading: _in_bytes(reading.target_pages),
    ),
    Metric(
        "balloontrace_progress_bytes_total",
        "counter",
        "bytes",
        "By which the balloon came closer to its target.",
        lambda reading: _in_bytes(reading.progress_pages),
    ),
    Metric(
        "balloontrace_no_progress_seconds_total",
        "counter",
        "seconds",
        "Time in which the balloon was short of its target and came no closer, though pages moved.",
        lambda reading: reading.no_progress_ns / NS_PER_S,
    ),
    Metric(
        "balloontrace_lost_calls_total",
        "counter",
        "calls",
        "Calls that are in no recording or have no duration there: no room in the ring, "
        "no room for the call, return not seen.",
        _lost_calls,
        ("reason",),
        _one_label(tuple(REASONS)),
    ),
    Metric(
        "balloontrace_vmstat_difference_bytes",
        "gauge",
        "bytes",
        "Memory summed up less that of the balloon's counters in /proc/vmstat. "
        "No sample while they cannot be compared.",
        lambda reading, counter: _in_bytes(reading.differences.get(counter)),
        ("counter",),
        _one_label(tuple(COUNTERS)),
    ),
    Metric(
        "balloontrace_vmstat_agrees",
        "gauge",
        "1 or 0",
        "Whether each counter of /proc/vmstat that can be compared is met to the page. "
        "No sample while none can.",
        _agrees,
    ),
    Metric(
        "balloontrace_findings_total",
        "counter",
        "findings",
        "How often a known pathology was seen.",
        lambda reading, finding: reading.findings.get(finding, 0),
        ("finding",),
        _one_label(FINDINGS),
    ),
    Metric(
        "balloontrace_dumps_total",
        "counter",
        "recordings",
        "Recordings of the last minutes written, by what they were written for.",
        lambda reading, why: reading.dumps.get(why, 0),
        ("finding",),
        _one_label(DUMPED_FOR),
    ),
    Metric(
        "balloontrace_unkept_total",
        "counter",
        "events or recordings",
        "Events without room on the disk, and recordings beyond the most of an hour.",
        lambda reading, what: reading.unkept.get(what, 0),
        ("what",),
        _one_label(UNKEPT),
    ),
    Metric(
        "balloontrace_kept_bytes",
        "gauge",
        "bytes",
        "Size on the disk of the last minutes that are kept.",
        lambda reading: reading.kept_bytes,
    ),
    Metric(
        "balloontrace_reading_seconds",
        "gauge",
        "seconds",
        "What the last reading of all of this took.",
        lambda reading: reading.reading_ns / NS_PER_S,
    ),
    Metric(
        "process_cpu_seconds_total",
        "counter",
        "seconds",
        "CPU time of the watcher.",
        lambda reading: reading.cpu_ns / NS_PER_S,
    ),
    Metric(
        "process_resident_memory_bytes",
        "gauge",
        "bytes",
        "Resident memory of the watcher.",
        lambda reading: reading.rss_bytes,
    ),
    Metric(
        "process_start_time_seconds",
        "gauge",
        "seconds",
        "When the watcher was started, since the epoch.",
        lambda reading: reading.started_s,
    ),
)


def most_samples() -> int:
    """Series that a page can have; it has them all but for what is not known."""
    return sum(metric.most_samples for metric in METRICS)


def markdown() -> str:
    """The reference of metrics, docs/metrics.md."""
    limits = ", ".join(decimal(limit_ns / NS_PER_S) for limit_ns in BUCKETS_NS)
    out = [
        "# Metrics",
        "",
        "Generated from `balloontrace/watch/metrics.py` by `make docs`. What `balloontrace watch`",
        "tells Prometheus of a guest's balloon. Kinds are those of [events.md](events.md), causes",
        "and progress those of [concepts/metrics.md](concepts/metrics.md).",
        "",
        f"A guest has at most {most_samples()} series, whatever it does: every value of a label",
        "is listed here, and is there at 0 from the start. Counters begin when the watcher does.",
        "",
        "| metric | type | unit | labels | meaning |",
        "|---|---|---|---|---|",
    ]
    out += [f"| `{m.name}` | {m.kind} | {m.unit} | {_label_text(m)} | {m.help} |" for m in METRICS]
    out += [
        "",
        "The histograms' buckets hold calls of at most so many seconds; the limits are exact:",
        "",
        f"    {limits}, +Inf",
        "",
    ]
    return "\n".join(out)


def _label_text(metric: Metric) -> str:
    if metric.told:
        return ", ".join(f"`{label}`" for label in metric.labels) + ": one series"
    columns = (dict.fromkeys(values) for values in zip(*metric.series))
    return "; ".join(
        f"`{label}`: {', '.join(values)}" for label, values in zip(metric.labels, columns)
    )
