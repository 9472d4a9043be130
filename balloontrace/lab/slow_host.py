# SPDX-License-Identifier: Apache-2.0
"""A host that is slow to take the balloon's pages, and nothing else.

QEMU takes them on the thread of the guest's CPU that told it, under its global lock, with one
madvise a page. A signal, or a stopped thread, would hold up the guest with it; strace delays that
system call alone.
"""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Iterator

from balloontrace.errors import UserError
from balloontrace.lab.host import as_root, tool


@contextlib.contextmanager
def slow_discards(pid: int, delay_us: int) -> Iterator[None]:
    """Let each madvise of a process take so much longer, as long as the context lasts.

    Raises UserError if strace is missing or may not trace the process.
    """
    delayed = ["-e", "trace=madvise", "-e", f"inject=madvise:delay_enter={delay_us}"]
    argv = as_root([tool("strace"), "-f", "-p", str(pid), "-o", "/dev/null", *delayed])
    strace = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    with strace:
        said = strace.stderr.readline() if strace.stderr else ""
        if "attached" not in said:
            strace.kill()
            raise UserError("the host cannot be made slow", f"strace said: {said.strip()}")
        try:
            yield
        finally:
            strace.terminate()  # it lets the process go
