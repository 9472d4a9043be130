# SPDX-License-Identifier: Apache-2.0
"""A recording for ui.perfetto.dev: what each task did as slices, the balloon's sizes as counters.

Times are those of the recording, CLOCK_MONOTONIC, and that is the trace's clock. Packets are
written one by one in order of time. Strings from the guest are escaped: the user interface and SQL
show them as they are.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from operator import itemgetter
from typing import IO, Any

import numpy as np
from perfetto.protos.perfetto.trace.perfetto_trace_pb2 import (
    BuiltinClock,
    CounterDescriptor,
    TracePacket,
    TrackDescriptor,
    TrackEvent,
)
from perfetto.trace_builder.proto_builder import StreamingTraceProtoBuilder

from balloontrace.analysis.export.columns import column_of, is_named, is_used, names_in
from balloontrace.analysis.export.nesting import Nested, nest
from balloontrace.analysis.export.timeline import (
    FOREVER,
    INSTANTS,
    Calls,
    Counter,
    Mark,
    Numbers,
    Span,
    calls_of,
    counters_of,
    marks_of,
    spans_of,
)
from balloontrace.analysis.trace.trace import Ints, Trace, section
from balloontrace.escape import visible
from balloontrace.events import UNKNOWN_PAGES

_AT_ONCE = 1 << 15
"""Begins and ends of calls that are made ready at a time."""

_SEQUENCE = 1
_INT32 = 0x7FFFFFFF
_TOO_LARGE = 1 << 63

_Timed = tuple[int, TracePacket]


def write(trace: Trace, file: IO[bytes]) -> int:
    """Write the trace to `file`; returns how many packets it has.

    Raises OSError if `file` takes no more.
    """
    builder = StreamingTraceProtoBuilder(file)
    calls, counters = calls_of(trace), counters_of(trace)
    spans, marks = spans_of(trace), marks_of(trace)
    nested = nest(calls.thread, calls.start_ns, calls.end_ns)
    arguments, tracks = _Arguments(trace, calls), _Tracks()
    tracks.of_balloon(spans[0].track)  # tracks are shown in the order in which they come to be
    values = [_values(counter, tracks.of_counter(counter)) for counter in counters]
    once = sorted(_once(tracks, spans, marks), key=itemgetter(0))
    lanes = tracks.of_threads(calls, nested)
    written = 0
    for packet in (_clocks(trace), arguments.interned(calls), *tracks.descriptors):
        builder.write_packet(packet)
        written += 1
    timed = (iter(once), _slices(calls, nested, lanes, arguments), *values)
    for _, packet in heapq.merge(*timed, key=itemgetter(0)):
        builder.write_packet(packet)
        written += 1
    return written


class _Arguments:
    """What is said of each call beside its times. Every string is written once and numbered."""

    def __init__(self, trace: Trace, calls: Calls) -> None:
        self._records = trace.records
        self._calls = calls
        # What the header says of the others was seen to before.
        fields = ["asked", "done", *(["cpu"] if _is_whole(trace, "cpu") else []), "within", "flags"]
        self._fields = fields
        self._titles = Numbers(first=1)
        self._strings = Numbers(first=1)
        for task in calls.tasks:  # the first of all, so that their numbers are known
            self._strings.of(task)
        self._comm = self._titles.of("comm")
        # For each kind: place in `_fields`, number of the argument's name, names of its values.
        self._said: list[list[tuple[int, int, dict[int, int] | None]]] = []
        named = {f: self._names_of(trace, f) for f in self._fields if is_named(f)}
        for kind in calls.kinds:
            columns = [
                (place, self._titles.of(column_of(trace, kind, f).with_unit), named.get(f))
                for place, f in enumerate(self._fields)
                if is_used(kind, f)
            ]
            self._said.append(columns)

    def _names_of(self, trace: Trace, field: str) -> dict[int, int]:
        """Each number that occurs in a field -> the number of the string that names it."""
        numbers = np.unique(self._records[field]).tolist()
        names = ((number, visible(names_in(trace, field, number))) for number in numbers)
        return {number: self._strings.of(name) for number, name in names}

    def interned(self, calls: Calls) -> TracePacket:
        """The packet that has all strings; it must come before those that use them."""
        packet = TracePacket(
            trusted_packet_sequence_id=_SEQUENCE,
            sequence_flags=TracePacket.SEQ_INCREMENTAL_STATE_CLEARED,
        )
        packet.trace_packet_defaults.timestamp_clock_id = BuiltinClock.BUILTIN_CLOCK_MONOTONIC
        data = packet.interned_data
        for number, name in enumerate(calls.names, 1):
            data.event_names.add(iid=number, name=name)
        for number, name in enumerate(calls.kinds, 1):
            data.event_categories.add(iid=number, name=name)
        for name, number in self._titles.items():
            data.debug_annotation_names.add(iid=number, name=name)
        for text, number in self._strings.items():
            data.debug_annotation_string_values.add(iid=number, str=text.encode())
        return packet

    def begins(self, places: Ints) -> Iterator[TrackEvent]:
        """For each of these calls the event of its begin, which lacks only the track."""
        calls = self._calls
        records = self._records[calls.record[places]]
        columns = [records[field].tolist() for field in self._fields]
        about = (calls.kind, calls.name, calls.task, calls.thread)
        rows = zip(zip(*columns, strict=True), *(a[places].tolist() for a in about), strict=True)
        for values, kind, name, task, thread in rows:
            instant = calls.kinds[kind] in INSTANTS
            event = TrackEvent(
                type=TrackEvent.TYPE_INSTANT if instant else TrackEvent.TYPE_SLICE_BEGIN,
                name_iid=name + 1,
                category_iids=(kind + 1,),
            )
            say = event.debug_annotations.add
            for place, title, names in self._said[kind]:
                value = values[place]
                if names is not None:
                    if value:
                        say(name_iid=title, string_value_iid=names[value])
                elif value != UNKNOWN_PAGES:
                    fits = "int_value" if value < _TOO_LARGE else "uint_value"
                    say(name_iid=title, **{fits: value})
            if task != calls.last_task[thread]:
                say(name_iid=self._comm, string_value_iid=task + 1)
            yield event


class _Tracks:
    """The tracks of a trace: those of the balloon in one group, and one for each thread."""

    def __init__(self) -> None:
        self.descriptors: list[TracePacket] = []
        self._balloon: dict[str, int] = {}
        self._group = self._new(name="virtio balloon", child_ordering=TrackDescriptor.EXPLICIT)

    def _new(self, parent: int = 0, **fields: Any) -> int:
        """Describe one more track; returns its number."""
        number = len(self.descriptors) + 1
        packet = TracePacket(trusted_packet_sequence_id=_SEQUENCE)
        packet.track_descriptor.MergeFrom(TrackDescriptor(uuid=number, **fields))
        if parent:
            packet.track_descriptor.parent_uuid = parent
        self.descriptors.append(packet)
        return number

    def of_balloon(self, name: str, **fields: Any) -> int:
        """The balloon's track of this name."""
        if name not in self._balloon:
            rank = len(self._balloon)
            self._balloon[name] = self._new(
                self._group, name=name, sibling_order_rank=rank, **fields
            )
        return self._balloon[name]

    def of_counter(self, counter: Counter) -> int:
        """The track of a counter; all share one scale."""
        described = CounterDescriptor(
            unit=CounterDescriptor.UNIT_SIZE_BYTES, y_axis_share_key="bytes"
        )
        return self.of_balloon(counter.name, description=counter.doc, counter=described)

    def of_threads(self, calls: Calls, nested: Nested) -> Ints:
        """For each thread its first track; those of its further lanes are the numbers after it."""
        processes: dict[int, int] = {}
        tasks = [calls.tasks[task] for task in calls.last_task]
        threads = list(zip(calls.threads, tasks, strict=True))
        # A process is called like its first thread, if that made a call.
        names = {pid: name for (pid, _), name in threads}
        names |= {pid: name for (pid, tid), name in threads if pid == tid}
        first = []
        for place, ((pid, tid), name) in enumerate(threads):
            ids = {"pid": pid & _INT32}
            if pid not in processes:
                processes[pid] = self._new(process={**ids, "process_name": names[pid]})
            thread = {**ids, "tid": tid & _INT32, "thread_name": name}
            first.append(self._new(processes[pid], thread=thread))
            for _ in range(nested.deepest.get(place, 0)):
                self._new(first[-1], name=f"{name} (overlapping)")
        return np.array(first, dtype=np.int64)


