# SPDX-License-Identifier: Apache-2.0
"""/proc/vmstat and /proc/meminfo: the kernel's own count of balloon pages, reclaim and memory."""

from __future__ import annotations

from balloontrace.tracers.samplers.proc import ProcFile

BALLOON_COUNTERS = ("balloon_inflate", "balloon_deflate", "balloon_migrate")
"""What the traced totals are checked against (mm/vmstat.c)."""

_PREFIXES = (
    b"balloon_",
    b"nr_balloon",
    b"nr_free_pages",
    b"pgscan_",
    b"pgsteal_",
    b"allocstall",
    b"compact_",
    b"kswapd_",
    b"pageoutrun",
    b"oom_kill",
    b"pswp",
    b"pgmajfault",
    b"workingset_refault",
    b"slabs_scanned",
    b"drop_",
)
_MEMINFO = (
    b"MemTotal",
    b"MemFree",
    b"MemAvailable",
    b"Cached",
    b"AnonPages",
    b"Slab",
    b"SwapFree",
    b"SwapTotal",
    b"Dirty",
    b"Mlocked",
)


class Vmstat:
    """Sampler `vmstat`: counters as the kernel gives them (pages or events since boot)."""

    name = "vmstat"

    def __init__(self) -> None:
        self._file = ProcFile("/proc/vmstat")
        lines = self._file.lines()
        self._places = [
            (place, line.split()[0].decode())
            for place, line in enumerate(lines)
            if line.startswith(_PREFIXES)
        ]

    def read(self) -> dict[str, int]:
        """The chosen counters now. They stand in the same lines as long as the kernel runs."""
        lines = self._file.lines()
        return {name: int(lines[place][len(name) + 1 :]) for place, name in self._places}

    def close(self) -> None:
        """Close the file."""
        self._file.close()


class Meminfo:
    """Sampler `meminfo`: bytes."""

    name = "meminfo"

    def __init__(self) -> None:
        self._file = ProcFile("/proc/meminfo")

    def read(self) -> dict[str, int]:
        """The chosen fields now, in bytes."""
        found = {}
        for line in self._file.lines():
            name, _, rest = line.partition(b":")
            if name in _MEMINFO:
                found[name.decode()] = int(rest.split()[0]) * 1024
        return found


def balloon_counters() -> dict[str, int]:
    """The balloon's counters in /proc/vmstat now; those this kernel does not have are left out."""
    vmstat = Vmstat()
    values = vmstat.read()
    vmstat.close()
    return {name: values[name] for name in BALLOON_COUNTERS if name in values}
