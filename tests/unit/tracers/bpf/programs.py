# SPDX-License-Identifier: Apache-2.0
"""bpf/balloon.c, its text unchanged, compiled for this machine and driven call by call.

What stands in for BPF is in mock/. One `Programs` is one kernel with its programs attached.
"""

from __future__ import annotations

import ctypes
import functools
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from balloontrace import events, sums
from balloontrace.tracers.attach import state
from balloontrace.tracers.load import compiler

CPUS = 2
_MOCK = Path(__file__).parent / "mock"
_WORDS = ("first", "second", "third", "fourth", "result")
_EVENT = events.RING_HEADER_BYTES

STOCK = {
    "num_pfns": 16,
    "num_pages": 24,
    "size_work": 64,
    "page_pages": 1,
    "ack_pages": 1,
    "leak_arguments": 1,
    "kills_marked": 1,
    "wake_events": 1 << 20,
    "pid_ns_inode": 7,
}
"""A layout as it is on a kernel with BTF; the offsets are those of `Balloon`."""


class Balloon(ctypes.Structure):
    """What the programs read of struct virtio_balloon, at the offsets of STOCK and HINTING."""

    _fields_ = (
        ("vdev", ctypes.c_uint64),  # no member of interest is the first: 0 is not known
        ("free_blocks", ctypes.c_uint64),
        ("num_pfns", ctypes.c_uint64),
        ("num_pages", ctypes.c_uint64),
        ("hint_work", ctypes.c_uint64 * 4),
        ("size_work", ctypes.c_uint64),
    )


HINTING = {"free_blocks": 8, "hint_work": 32, "hint_block_pages": 1024}


class Event(NamedTuple):
    """One event, its kind and its bits by name."""

    kind: str
    cause: str
    asked: int
    done: int
    duration_ns: int
    tid: int
    within: frozenset[str]
    queue: str
    flags: frozenset[str]


@functools.cache
def _library() -> ctypes.CDLL:
    directory = Path(tempfile.mkdtemp(prefix="balloontrace-bpf-"))
    source, library = directory / "balloon.c", directory / "balloon.so"
    source.write_text(compiler.source())
    flags = ["-shared", "-fPIC", "-O1", "-Wall", "-Werror", "-Wno-unused", "-Wno-unknown-pragmas"]
    constants = [f"-DCPUS={CPUS}", "-DRING_PAGES=256"]
    command = ["gcc", *flags, *constants, f"-I{_MOCK}", "-o", str(library), str(source)]
    subprocess.run(command, check=True)
    loaded = ctypes.CDLL(str(library))
    for path in (source, library):
        path.unlink()
    directory.rmdir()
    return loaded