def _is_whole(trace: Trace, field: str) -> bool:
    """Whether the events have this field, and it holds integers."""
    layout = trace.records.dtype
    return field in (layout.names or ()) and layout[field].kind in "iu"


def _clocks(trace: Trace) -> TracePacket:
    """What the trace's clock is, and what time of day it was."""
    clock = section(trace.header, "clock")
    packet = TracePacket(trusted_packet_sequence_id=_SEQUENCE)
    packet.clock_snapshot.primary_trace_clock = BuiltinClock.BUILTIN_CLOCK_MONOTONIC
    read = {
        BuiltinClock.BUILTIN_CLOCK_MONOTONIC: clock.get("monotonic_ns", trace.begin_ns),
        BuiltinClock.BUILTIN_CLOCK_REALTIME: clock.get("realtime_ns"),
    }
    for clock_id, time_ns in read.items():
        if time_ns is not None:
            packet.clock_snapshot.clocks.add(clock_id=clock_id, timestamp=max(0, int(time_ns)))
    return packet


def _event(time_ns: int, track: int, event: TrackEvent) -> _Timed:
    """A packet with an event of a track."""
    packet = TracePacket(
        timestamp=max(0, time_ns),  # of a damaged event any, which would not be in order
        trusted_packet_sequence_id=_SEQUENCE,
        sequence_flags=TracePacket.SEQ_NEEDS_INCREMENTAL_STATE,
        track_event=event,
    )
    packet.track_event.track_uuid = track
    return time_ns, packet


