# SPDX-License-Identifier: Apache-2.0
"""The loader is ended once, and nobody who has its number later."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

from balloontrace.tracers.record.session import end_loader


def test_a_loader_that_is_at_work_is_ended() -> None:
    pid = os.fork()
    if not pid:
        signal.pause()
        os._exit(0)
    end_loader(pid)
    assert not os.path.exists(f"/proc/{pid}")


def test_another_process_of_its_number_is_left_alone() -> None:
    # Not a child of ours, as whoever has the number of one that was waited for.
    script = "import os, sys; pid = os.fork(); print(pid, flush=True) if pid else sys.stdin.read()"
    with subprocess.Popen(
        [sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as parent:
        assert parent.stdin
        assert parent.stdout
        other = int(parent.stdout.readline())
        end_loader(other)
        os.kill(other, 0)
        parent.stdin.close()
