# SPDX-License-Identifier: Apache-2.0
"""A domain of libvirt, by `virsh domstats` (man virsh): KiB, of what is left to the guest.

It is only read. libvirt does not tell the target once it is set, and its monitor command, which
could, marks the domain as tainted.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import subprocess
import time
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from pathlib import Path

from balloontrace.errors import EXIT_UNSUPPORTED, UserError
from balloontrace.host.source import Facts, Reading, Statistics, inside

_PROC = Path("/proc")
_PID_FILES = Path("/run/libvirt/qemu")
_TIMEOUT_S = 30.0
_KIB = 1024

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

_ENDED = (_STATES.index("shutoff"), _STATES.index("crashed"))
"""libvirt goes on telling what the guest had."""

_IN_KIB = ("swap_in", "swap_out", "unused", "available", "usable", "disk_caches", "rss")
"""Of what `domstats --balloon` says: these are KiB, the others counts."""

_OWN = ("current", "maximum", "last-update", "rss")
"""And these are libvirt's own words, not the guest's."""


class Libvirt:
    """A running domain as a source (source.py)."""

    def __init__(self, domain: str, pid: int | None) -> None:
        """domain: its name, UUID or id. Raises UserError."""
        self._domain = f"--domain={domain}"
        xml = self._description()
        self._memory = _whole(xml.findtext("memory", "")) * _KIB
        balloon = xml.find("devices/memballoon")
        if balloon is None or balloon.get("model") == "none" or not self._memory:
            raise UserError(f"the domain {domain} has no balloon")
        polled = balloon.find("stats")
        self._interval_s = _whole(polled.get("period", "")) if polled is not None else 0
        version = re.search(r"library: libvirt (\S+)", self._virsh("version"))
        found = _pid_of(xml.findtext("name", ""), xml.findtext("uuid", ""))
        told = pid if pid is not None else found
        self._facts = Facts("libvirt", version[1] if version else "", self._memory, told)

    @property
    def facts(self) -> Facts:
        """See Source."""
        return self._facts

    def read(self, statistics: bool) -> Reading:
        """See Source."""
        told = self._numbers()
        at_s, current = told.get("last-update", 0), told.get("current")
        values = {
            name: value * (_KIB if name in _IN_KIB else 1)
            for name, value in told.items()
            if name not in _OWN and not name.startswith("state.")
        }
        age_s = max(0.0, time.time() - at_s) if at_s else None
        state = told.get("state.state")  # and not while libvirt is busy with it
        if state in _ENDED:
            raise UserError(f"the domain is {_STATES[state]}", "start it, and record then")
        return Reading(
            None,
            None if current is None else inside(self._memory, current * _KIB),
            Statistics(values, age_s, self._interval_s) if statistics else None,
            None if state is None else _STATES[state] if state < len(_STATES) else str(state),
        )

    def _numbers(self) -> dict[str, int]:
        """By name, those of the balloon without `balloon.` in front. Raises UserError."""
        said = self._virsh("domstats", "--balloon", "--state", "--nowait", self._domain)
        lines = re.findall(r"^\s+(?:balloon\.)?([\w.-]+)=(\d{1,18})$", said, re.M | re.A)
        return {name: int(value) for name, value in lines}

    def _description(self) -> ET.Element:
        try:
            return ET.fromstring(self._virsh("dumpxml", self._domain))  # noqa: S314, libvirt's own
        except ET.ParseError:
            raise UserError("virsh dumpxml does not describe a domain") from None

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
                command, capture_output=True, encoding="utf-8", errors="replace", check=False,
                timeout=_TIMEOUT_S, env={**os.environ, "LC_ALL": "C"},
                start_new_session=True,  # Ctrl-C is not for it
            )  # fmt: skip
        except subprocess.TimeoutExpired:
            raise UserError(f"virsh {arguments[0]} does not answer") from None
        if done.returncode != 0:
            said = (done.stderr.strip().splitlines() or ["it said nothing"])[0]
            raise UserError(f"virsh {arguments[0]} failed: {said.removeprefix('error: ')}")
        return done.stdout


def _whole(digits: str) -> int:
    """A number of at most 18 digits; 0: it is none."""
    return int(digits) if re.fullmatch(r"\d{1,18}", digits, re.A) else 0


def _pid_of(name: str, uuid: str) -> int | None:
    """Of the process that runs a domain; None if it cannot be read (only root can), or runs another
    one of that name: virsh may talk to the libvirt of another machine, or of a session."""
    try:
        pid = int((_PID_FILES / f"{name}.pid").read_text(encoding="ascii"))
        words = (_PROC / str(pid) / "cmdline").read_bytes()
    except (OSError, ValueError):
        return None
    return pid if uuid and uuid.encode() in words else None
