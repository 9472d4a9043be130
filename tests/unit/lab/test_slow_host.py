# SPDX-License-Identifier: Apache-2.0
"""A process whose madvise is slow."""

from __future__ import annotations

import subprocess
import sys

import pytest

from balloontrace.errors import UserError
from balloontrace.lab.slow_host import slow_discards

DISCARDS = """
import mmap, sys, time
memory = mmap.mmap(-1, 4096)
for _ in sys.stdin:
    before = time.monotonic()
    memory.madvise(mmap.MADV_DONTNEED)
    print(time.monotonic() - before, flush=True)
"""


def test_each_discard_takes_so_much_longer_as_long_as_the_context_lasts() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", DISCARDS], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:

        def discard() -> float:
            assert process.stdin is not None
            assert process.stdout is not None
            process.stdin.write("\n")
            process.stdin.flush()
            return float(process.stdout.readline())

        discard()
        with slow_discards(process.pid, 500_000):
            slow = discard()
        assert slow >= 0.5
        assert discard() < 0.5
        process.kill()


def test_a_process_that_is_not_there() -> None:
    with pytest.raises(UserError, match="the host cannot be made slow"), slow_discards(1 << 22, 1):
        pass
