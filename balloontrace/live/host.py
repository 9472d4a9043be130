# SPDX-License-Identifier: Apache-2.0
"""What the host says of a guest, beside what the guest says: a `.host.jsonl` that grows.

Its moments are laid beside the guest's as the report does (recording/host_clock.py); what is not
known by the guest's clock is shown as the latest only. Its memory does not grow with the file.
"""

from __future__ import annotations

import os
import stat
from collections import deque
from collections.abc import Iterable
from dataclasses import replace
from typing import Any, Optional

from balloontrace.errors import UserError
from balloontrace.events import BALLOON_PAGE_BYTES
from balloontrace.live.seconds import KEPT
from balloontrace.live.tally import section
from balloontrace.live.view import SILENT_S, Host
from balloontrace.recording import host_lines
from balloontrace.recording.host_clock import HostClock, by_wall_clocks
from balloontrace.recording.host_lines import HostReader, resident_bytes

AT_ONCE = 1 << 18
"""Bytes that are read at once: a few minutes of it."""

_EACH_NS = 250_000_000
"""One moment of so long is kept, how it stood at its end."""

_OLD_NS = 2_000_000_000
"""A sample that was so long before a moment, and three intervals, says nothing of it any more."""

_MOST_PAIRS, _MOST_STATES = 64, 256
"""That are kept: pairs of clocks, of which one comes a minute, and changes of state."""

_NOTHING = Host(None, None, None, None, None, None, None, None, "")

_OTHER_BOOT = "of another guest, or of another boot of this one"
"""As report has it."""


class HostFile:
    """A `.host.jsonl` that is written meanwhile, or was. name: of the file."""

    def __init__(self, path: str) -> None:
        """Raises UserError if it cannot be read."""
        self.name = path
        try:
            # A FIFO would be waited for.
            self._file = open(  # noqa: SIM115 - closed with the process
                os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb", buffering=0
            )
        except OSError as error:
            raise UserError(f"cannot read {path}: {error.strerror}") from None
        if not stat.S_ISREG(os.fstat(self._file.fileno()).st_mode):
            raise UserError(f"{path} is no regular file", "give what host record -o writes")

    def looked_at(self) -> HostFile:
        """Itself, if it begins as it should, as far as it is there. Raises UserError."""
        HostReader(self.name).take(self.read())
        self._file.seek(0)
        return self

    def read(self) -> bytes:
        """What has come, some of it at once. Raises UserError if it cannot be read."""
        try:
            return self._file.read(AT_ONCE) or b""
        except OSError as error:
            raise UserError(f"cannot read {self.name}: {error.strerror}") from None


