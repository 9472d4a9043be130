# SPDX-License-Identifier: Apache-2.0
"""A guest's serial console: written to a file, watched for the words that matter."""

from __future__ import annotations

import re
import threading
import time
from collections import deque
from collections.abc import Iterable
from pathlib import Path

READY = "balloontrace-lab: ready"
PANIC = "Kernel panic - not syncing"
_FAILED = "balloontrace-lab: failed"
_TAIL_LINES = 12
# The kernel ran a breakpoint that nobody has set: QEMU's threads can be left with a translation of
# one that text_poke has taken away. Or QEMU itself found that it was wrong (seen of 10.0.2, once:
# iotlb_to_section). No other death is the emulator's for certain.
_EMULATOR_OOPS = re.compile(
    r"\bint3: [0-9a-f]{4} \[#\d+\]|^qemu-system-\w+: .*: Assertion `.*' failed\.$"
)
# A timer of a CPU that is idle did not fire (QEMU 10.0.2, once in some 400 boots). A guest that is
# merely slow says so, too: it tells why a guest does not come up, and not that it will not.
_LOST_TIMER = re.compile(r"\bPossible timer handling issue on cpu=")


class Console:
    """Fed lines by one thread, waited on by others."""

    def __init__(self, log: Path) -> None:
        self._log = log
        self._changed = threading.Condition()
        self._tail: deque[str] = deque(maxlen=_TAIL_LINES)
        self._ready = False
        self._trouble = ""
        self._oops = ""
        self._ended = False

    def follow(self, stream: Iterable[str]) -> None:
        """Read until the stream ends, that is, until QEMU does."""
        try:
            with self._log.open("w", encoding="utf-8", buffering=1) as log:
                for line in stream:
                    log.write(line)
                    self._take(line.strip())
        finally:
            with self._changed:
                self._ended = True
                self._changed.notify_all()

    def wait_ready(self, timeout_s: float) -> bool:
        """Return True once the guest is usable, False when it is in trouble or time is up."""
        deadline = time.monotonic() + timeout_s
        with self._changed:
            while not (self._ready or self._trouble or self._ended):
                if not self._changed.wait(deadline - time.monotonic()):
                    break
            return self._ready and not self._trouble

    @property
    def trouble(self) -> str:
        """Why the guest is lost (panic, failed boot, QEMU ended), or empty."""
        with self._changed:
            return self._trouble or ("QEMU ended" if self._ended else "")

    @property
    def emulator_oops(self) -> str:
        """The line by which the emulator is known to have killed a guest that is lost, or empty."""
        with self._changed:
            return self._oops

    @property
    def silent(self) -> bool:
        """Whether nothing was said, neither by the guest nor by QEMU, which still runs."""
        with self._changed:
            return not self._tail and not self._ended

    def tail(self) -> list[str]:
        """Return the last lines."""
        with self._changed:
            return list(self._tail)

    def _take(self, line: str) -> None:
        if not line:
            return
        with self._changed:
            self._tail.append(line)
            self._ready = self._ready or READY in line
            is_oops = bool(_EMULATOR_OOPS.search(line))
            if is_oops or _LOST_TIMER.search(line):
                self._oops = self._oops or line
            if is_oops or PANIC in line or _FAILED in line:
                self._trouble = self._trouble or line
            self._changed.notify_all()
