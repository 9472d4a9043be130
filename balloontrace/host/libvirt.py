# SPDX-License-Identifier: Apache-2.0
"""A domain of libvirt, by `virsh domstats` (man virsh): KiB, of what is left to the guest.

It is only read. libvirt does not tell the target once it is set, and its monitor command, which
could, marks the domain as tainted.
"""

from __future__ import annotations

import contextlib
import re
import shutil
import subprocess
import time
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from pathlib import Path

from balloontrace.errors import EXIT_UNSUPPORTED, UserError
from balloontrace.host.source import Facts, Reading, Statistics, inside

_PID_FILES = Path("/run/libvirt/qemu")
_TIMEOUT_S = 30.0
_KIB = 1024
_NEVER_TOLD = (1 << 64) - 1

_STATES = (
    "no state",
    "running",
    "blocked",
    "paused",
    "shutdown",
    "shutoff",
    "crashed",
    "suspended",
)
"""virDomainState (include/libvirt/libvirt-domain.h)."""

_IN_KIB = ("swap_in", "swap_out", "unused", "available", "usable", "disk_caches", "rss")
"""Of what `domstats --balloon` says: these are KiB, the others counts."""

_OWN = ("current", "maximum", "last-update", "rss")
"""And these are libvirt's own words, not the guest's."""


class Libvirt:
    """A running domain as a source (source.py)."""

    def __init__(self, domain: str, pid: int | None) -> None:
        """domain: its name, UUID or id. Raises UserError."""
        self._domain = domain
        xml = ET.fromstring(self._virsh("dumpxml", domain))  # noqa: S314, libvirt's own
        name = xml.findtext("name", "")
        self._memory = int(xml.findtext("memory", "0")) * _KIB
        polled = xml.find("devices/memballoon/stats")
        self._interval_s = int(polled.get("period", "0")) if polled is not None else 0
        version = re.search(r"library: libvirt (\S+)", self._virsh("version"))
        told = pid if pid is not None else _pid_of(name)
        self._facts = Facts("libvirt", version[1] if version else "", self._memory, told)

    @property
    def facts(self) -> Facts:
        """See Source."""
        return self._facts

    def read(self, statistics: bool) -> Reading:
        """See Source."""
        said = self._virsh("domstats", "--balloon", "--state", self._domain)
        told = {
            name: int(value)
            for name, value in re.findall(r"^\s+(?:balloon\.)?([\w.-]+)=(\d+)$", said, re.M)
        }
        at_s, current = told.get("last-update", 0), told.get("current")
        values = {
            name: value * (_KIB if name in _IN_KIB else 1)
            for name, value in told.items()
            if name not in _OWN and not name.startswith("state.") and value < _NEVER_TOLD
        }
        age_s = max(0.0, time.time() - at_s) if at_s else None
        state = told.get("state.state", 0)
        return Reading(
            None,
            None if current is None else inside(self._memory, current * _KIB),
            Statistics(values, age_s, self._interval_s) if statistics else None,
            _STATES[state] if state < len(_STATES) else str(state),
        )

    @contextlib.contextmanager
    def polling(self, interval_s: int) -> Iterator[None]:
        """See Source."""
        before = self._interval_s
        self._set_interval(interval_s)
        try:
            yield
        finally:
            self._set_interval(before)

    def _set_interval(self, interval_s: int) -> None:
        period = ("--period", str(interval_s))
        self._virsh("dommemstat", self._domain, *period, "--live", readonly=False)
        self._interval_s = interval_s

    def _virsh(self, *arguments: str, readonly: bool = True) -> str:
        virsh = shutil.which("virsh")
        if virsh is None:
            raise UserError(
                "virsh is not installed", "apt-get install libvirt-clients", EXIT_UNSUPPORTED
            )
        command = [virsh, *(["--readonly"] if readonly else []), *arguments]
        try:
            done = subprocess.run(
                command, capture_output=True, text=True, check=False, timeout=_TIMEOUT_S
            )
        except subprocess.TimeoutExpired:
            raise UserError(f"virsh {arguments[0]} does not answer") from None
        if done.returncode != 0:
            said = done.stderr.strip().splitlines()
            raise UserError(
                f"virsh {arguments[0]} failed: {said[0] if said else 'it said nothing'}"
            )
        return done.stdout


def _pid_of(name: str) -> int | None:
    """Of the process that runs a domain; None if it cannot be read (only root can)."""
    try:
        return int((_PID_FILES / f"{name}.pid").read_text(encoding="ascii"))
    except (OSError, ValueError):
        return None