class HostSide:
    """What is known of one host's view."""

    def __init__(self, name: str) -> None:
        """name: of the file, for people."""
        self._reader = HostReader(name)
        self._now = _NOTHING
        self._now_ns: Optional[int] = None
        self._first_resident: Optional[int] = None
        self._kept: deque[tuple[int, Host]] = deque(maxlen=KEPT * 1_000_000_000 // _EACH_NS)
        self._pairs: deque[dict[str, Any]] = deque(maxlen=_MOST_PAIRS)
        self._states: deque[dict[str, Any]] = deque(maxlen=_MOST_STATES)
        self._boots: set[str] = set()
        self._clock: Optional[HostClock] = None
        self._fed_s: Optional[float] = None
        self._end: Optional[str] = None

    def feed(self, data: bytes, now_s: float) -> None:
        """Take what came next. Raises UserError if it is no host's view, or too new a one."""
        self._fed_s = now_s
        for line in self._reader.take(data):
            self._take(line)

    def view(
        self, guest: dict[str, Any], now_s: float, at_ns: Optional[int] = None
    ) -> Optional[Host]:
        """The latest, or how it stood at a moment of the guest's clock; None: not known.

        guest: the header of its recording.
        """
        begin = self._reader.begin
        if begin is None:
            return None
        hypervisor = begin.get("hypervisor")
        if self._is_of_another(guest):
            empty = replace(_NOTHING, hypervisor=hypervisor, said=_OTHER_BOOT)
            return empty if at_ns is None else None
        if at_ns is None:
            return replace(self._now, hypervisor=hypervisor, said=self._said(now_s))
        found = self._at(self._clock_of(begin, guest), at_ns, float(begin.get("interval_s") or 0))
        return None if found is None else replace(found, hypervisor=hypervisor)

    # ---- what comes ----

    def _take(self, line: dict[str, Any]) -> None:
        event, t_ns = line["event"], int(line["t_ns"])
        if event == host_lines.CLOCK:
            self._compare(line)
            return
        if event == host_lines.END:
            self._end = str(line.get("reason") or "reason not known")
            return
        if event == host_lines.STATE:
            self._states.append(line)
            self._clock = None
        changed = self._changed(event, line)
        if changed:
            self._now = replace(self._now, **changed)
            self._keep(max(t_ns, self._now_ns or 0))

    def _changed(self, event: str, line: dict[str, Any]) -> dict[str, Any]:
        """What of a view a line says."""
        if event in (host_lines.TARGET, host_lines.ACTUAL) and "bytes" in line:
            return {f"{event}_pages": int(line["bytes"]) // BALLOON_PAGE_BYTES}
        if event == host_lines.STATE and "state" in line:
            return {"state": line["state"]}
        if event == host_lines.STATISTICS:
            asks_s = line.get("polling_interval_s")
            return {"statistics_age_s": line.get("age_s"), "polling_interval_s": asks_s}
        resident = resident_bytes(line) if event == host_lines.MEMORY else None
        if resident is None:
            return {}
        if self._first_resident is None:
            self._first_resident = resident
        return {"resident_bytes": resident, "gained_bytes": self._first_resident - resident}

    def _compare(self, line: dict[str, Any]) -> None:
        """Take a pair of both clocks."""
        self._pairs.append(line)
        self._clock = None
        if "boot_id" in line and len(self._boots) < _MOST_PAIRS:
            self._boots.add(line["boot_id"])

    def _keep(self, t_ns: int) -> None:
        self._now_ns = t_ns
        if self._kept and self._kept[-1][0] // _EACH_NS == t_ns // _EACH_NS:
            self._kept.pop()
        self._kept.append((t_ns, self._now))

    # ---- by the guest's clock ----

    def _is_of_another(self, guest: dict[str, Any]) -> bool:
        boot_id = section(guest, "guest").get("boot_id")
        return bool(boot_id and self._boots and boot_id not in self._boots)

    def _clock_of(self, begin: dict[str, Any], guest: dict[str, Any]) -> HostClock:
        """As analysis/trace/host_view.py makes it, of the last pairs."""
        if self._clock is None:
            boot_id = section(guest, "guest").get("boot_id") if self._boots else None
            pairs = [line for line in self._pairs if boot_id in (None, line.get("boot_id"))]
            wall = by_wall_clocks(begin, section(guest, "clock"))
            self._clock = HostClock(_in_order(pairs), _in_order(self._states), wall)
        return self._clock

    def _at(self, clock: HostClock, at_ns: int, interval_s: float) -> Optional[Host]:
        """What was kept last before a moment of the guest's clock; None also if what was kept later
        may be of before it."""
        later_at = doubtful = False
        for host_ns, host in reversed(self._kept):
            moment = clock.at(host_ns)
            if moment is None:
                doubtful = not later_at
            elif moment.ns > at_ns:
                later_at, doubtful = True, False
            else:
                old_ns = max(_OLD_NS, round(3e9 * min(interval_s, 60.0)))
                return None if doubtful or at_ns - moment.ns > old_ns else host
        return None

    def _said(self, now_s: float) -> str:
        """Of the file now, where that is not only that it grows."""
        if self._end is not None:
            return f"ended: {self._end}"
        begin = self._reader.begin or {}
        limit_s = max(SILENT_S, 3 * float(begin.get("interval_s") or 0))
        silent_s = now_s - (now_s if self._fed_s is None else self._fed_s)
        return f"no line for {silent_s:.0f} s" if silent_s >= limit_s else ""


def _in_order(lines: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    return sorted(lines, key=lambda line: int(line["t_ns"]))
