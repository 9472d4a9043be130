# SPDX-License-Identifier: Apache-2.0
"""Firecracker, by its API (src/firecracker/swagger/firecracker.yaml in its repository).

Sizes there are MiB and pages inside the balloon, statistics only where they were enabled before the
guest was started.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

from balloontrace.errors import UserError
from balloontrace.host.http import Api, Refused
from balloontrace.host.process import listener
from balloontrace.host.source import MIB, Facts, Reading, Statistics, of_pages, whole_number

_SIZES = ("target_pages", "actual_pages", "target_mib", "actual_mib")
"""Of the statistics: what is told of the balloon by itself."""


class Firecracker:
    """A running Firecracker as a source (source.py)."""

    def __init__(self, path: str, pid: int | None) -> None:
        """path: of its API's socket. Raises UserError."""
        self._api = Api(path)
        machine = whole_number(self._api.get("/machine-config"), "mem_size_mib")
        if machine is None:
            raise UserError(f"what answers at {path} is no Firecracker")
        version = str(self._api.get("/").get("vmm_version", ""))
        told = pid if pid is not None else listener(path)
        self._facts = Facts("firecracker", version, machine * MIB, told)

    @property
    def facts(self) -> Facts:
        """See Source."""
        return self._facts

    def read(self, statistics: bool) -> Reading:
        """See Source."""
        state = str(self._api.get("/").get("state", ""))
        balloon = self._api.get("/balloon")
        interval_s = whole_number(balloon, "stats_polling_interval_s")
        target_mib = whole_number(balloon, "amount_mib")
        told = self._statistics() if interval_s else {}  # the size is one of them
        actual = whole_number(told, "actual_pages")
        values = {
            name: value
            for name in told
            if name not in _SIZES and (value := whole_number(told, name)) is not None
        }
        return Reading(
            None if target_mib is None else target_mib * MIB,
            None if actual is None else of_pages(actual),
            Statistics(values, None, interval_s) if statistics else None,
            state.lower(),
        )

    def _statistics(self) -> dict[str, Any]:
        try:
            return self._api.get("/balloon/statistics")
        except Refused:  # the driver is not there yet
            return {}

    @contextlib.contextmanager
    def polling(self, interval_s: int) -> Iterator[None]:
        """See Source. Raises UserError where statistics were not enabled at the start."""
        before = whole_number(self._api.get("/balloon"), "stats_polling_interval_s") or 0
        self._set_interval(interval_s)
        try:
            yield
        finally:
            self._set_interval(before)

    def _set_interval(self, interval_s: int) -> None:
        self._api.patch("/balloon/statistics", {"stats_polling_interval_s": interval_s})
