# SPDX-License-Identifier: Apache-2.0
"""cloud-hypervisor, by its API (vmm/src/api/openapi/cloud-hypervisor.yaml in its repository).

`memory_actual_size` is what is left to the guest, in bytes; of the balloon's statistics it tells
nothing.
"""

from __future__ import annotations

import contextlib

from balloontrace.errors import EXIT_UNSUPPORTED, UserError
from balloontrace.host.http import Api
from balloontrace.host.source import Facts, Reading, inside, whole_number


class CloudHypervisor:
    """A running cloud-hypervisor as a source (source.py)."""

    def __init__(self, path: str, pid: int | None) -> None:
        """path: of its API's socket. Raises UserError."""
        self._api = Api(path)
        ping = self._api.get("/api/v1/vmm.ping")
        memory = whole_number(self._api.get("/api/v1/vm.info"), "config", "memory", "size")
        if memory is None:
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
        left = whole_number(told, "memory_actual_size")
        return Reading(
            whole_number(told, "config", "balloon", "size"),
            None if left is None else inside(self._facts.memory_bytes, left),
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
