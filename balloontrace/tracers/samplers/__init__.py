# SPDX-License-Identifier: Apache-2.0
"""The slow sources, read once a second. A new one is one file and one line here."""

from __future__ import annotations

from balloontrace.tracers.samplers.psi import Psi
from balloontrace.tracers.samplers.vmstat import Meminfo, Vmstat

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

    from balloontrace.tracers.samplers.proc import Source

OF_A_TRACE = (Vmstat, Meminfo, Psi)
"""Beside events, which say of kswapd and the size worker when they were at work."""


class Samplers:
    """The samplers of `wanted` that this kernel supports. absent: the names of the others."""

    def __init__(self, wanted: Iterable[type[Source]]) -> None:
        self._usable: list[Source] = []
        self.absent: list[str] = []
        self._failed: set[str] = set()
        for sampler in wanted:
            try:
                self._usable.append(sampler())
            except OSError:
                self.absent.append(sampler.name)

    def texts(self) -> list[Any]:
        """What each says now, as it came; an OSError of one that fails."""
        found: list[Any] = []
        for sampler in self._usable:
            try:
                found.append(sampler.text())
            except OSError as error:
                found.append(error)
        return found

    def values(self, texts: list[Any]) -> dict[str, Any]:
        """Name -> what it said; texts of later moments come later.

        One that fails costs this reading of it, and is told once, under `failed`: a pressure file
        that is turned off, a line that is not as it was.
        """
        values: dict[str, Any] = {}
        for sampler, text in zip(self._usable, texts):
            try:
                if isinstance(text, OSError):
                    raise text
                values[sampler.name] = sampler.numbers(text)
            except (OSError, ValueError, LookupError) as error:
                if sampler.name not in self._failed:
                    values.setdefault("failed", {})[sampler.name] = str(error)
                self._failed.add(sampler.name)
        return values

    def read(self) -> dict[str, Any]:
        """Name -> what it says now."""
        return self.values(self.texts())
