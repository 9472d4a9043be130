"""The slow sources, read once a second. A new one is one file and one line in `open_samplers`."""

from __future__ import annotations

from typing import Any, Protocol

from balloontrace.tracers.samplers.psi import Psi
from balloontrace.tracers.samplers.vmstat import Meminfo, Vmstat


class Sampler(Protocol):
    """A slow source: `name` is its key in a sample."""

    name: str

    def read(self) -> dict[str, Any]:
        """What the source says now."""
        ...


def open_samplers() -> tuple[list[Sampler], list[str]]:
    """The samplers this kernel supports, and the names of those it does not."""
    usable: list[Sampler] = []
    absent: list[str] = []
    for sampler in (Vmstat, Meminfo, Psi):
        try:
            usable.append(sampler())
        except OSError:
            absent.append(sampler.name)
    return usable, absent