class Programs:
    """A kernel on which the programs are attached; addresses are of this process's memory."""

    def __init__(self, layout: Mapping[str, int] = STOCK, phase: str = "tracing") -> None:
        self._library = _library()
        self._library.mock_reset()
        self._kept: list[ctypes.Array[ctypes.c_char]] = []
        self._interrupt: object = None
        self.layout = dict(layout)
        self._store("layout_values", state.pack_layout(self.layout))
        self.set("ring_full", 0)
        self.phase = phase
        self.task(1)

    # ---- the machine ----

    def set(self, name: str, value: int) -> None:
        """Set mock_`name`: now, cpu, ring_full, ns_task."""
        wide = name in ("now", "task", "ns_task", "cookie")
        kind = ctypes.c_uint64 if wide else ctypes.c_uint32
        kind.in_dll(self._library, f"mock_{name}").value = value

    @property
    def phase(self) -> str:
        """One of state.PHASES."""
        return state.PHASES[self.control("phase")]

    @phase.setter
    def phase(self, name: str) -> None:
        self.set_control("phase", state.PHASES.index(name))

    def task(self, tid: int, comm: str = "") -> None:
        """From now on this task runs, with a process of its own."""
        self.tid = tid
        self.set("task", tid << 32 | tid)
        name = (ctypes.c_char * 16).in_dll(self._library, "mock_comm")
        name.value = (comm or f"task{tid}").encode()[:15]

    def interrupt(self, call: str) -> None:
        """When a program next reads the clock, an interrupt enters `call`."""
        prototype = ctypes.CFUNCTYPE(None)
        self._interrupt = prototype(lambda: self.enter(call))
        address = ctypes.cast(self._interrupt, ctypes.c_void_p)
        ctypes.c_void_p.in_dll(self._library, "mock_interrupt").value = address.value

    def memory(self, *words: int, width: int = 8) -> int:
        """The address of these numbers, `width` bytes each, for as long as this object lives."""
        return self.text(b"".join(word.to_bytes(width, "little") for word in words))

    def text(self, content: bytes) -> int:
        """The address of `content`."""
        buffer = ctypes.create_string_buffer(content, len(content))
        self._kept.append(buffer)
        return ctypes.addressof(buffer)

    def queue(self, name: str) -> int:
        """A struct virtqueue of that name."""
        return self.memory(0, 0, 0, self.text(name.encode() + b"\0"))

    # ---- the programs ----

    def enter(self, call: str, *arguments: int) -> None:
        """The function of `call`, a call or a moment of state.py, is entered."""
        self._run("kprobe_entry", call, arguments)

    def leave(self, call: str, result: int = 0) -> None:
        """It returns."""
        self._run("kprobe_return", call, (), result)

    def tracepoint(self, program: str, *arguments: int) -> None:
        """A program of a raw tracepoint runs."""
        self._library[program]((ctypes.c_uint64 * 8)(*arguments))

    def _run(self, program: str, call: str, given: tuple[int, ...], result: int = 0) -> None:
        self.set("cookie", state.number_of_call(call))
        words = (ctypes.c_uint64 * len(_WORDS))(*given)
        words[-1] = result & (1 << 64) - 1
        self._library[program](words)

    # ---- what they leave ----

    def events(self, *kinds: str) -> list[Event]:
        """Every event written so far, or those of `kinds`."""
        written = ctypes.c_uint32.in_dll(self._library, "mock_written").value
        size = events.record_bytes()
        ring = (ctypes.c_char * (size * written)).in_dll(self._library, "mock_events")
        found = [self._event(ring.raw[at : at + size]) for at in range(0, size * written, size)]
        return [event for event in found if not kinds or event.kind in kinds]

    @staticmethod
    def _event(record: bytes) -> Event:
        fields = dict(zip((f.name for f in events.RECORD), events.unpack(record), strict=True))
        kind = next(kind.name for kind in events.KINDS if kind.number == fields["kind"])
        return Event(
            kind,
            events.cause_of(fields["within"]),
            fields["asked"],
            fields["done"],
            fields["duration_ns"],
            fields["tid"],
            _names(events.WITHIN, fields["within"]),
            next(queue.name for queue in events.QUEUES if queue.number == fields["queue"]),
            _names(events.FLAGS, fields["flags"]),
        )

    def woken(self) -> int:
        """How often the reader was woken."""
        return ctypes.c_uint32.in_dll(self._library, "mock_woken").value

    def counters(self) -> dict[str, dict[str, int]]:
        """state.sum_counters of all CPUs."""
        return state.sum_counters(self._load("counters_values", CPUS * state.COUNTERS_BYTES))

    def sums(self) -> dict[str, sums.Sum]:
        """sums.of_rows of all CPUs."""
        return sums.of_rows(self._load("sums_values", CPUS * sums.BYTES))

    def open_calls(self) -> list[state.OpenCall]:
        """state.open_calls of what the map `calls` holds."""
        fill_from = state.FILL_FROM[self.layout.get("fill_from", 0)]
        return list(state.open_calls(self.tasks(), fill_from))

    def tasks(self) -> Iterator[tuple[int, bytes]]:
        """(tid, value) of every entry of the map `calls`."""
        used = self._load("calls_used", 512)
        keys = memoryview(self._load("calls_keys", 4 * 512)).cast("I")
        values = self._load("calls_values", state.TASK_BYTES * 512)
        for place in range(512):
            if used[place]:
                yield keys[place], values[place * state.TASK_BYTES :][: state.TASK_BYTES]

    def sent_stats(self) -> dict[str, Any]:
        """state.sent_stats."""
        return state.sent_stats(self._load("sent_stats_values", state.STATS_BYTES))

    def control(self, name: str) -> int:
        """A word of state.CONTROL."""
        words = memoryview(self._load("control_values", state.CONTROL_BYTES)).cast("Q")
        return words[state.number_of_control(name)]

    def set_control(self, name: str, value: int) -> None:
        """Set a word of state.CONTROL, as the recorder does."""
        words = (ctypes.c_uint64 * len(state.CONTROL)).in_dll(self._library, "control_values")
        words[state.number_of_control(name)] = value

    def _load(self, name: str, size: int) -> bytes:
        return (ctypes.c_char * size).in_dll(self._library, name).raw

    def _store(self, name: str, content: bytes) -> None:
        (ctypes.c_char * len(content)).in_dll(self._library, name).raw = content


def _names(table: tuple[events.Bit, ...], value: int) -> frozenset[str]:
    return frozenset(bit.name for bit in table if value & bit.number)
