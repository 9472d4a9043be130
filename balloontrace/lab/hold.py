"""Holding up one thread of a child process, as a busy host would.

A signal stops all threads of a process, so of a QEMU the guest's CPUs with it; ptrace stops one.
"""

from __future__ import annotations

import ctypes
import os
import time

from balloontrace.errors import UserError

_SEIZE, _INTERRUPT, _DETACH = 0x4206, 0x4207, 17  # include/uapi/linux/ptrace.h
_EVENT_STOP = 128
_WALL = 0x40000000

_libc = ctypes.CDLL(None, use_errno=True)
_libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
_libc.ptrace.restype = ctypes.c_long


def hold(thread: int, seconds: float) -> None:
    """Stop a thread (its id) for a while. If this process dies meanwhile, it goes on at once.

    Raises UserError if that is not allowed here.
    """
    _ptrace(_SEIZE, thread, 0)
    _ptrace(_INTERRUPT, thread, 0)
    _, status = os.waitpid(thread, _WALL)
    if not os.WIFSTOPPED(status):
        return  # it has ended
    time.sleep(seconds)
    # Stopped by a signal that came first: that is still to be delivered.
    signal = 0 if status >> 16 == _EVENT_STOP else os.WSTOPSIG(status)
    _ptrace(_DETACH, thread, signal)


def _ptrace(request: int, thread: int, data: int) -> None:
    if _libc.ptrace(request, thread, None, data) == -1:
        reason = os.strerror(ctypes.get_errno())
        raise UserError(
            f"cannot hold up thread {thread}: {reason}",
            "the lab needs ptrace for this scenario, which this host or container forbids",
        )
