# SPDX-License-Identifier: Apache-2.0
"""The slow sources, read once a second. A new one is one file and one line in `Samplers`."""

from __future__ import annotations

from balloontrace.tracers.samplers.psi import Psi
from balloontrace.tracers.samplers.vmstat import Meminfo, Vmstat

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Protocol

    class Sampler(Protocol):
        """A slow source: `name` is its key in a sample."""

        name: str

        def read(self) -> dict[str, Any]:
            """What the source says now."""
            ...


class Samplers:
    """All samplers this kernel supports. absent: the names of those it does not."""

    def __init__(self, minimal: bool = False) -> None:
        """minimal: none of them."""
        self._usable: list[Sampler] = []
        self.absent: list[str] = []
        self._failed: set[str] = set()
        for sampler in () if minimal else (Vmstat, Meminfo, Psi):
            try:
                self._usable.append(sampler())
            except OSError:
                self.absent.append(sampler.name)

    def read(self) -> dict[str, Any]:
        """Name -> what it says now.

        One that fails costs this reading of it, and is told once, under `failed`: a pressure file
        that is turned off, a line that is not as it was.
        """
        values: dict[str, Any] = {}
        for sampler in self._usable:
            try:
                values[sampler.name] = sampler.read()
            except (OSError, ValueError, LookupError) as error:
                if sampler.name not in self._failed:
                    values.setdefault("failed", {})[sampler.name] = str(error)
                self._failed.add(sampler.name)
        return values
