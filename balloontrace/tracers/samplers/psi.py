# SPDX-License-Identifier: Apache-2.0
"""Pressure stall information (Documentation/accounting/psi.rst): totals since boot."""

from __future__ import annotations

from balloontrace.tracers.samplers.proc import ProcFile, Source

_RESOURCES = ("memory", "cpu", "io")


class Psi(Source):
    """Sampler `psi`: microseconds that some or all tasks stalled, per resource.

    Raises OSError where the kernel has no PSI (CONFIG_PSI, or the boot option psi=1 is missing).
    """

    name = "psi"

    def __init__(self) -> None:
        self._files = {name: ProcFile(f"/proc/pressure/{name}") for name in _RESOURCES}

    def text(self) -> list[bytes]:
        """The files now."""
        return [file.text() for file in self._files.values()]

    def numbers(self, text: list[bytes]) -> dict[str, dict[str, int]]:
        """{"memory": {"some_us": total, "full_us": total}, ...}"""
        found: dict[str, dict[str, int]] = {}
        for resource, said in zip(self._files, text):
            found[resource] = {}
            for line in said.splitlines():
                # some avg10=0.00 avg60=0.00 avg300=0.00 total=0
                share, total = line.partition(b" ")[0], line.rpartition(b"total=")[2]
                found[resource][f"{share.decode()}_us"] = int(total)
        return found
