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
from balloontrace.host.qmp import Qmp, say
from balloontrace.host.source import Facts, Reading, Statistics, inside, of_pages

_PARENTS = ("/machine/peripheral", "/machine/peripheral-anon")
"""Of devices with a name, and of those without."""

_NEVER_TOLD = (1 << 64) - 1
"""What QEMU says of a value that the guest has not sent."""

_CONFIGURATION = re.compile(
    r"^\s*([0-9a-f]+)-[0-9a-f]+ .*: virtio-pci-device-virtio-balloon\s*$", re.M
)
"""A line of `info mtree`: where the guest has mapped it. One that only the old interface of virtio
has (in I/O ports), or virtio-mmio, has none."""

_WORD = re.compile(r":\s*0x([0-9a-f]+)")
"""What `xp` answers."""


class BalloonDevice:
    """QEMU's balloon device. Every method raises UserError if QEMU does not answer as it should."""

    def __init__(self, qmp: Qmp, memory_bytes: int) -> None:
        """memory_bytes: the guest's RAM."""
        self.qmp = qmp
        self.memory_bytes = memory_bytes
        self._path = ""

    def actual_bytes(self) -> int:
        """What is inside the balloon, as the guest last told it."""
        return inside(self.memory_bytes, int(self.qmp.execute("query-balloon")["actual"]))

    def target_bytes(self) -> int | None:
        """What the host wants to be inside; None: it cannot be read here."""
        found = _CONFIGURATION.search(say(self.qmp, "info mtree"))
        told = found and _WORD.search(say(self.qmp, f"xp /1wx 0x{found[1]}"))
        return of_pages(int(told[1], 16)) if told else None

    def statistics(self) -> dict[str, int]:
        """What the guest said last: QEMU's name of a value -> bytes or a number; without those that
        it has not told."""
        return self.told().values

    def statistics_at(self) -> int:
        """When it said that, in whole seconds since 1970; 0: never."""
        at: int = self.get("guest-stats")["last-update"]
        return at

    def told(self) -> Statistics:
        """The statistics, their age to a second, and how often the guest is asked."""
        said = self.get("guest-stats")
        at_s = int(said["last-update"])
        values = {name: v for name, v in said["stats"].items() if 0 <= v < _NEVER_TOLD}
        age_s = max(0.0, time.time() - at_s) if at_s else None
        return Statistics(values, age_s, self.polling_interval_s())

    def polling_interval_s(self) -> int:
        """From one question for statistics to the next; 0: nobody asks."""
        interval_s: int = self.get("guest-stats-polling-interval")
        return interval_s

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
            for child in self.qmp.execute("qom-list", path=parent):
                if str(child["type"]).startswith("child<virtio-balloon"):
                    yield f"{parent}/{child['name']}"


class Qemu:
    """A running QEMU as a source (source.py)."""

    def __init__(self, qmp: Qmp, pid: int | None, reads_target: bool = True) -> None:
        """pid: of QEMU, None if that is not known; reads_target: False where who sets the target
        says so himself. Raises UserError."""
        told = qmp.execute("query-memory-size-summary")
        memory_bytes = int(told["base-memory"]) + int(told.get("plugged-memory") or 0)
        version = qmp.execute("query-version")["qemu"]
        threads = {int(cpu["thread-id"]) for cpu in qmp.execute("query-cpus-fast")}
        words = ".".join(str(version[part]) for part in ("major", "minor", "micro"))
        self._device, self._reads_target = BalloonDevice(qmp, memory_bytes), reads_target
        self._facts = Facts("qemu", words, memory_bytes, pid, tuple(sorted(threads)))

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
            str(device.qmp.execute("query-status")["status"]),
        )

    def polling(self, interval_s: int) -> contextlib.AbstractContextManager[None]:
        """See Source."""
        return self._device.polling(interval_s)
