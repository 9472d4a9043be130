# SPDX-License-Identifier: Apache-2.0
"""cloud-hypervisor, by its API (vmm/src/api/openapi/cloud-hypervisor.yaml in its repository).

`memory_actual_size` is what is left to the guest, in bytes; of the balloon's statistics it tells
nothing.
"""

from __future__ import annotations

import contextlib
from typing import Any

from balloontrace.errors import EXIT_UNSUPPORTED, UserError
from balloontrace.host.http import Api
from balloontrace.host.source import Facts, Reading, inside, whole_number


class CloudHypervisor:
    """A running cloud-hypervisor as a source (source.py)."""

    def __init__(self, path: str, pid: int | None) -> None:
        """path: of its API's socket. Raises UserError."""
        self._api = Api(path)
        ping = self._api.get("/api/v1/vmm.ping")
        memory = _ram_of(self._api.get("/api/v1/vm.info"))
        if not memory:
            raise UserError(f"what answers at {path} is no cloud-hypervisor")
        told = pid if pid is not None else whole_number(ping, "pid")
        self._facts = Facts("cloud-hypervisor", str(ping.get("version", "")), memory, told)

    @property
    def facts(self) -> Facts:
        """See Source."""
        return self._facts

    def read(self, statistics: bool) -> Reading:
        """See Source."""
        told = self._api.get("/api/v1/vm.info")
        left, ram = whole_number(told, "memory_actual_size"), _ram_of(told)
        return Reading(
            whole_number(told, "config", "balloon", "size"),
            None if left is None or not ram else inside(ram, left),
            None,
            str(told.get("state", "")).lower(),
        )

    def polling(self, interval_s: int) -> contextlib.AbstractContextManager[None]:
        """Raises UserError: there is no such thing."""
        raise UserError(
            "cloud-hypervisor does not ask its guests for statistics",
            "leave --poll-stats out",
            EXIT_UNSUPPORTED,
        )


def _ram_of(told: dict[str, Any]) -> int:
    """Bytes of the guest's RAM, with what was plugged in; it may be in zones, of which the size of
    the whole knows nothing (MemoryConfig::total_size in vmm/src/vm_config.rs). 0: not told."""
    config = told.get("config")
    memory = config.get("memory") if isinstance(config, dict) else None
    if not isinstance(memory, dict):
        return 0
    zones = memory.get("zones")
    parts = [memory, *(zones if isinstance(zones, list) else [])]
    return sum(
        whole_number(part, name) or 0
        for part in parts
        if isinstance(part, dict)
        for name in ("size", "hotplugged_size")
    )
