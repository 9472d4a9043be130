# SPDX-License-Identifier: Apache-2.0
"""The host's view of a guest, JSON lines beside its recording: `.host.jsonl` (docs/host.md).

Each line is an object with `event` and `t_ns`, the host's CLOCK_MONOTONIC. Sizes of the balloon are
bytes inside the balloon, whatever the hypervisor says. What is not known is left out; `tells`, in
the first line, names the events that this source can tell at all, so that nothing is called absent
that could not be seen. Standard library only, Python 3.9: `live` reads it in guests, too.
"""

from __future__ import annotations

import json
import os
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from balloontrace import untrusted_json
from balloontrace.errors import UserError
from balloontrace.untrusted_json import flag, number, text, whole

if TYPE_CHECKING:
    from balloontrace.untrusted_json import Shape

SUFFIX, RECORDING = ".host.jsonl", ".btrace"
"""How its name ends, and that of the recording that it lies beside."""

FORMAT_VERSION = 1

BEGIN, CLOCK, TARGET, ACTUAL, STATISTICS, MEMORY, VCPUS, STATE, END = (
    *("begin", "clock", "target", "actual", "statistics", "memory", "vcpus", "state"),
    "end",
)
"""What a line tells. begin: of whom, by whom; clock: host and guest at one moment; target: what the
host wants; actual: what the hypervisor says of the balloon; statistics: what the guest last said
on the statistics queue; memory: of the hypervisor's process; vcpus: CPU time of the guest's
processors, and how long they waited for one; state: running, paused, migrated, gone; end: why the
recording ended."""

SET, SEEN = "set", "seen"
"""How a target is known: this process set it, at that moment; or it was found changed, after
`after_ns`."""

SHAPES: dict[str, Shape] = {
    BEGIN: {
        "format": whole,
        "tool": text,
        "hypervisor": text,
        "version": text,
        "memory_bytes": whole,
        "utc_ns": whole,
        "interval_s": number,
        "pid": whole,
        "tells": [text],
        "vfio": flag,
    },
    CLOCK: {
        "utc_ns": whole,
        "guest_monotonic_ns": whole,
        "guest_utc_ns": whole,
        "error_ns": whole,
        "boot_id": text,
        "by": text,
    },
    TARGET: {"bytes": whole, "by": text, "after_ns": whole},
    ACTUAL: {"bytes": whole, "by": text},
    STATISTICS: {"values": {...: whole}, "age_s": number, "polling_interval_s": whole},
    MEMORY: {"event": text, ...: whole},
    VCPUS: {"cpu_ns": whole, "waited_ns": whole, "threads": whole},
    STATE: {"state": text},
    END: {"reason": text},
}
"""What the reader takes of a line. Other events, and other keys, are as they stand in the file."""

_MOST_BYTES = 1 << 30
"""Of a file: a week of four samples a second is less."""

_LONGEST_LINE = 1 << 20
"""Of a file that grows: so much of a line is kept until its end comes."""


@dataclass
class HostLines:
    """What could be read of a file.

    begin: its first line; events: name -> its lines, in order of time, each with `t_ns`; damage:
    lines that are none, and values that do not fit.
    """

    path: str
    begin: dict[str, Any]
    events: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    damage: int = 0

    def of(self, event: str) -> list[dict[str, Any]]:
        """The lines of one event."""
        return self.events.get(event, [])

    def tells(self, event: str) -> bool:
        """Whether this event would be here, had it happened."""
        return event in self.begin.get("tells", []) or event in self.events


class HostLog:
    """An append-only file of such lines; a context manager, usable from several threads."""

    def __init__(self, file: IO[str]) -> None:
        """file: text, which is closed at the end; each line is flushed."""
        self._file = file
        self._lock = threading.Lock()

    def __enter__(self) -> HostLog:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def begin(self, **facts: Any) -> None:
        """Write the first line."""
        self.write(BEGIN, format=FORMAT_VERSION, utc_ns=time.time_ns(), **facts)

    def write(self, event: str, t_ns: int | None = None, **fields: object) -> None:
        """Append one line, now unless t_ns says when; what is None is left out."""
        known = {name: value for name, value in fields.items() if value is not None}
        line = {"event": event, "t_ns": time.monotonic_ns() if t_ns is None else t_ns, **known}
        with self._lock:
            self._file.write(json.dumps(line) + "\n")
            self._file.flush()


