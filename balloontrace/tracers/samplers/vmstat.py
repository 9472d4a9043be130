# SPDX-License-Identifier: Apache-2.0
"""/proc/vmstat and /proc/meminfo: the kernel's own count of balloon pages, reclaim and memory."""

from __future__ import annotations

from balloontrace.tracers.samplers.proc import NamedNumbers, Source

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
    b"MemTotal:",
    b"MemFree:",
    b"MemAvailable:",
    b"Cached:",
    b"AnonPages:",
    b"Slab:",
    b"SwapFree:",
    b"SwapTotal:",
    b"SwapCached:",
    b"CommitLimit:",
    b"Committed_AS:",
    b"Balloon:",
    b"Dirty:",
    b"Mlocked:",
)


class Vmstat(Source):
    """Sampler `vmstat`: counters as the kernel gives them (pages or events since boot)."""

    name = "vmstat"

    def __init__(self) -> None:
        self._file = NamedNumbers("/proc/vmstat", _PREFIXES, b" ")

    def text(self) -> bytes:
        """The file now."""
        return self._file.text()

    def numbers(self, text: bytes) -> dict[str, int]:
        """The chosen counters."""
        return self._file.numbers(text)

    def close(self) -> None:
        """Close the file."""
        self._file.close()


class Meminfo(Source):
    """Sampler `meminfo`: bytes."""

    name = "meminfo"

    def __init__(self) -> None:
        self._file = NamedNumbers("/proc/meminfo", _MEMINFO, b":", b" kB")

    def text(self) -> bytes:
        """The file now."""
        return self._file.text()

    def numbers(self, text: bytes) -> dict[str, int]:
        """The chosen fields, in bytes."""
        return {name: number * 1024 for name, number in self._file.numbers(text).items()}


def balloon_counters() -> dict[str, int]:
    """The balloon's counters in /proc/vmstat now; those this kernel does not have are left out."""
    vmstat = Vmstat()
    values = vmstat.read()
    vmstat.close()
    return {name: values[name] for name in BALLOON_COUNTERS if name in values}
