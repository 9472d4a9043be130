# SPDX-License-Identifier: Apache-2.0
"""What large arrays leave behind in this process when they are gone."""

from __future__ import annotations

import ctypes

_M_MMAP_THRESHOLD = -3
"""mallopt(3)."""

_LARGE_BYTES = 4 << 20


def give_back_large_arrays() -> None:
    """Have glibc return each to the system when it is freed.

    By itself it raises the bound for that with each one that is freed, up to 32 MiB, and keeps the
    next in its heap, which then is larger than what any question of a report needs: 40 MiB for ten
    million events. A C library without mallopt is left alone.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, _LARGE_BYTES)
