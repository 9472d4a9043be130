# SPDX-License-Identifier: Apache-2.0
"""Python programs for a guest that take memory there."""

from __future__ import annotations

import textwrap

HOLD_ON = "import ctypes; ctypes.CDLL(None).mlockall(1)"  # MCL_CURRENT
"""Keeps the program itself in memory. Where memory runs out, reclaim would evict that and read it
again, over and over: on 5.10 and 7.2 a guest crawls for minutes like that."""

_PRIVATE = "mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS"
"""Shared memory cannot be taken from a victim of the OOM killer before it has ended, and the killer
may lose patience and choose another."""

_TAKE = f"""
hog = mmap.mmap(-1, {{size}}, {_PRIVATE})
for _ in range({{size}} >> 12):
    hog.write(b"x" * 4096)
"""

_SAY = """
print("taken", flush=True)
"""

_USE = """
end = time.monotonic() + {use_s}
while time.monotonic() < end:
    for at in range(0, {size}, 4096):
        hog[at]
    time.sleep(0.1)  # a rest beside memory that is there, nothing beside memory in swap
"""

_FREE = """
hog.close()
time.sleep({pause_s})
"""

_UNTIL_GIVEN_BACK = f"""
def deflated():
    with open("/proc/vmstat") as vmstat:
        return next(int(line.split()[1]) for line in vmstat if line.startswith("balloon_deflate "))
before, held, waiting = deflated(), [], True
while (now := deflated()) < before + {{pages}}:
    if waiting and now > before:
        signal.alarm({{limit_s}})
        waiting = False
    held.append(mmap.mmap(-1, 1 << 20, {_PRIVATE}))
    for _ in range(16):
        held[-1].write(bytes(1 << 16))
        time.sleep({{pause_s}})
"""


def take(
    size: int,
    *,
    use_s: float = 0.0,
    times: int = 1,
    pause_s: float = 0.0,
    lock: bool = True,
    limit_s: int = 0,
) -> str:
    """A program that touches so many bytes, reads them over and over for use_s, and ends.

    With times above 1 it frees them instead and takes them again pause_s later, so many times in
    all. Each time it has taken them it says so, with a line. The kernel ends it after limit_s, 0
    never.
    """
    once = _TAKE.format(size=size) + _SAY + (_USE.format(size=size, use_s=use_s) if use_s else "")
    if times == 1:
        return _started(lock, limit_s) + once
    again = textwrap.indent(once + _FREE.format(pause_s=pause_s), "    ")
    return f"{_started(lock, limit_s)}for _ in range({times}):\n{again}"


def until_given_back(pages: int, *, lock: bool = True, limit_s: int = 0, mib_per_s: int = 0) -> str:
    """A program that takes memory until the balloon has given up so many pages, by itself or for a
    new target; it takes no more than mib_per_s, 0: as fast as it can.

    The kernel ends it limit_s after the first page, 0 never; how long that takes depends on the
    host, and may be twice as long.
    """
    pause_s = 1 / 16 / mib_per_s if mib_per_s else 0
    loop = _UNTIL_GIVEN_BACK.format(pages=pages, pause_s=pause_s, limit_s=limit_s)
    return _started(lock, 2 * limit_s) + loop


def _started(lock: bool, limit_s: int) -> str:
    lines = ["import mmap, signal, time"]
    lines += [HOLD_ON] if lock else []
    lines += [f"signal.alarm({limit_s})"]  # needs nothing of a program that crawls
    return "\n".join(lines) + "\n"
