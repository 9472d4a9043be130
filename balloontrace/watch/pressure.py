# SPDX-License-Identifier: Apache-2.0
"""The kernel tells when tasks wait for memory (Documentation/accounting/psi.rst: triggers)."""

from __future__ import annotations

import os

PATH = "/proc/pressure/memory"

STALL_US, WINDOW_US = 100_000, 1_000_000
"""Some task waited for so long of so much time."""


class Pressure:
    """is_told: whether the kernel tells; else somebody has to look. descriptor: for epoll, which
    it wakes by EPOLLPRI; -1 if it does not."""

    def __init__(self) -> None:
        self.descriptor = -1
        try:
            descriptor = os.open(PATH, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError:  # a kernel without it, or a container that may not
            return
        try:
            os.write(descriptor, b"some %d %d\0" % (STALL_US, WINDOW_US))
        except OSError:  # switched off (psi=0), or too many have asked
            os.close(descriptor)
            return
        self.descriptor = descriptor

    @property
    def is_told(self) -> bool:
        """See above."""
        return self.descriptor >= 0
