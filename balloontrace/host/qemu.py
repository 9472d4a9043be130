# SPDX-License-Identifier: Apache-2.0
"""QEMU, by its monitor protocol (docs/interop/qemu-qmp-ref, qapi/machine.json).

It tells what is left to the guest. No command tells the target: it is read where the guest reads
it, in the device's configuration (struct virtio_balloon_config, num_pages first), through the
monitor's `xp`. Such a read has no effect on the device.
"""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import Iterator
from typing import Any

from balloontrace.errors import UserError
from balloontrace.host.process import has_threads
from balloontrace.host.qmp import Qmp, say
from balloontrace.host.source import Facts, Reading, Statistics, inside, of_pages, whole_number

_PARENTS = ("/machine/peripheral", "/machine/peripheral-anon")
"""Of devices with a name, and of those without."""

_VIEW = "FlatView"
_OF_MEMORY = 'AS "memory",'
"""Of the parts of `info mtree -f`: what is seen at the addresses that `xp` takes. Others show the
device where it is not, as long as the guest has not mapped it."""

_CONFIGURATION = re.compile(
    r"^\s*([0-9a-f]+)-[0-9a-f]+ .*: virtio-pci-device-virtio-balloon\s*$", re.M
)
"""A line of it: where the guest has mapped it. One that only the old interface of virtio has (in
I/O ports), or virtio-mmio, has none."""

_BYTE = re.compile(r"\b0x([0-9a-f]{2})\b")
"""What `xp` answers, byte by byte: little-endian, whatever machine it is."""


class BalloonDevice:
    """QEMU's balloon device. Every method raises UserError if QEMU does not answer as it should."""

    def __init__(self, qmp: Qmp, memory_bytes: int) -> None:
        """memory_bytes: the guest's RAM."""
        self.qmp = qmp
        self.memory_bytes = memory_bytes
        self._path = ""

    def actual_bytes(self) -> int:
        """What is inside the balloon, as the guest last told it."""
        left = whole_number(self.qmp.execute("query-balloon"), "actual")
        if left is None:
            raise UserError("QEMU does not tell the balloon's size")
        return inside(self.memory_bytes, left)

    def target_bytes(self) -> int | None:
        """What the host wants to be inside; None: it cannot be read here."""
        views = say(self.qmp, "info mtree -f").split(_VIEW)
        mapped = next((view for view in views if _OF_MEMORY in view), "")
        found = _CONFIGURATION.search(mapped)
        told = _BYTE.findall(say(self.qmp, f"xp /4bx 0x{found[1]}")) if found else []
        return of_pages(int("".join(reversed(told)), 16)) if len(told) == 4 else None

    def statistics(self) -> dict[str, int]:
        """What the guest said last: QEMU's name of a value -> bytes or a number; without those that
        it has not told."""
        return self.told().values

    def statistics_at(self) -> int:
        """When it said that, in whole seconds since 1970; 0: never."""
        return whole_number(self.get("guest-stats"), "last-update") or 0

    def told(self) -> Statistics:
        """The statistics, their age to a second, and how often the guest is asked. A value that the
        guest has not sent is 2^64 - 1 there, and none here."""
        said = self.get("guest-stats")
        at_s = whole_number(said, "last-update")
        stats = said.get("stats") if isinstance(said, dict) else None
        names = stats if isinstance(stats, dict) else {}
        values = {name: v for name in names if (v := whole_number(stats, name)) is not None}
        age_s = max(0.0, time.time() - at_s) if at_s else None
        return Statistics(values, age_s, self.polling_interval_s())

    def polling_interval_s(self) -> int:
        """From one question for statistics to the next; 0: nobody asks."""
        return whole_number(self.get("guest-stats-polling-interval")) or 0

    @contextlib.contextmanager
    def polling(self, interval_s: int) -> Iterator[None]:
        """Ask the guest for its balloon's statistics so often as long as the context lasts.

        QEMU keeps the interval, and shares it with whoever manages the guest: it is put back at the
        end.
        """
        before = self.polling_interval_s()
        self._set("guest-stats-polling-interval", interval_s)
        try:
            yield
        finally:
            self._set("guest-stats-polling-interval", before)

    def get(self, name: str) -> Any:
        """A property of the device."""
        return self.qmp.execute("qom-get", path=self._device(), property=name)

    def _set(self, name: str, value: object) -> None:
        self.qmp.execute("qom-set", path=self._device(), property=name, value=value)

    def _device(self) -> str:
        """The device's place in QEMU, whoever named it."""
        self._path = self._path or next(self._devices(), "")
        if not self._path:
            raise UserError("QEMU has no balloon device", "add -device virtio-balloon-pci")
        return self._path

    def _devices(self) -> Iterator[str]:
        for parent in _PARENTS:
            for child in _list(self.qmp.execute("qom-list", path=parent)):
                if (_text(child, "type") or "").startswith("child<virtio-balloon"):
                    yield f"{parent}/{_text(child, 'name')}"


class Qemu:
    """A running QEMU as a source (source.py)."""

    def __init__(self, qmp: Qmp, pid: int | None, reads_target: bool = True) -> None:
        """pid: of QEMU, None if that is not known; reads_target: False where who sets the target
        says so himself. Raises UserError."""
        memory_bytes = _memory_bytes(qmp)
        version = qmp.execute("query-version")
        parts = [whole_number(version, "qemu", part) for part in ("major", "minor", "micro")]
        words = "" if None in parts else ".".join(map(str, parts))
        self._device, self._reads_target = BalloonDevice(qmp, memory_bytes), reads_target
        self._facts = Facts("qemu", words, memory_bytes, pid, _threads(qmp))

    @property
    def facts(self) -> Facts:
        """See Source."""
        return self._facts

    def read(self, statistics: bool) -> Reading:
        """See Source."""
        device = self._device
        return Reading(
            device.target_bytes() if self._reads_target else None,
            device.actual_bytes(),
            device.told() if statistics else None,
            _text(device.qmp.execute("query-status"), "status"),
        )

    def polling(self, interval_s: int) -> contextlib.AbstractContextManager[None]:
        """See Source."""
        return self._device.polling(interval_s)


def process_of(qmp: Qmp, listener: int | None) -> int | None:
    """QEMU's process: who listens at its monitor's socket, if QEMU's threads are there. They are
    not where another, as libvirt, made the socket for it. Raises UserError."""
    if listener is None or not has_threads(listener, _threads(qmp)):
        return None
    return listener


def _threads(qmp: Qmp) -> tuple[int, ...]:
    """Those that run the guest's processors; one may run several."""
    told = [whole_number(cpu, "thread-id") for cpu in _list(qmp.execute("query-cpus-fast"))]
    return tuple(sorted({thread for thread in told if thread is not None}))


def _memory_bytes(qmp: Qmp) -> int:
    """The guest's RAM as QEMU's balloon counts it: what it was started with, and DIMMs. Raises
    UserError."""
    base = whole_number(qmp.execute("query-memory-size-summary"), "base-memory")
    if base is None:
        raise UserError("QEMU does not tell the guest's memory")
    devices = _list(qmp.execute("query-memory-devices"))
    dimms = [device for device in devices if _text(device, "type") == "dimm"]
    return base + sum(whole_number(dimm, "data", "size") or 0 for dimm in dimms)


def _list(told: Any) -> list[Any]:
    return told if isinstance(told, list) else []


def _text(told: Any, name: str) -> str | None:
    value = told.get(name) if isinstance(told, dict) else None
    return value if isinstance(value, str) else None