def _slices(calls: Calls, nested: Nested, lanes: Ints, arguments: _Arguments) -> Iterator[_Timed]:
    """Begin and end of each call; only the begin of one that is open or has no duration."""
    place = np.where(nested.edges < 0, ~nested.edges, nested.edges)
    no_duration = np.isin(calls.kind, [n for n, k in enumerate(calls.kinds) if k in INSTANTS])
    ended = (calls.end_ns != FOREVER) & ~no_duration
    shown = (nested.edges >= 0) | ended[place]
    edges, place = nested.edges[shown], place[shown]
    time_ns = np.where(edges < 0, calls.end_ns[place], calls.start_ns[place])
    order = np.argsort(time_ns, kind="stable")
    over = TrackEvent(type=TrackEvent.TYPE_SLICE_END)
    for begin in range(0, len(order), _AT_ONCE):
        part = order[begin : begin + _AT_ONCE]
        begun = edges[part] >= 0
        begins = arguments.begins(place[part][begun])
        track = lanes[calls.thread[place[part]]] + nested.lane[place[part]]
        rows = zip(time_ns[part].tolist(), track.tolist(), begun.tolist(), strict=True)
        for at, where, is_begin in rows:
            yield _event(at, where, next(begins) if is_begin else over)


def _values(counter: Counter, track: int) -> Iterator[_Timed]:
    """The values of a counter."""
    for begin in range(0, len(counter.time_ns), _AT_ONCE):
        part = slice(begin, begin + _AT_ONCE)
        rows = zip(counter.time_ns[part].tolist(), counter.value[part].tolist(), strict=True)
        for at, value in rows:
            event = TrackEvent(type=TrackEvent.TYPE_COUNTER, counter_value=value)
            yield _event(at, track, event)


def _once(tracks: _Tracks, spans: list[Span], marks: list[Mark]) -> Iterator[_Timed]:
    """Spans and marks."""
    items: list[Span | Mark] = [*spans, *marks]
    for item in items:
        track = tracks.of_balloon(item.track)
        event = TrackEvent(name=item.name, categories=["balloon"])
        for name, value in item.arguments.items():
            kind = "string" if isinstance(value, str) else "int"
            kind = "bool" if isinstance(value, bool) else kind
            event.debug_annotations.add(name=name, **{f"{kind}_value": value})
        if isinstance(item, Mark):
            event.type = TrackEvent.TYPE_INSTANT
            yield _event(item.time_ns, track, event)
            continue
        event.type = TrackEvent.TYPE_SLICE_BEGIN
        yield _event(item.start_ns, track, event)
        if item.end_ns is not None:
            yield _event(item.end_ns, track, TrackEvent(type=TrackEvent.TYPE_SLICE_END))