class HostReader:
    """Reads such a file as it comes.

    begin: its first line, None until that came; damage: lines that are none, and values that do not
    fit.
    """

    def __init__(self, path: str) -> None:
        """path: for people."""
        self._path = path
        self.begin: dict[str, Any] | None = None
        self._torn = b""
        self._no_lines = 0
        self._fitting = untrusted_json.Fitting()

    @property
    def damage(self) -> int:
        """How much of it is none."""
        return self._no_lines + len(self._fitting.dropped)

    def take(self, data: bytes) -> list[dict[str, Any]]:
        """The lines behind the first one that are whole, with `data` behind what came before.
        Raises UserError if the file does not begin as such a file does, or is too new."""
        *lines, self._torn = (self._torn + data).split(b"\n")
        if len(self._torn) > _LONGEST_LINE:
            self._torn = b"?"  # is none, with all that follows up to its end
        return [fitted for line in lines for fitted in self._read(line)]

    def end(self) -> list[dict[str, Any]]:
        """The last line, if it has no end. Raises UserError as `take`, and if there was no line."""
        torn, self._torn = self._torn, b""
        return self._read(torn) if torn or self.begin is None else []

    def _read(self, told: bytes) -> list[dict[str, Any]]:
        line = _line(told)
        if self.begin is None:
            self._begin(line)
        elif line is None:
            self._no_lines += 1
        else:
            shape = SHAPES.get(line["event"])
            return [line if shape is None else self._fitting.fit(line, shape)]
        return []

    def _begin(self, line: dict[str, Any] | None) -> None:
        if line is None or line.get("event") != BEGIN:
            raise UserError(
                f"{self._path} does not begin as the host's view of a guest does",
                "record one with: balloontrace host record",
            )
        begin = self._fitting.fit(line, SHAPES[BEGIN])
        version = begin.get("format")
        if version is None or version > FORMAT_VERSION:
            raise UserError(
                f"{self._path} has format {version}, this version reads up to {FORMAT_VERSION}",
                "upgrade balloontrace",
            )
        self.begin = begin


def read_host(path: str) -> HostLines:
    """Read the file at `path`, as far as it can be read.

    Raises UserError if it cannot be opened, or does not begin as such a file does.
    """
    try:
        with Path(path).open("rb") as file:
            told = file.read(_MOST_BYTES + 1)
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from None
    if len(told) > _MOST_BYTES:
        raise UserError(f"{path} has over {_MOST_BYTES >> 30} GiB", "cut it with split -l")
    reader = HostReader(path)
    lines = reader.take(told) + reader.end()
    found = HostLines(path, reader.begin or {}, damage=reader.damage)
    for line in lines:
        found.events.setdefault(line["event"], []).append(line)
    for of_event in found.events.values():
        of_event.sort(key=lambda line: int(line["t_ns"]))
    return found


def named_as(recording: Path) -> Path | None:
    """The host's view that is named as a recording is, if there is one."""
    if recording.suffix != RECORDING:
        return None
    named = recording.with_suffix(SUFFIX)
    return named if os.path.isfile(named) else None  # a name that is too long is none


def resident_bytes(line: dict[str, Any]) -> int | None:
    """Of a MEMORY line, the host's memory that the hypervisor's process has, huge pages among it;
    None: not told."""
    if "rss_bytes" not in line:
        return None
    resident = int(line["rss_bytes"]) + int(line.get("hugetlb_bytes", 0))
    return resident if whole(resident) else None


def _line(text_of_line: bytes) -> dict[str, Any] | None:
    """One line; None if it is none, as one that was torn."""
    try:
        line = json.loads(text_of_line)
    except (ValueError, RecursionError):
        return None
    told = isinstance(line, dict) and isinstance(line.get("event"), str)
    return line if told and whole(line.get("t_ns")) else None
