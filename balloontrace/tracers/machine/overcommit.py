# SPDX-License-Identifier: Apache-2.0
"""Whether this kernel refuses memory that is not there (vm.overcommit_memory), of which a balloon
can leave none: where the driver lowers MemTotal it lowers CommitLimit, too."""

from __future__ import annotations

import ctypes
import zlib

from balloontrace.tracers.machine.files import text
from balloontrace.tracers.machine.system_calls import libc

_MODE, _NEVER = "/proc/sys/vm/overcommit_memory", "2"

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
_KEPT_BYTES, _FROM_HEAP_BYTES = 8 << 20, 4 << 20
_SPAN_BYTES = 1 << 16


def is_refused() -> bool:
    """Whether memory can be refused to a process although there is some (mode 2,
    Documentation/mm/overcommit-accounting.rst)."""
    return text(_MODE) == _NEVER


def keep_heap() -> None:
    """Keep what this process has had, as it may get it no second time: free memory stays in the
    heap, large blocks come from there, too, and there is what zlib needs. A C library without
    mallopt(3) gives it back."""
    mallopt = getattr(libc, "mallopt", None)
    if mallopt is None:
        return
    for parameter, size in (
        (_M_TRIM_THRESHOLD, _KEPT_BYTES),
        (_M_MMAP_THRESHOLD, _FROM_HEAP_BYTES),
    ):
        mallopt(ctypes.c_int(parameter), ctypes.c_int(size))
    zlib.compress(bytes(_SPAN_BYTES), 1)
