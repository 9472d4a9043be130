# SPDX-License-Identifier: Apache-2.0
"""The privileges a recorder needs, and giving up the others (capabilities(7))."""

from __future__ import annotations

import errno
import os
import struct

from balloontrace.tracers.machine.system_calls import libc, os_error, perf_event_open

_NUMBERS = {
    "kill": 5,
    "net_admin": 12,
    "ipc_lock": 14,
    "sys_admin": 21,
    "sys_resource": 24,
    "syslog": 34,
    "perfmon": 38,
    "bpf": 39,
}
"""include/uapi/linux/capability.h"""

TRACE = ("bpf", "perfmon")
"""To load the programs, to read kernel memory in them, and to attach them: commits a17b53c4a4b5
"bpf, capability: Introduce CAP_BPF" and 980737282232 "capabilities: Introduce CAP_PERFMON" (both in
v5.8), before which a ring buffer is not to be had either."""

RECORD = (*TRACE, "syslog", "ipc_lock")
"""What a recorder keeps: it attaches again when the driver comes back, for which it reads the
addresses of functions, and it goes on locking what it will touch."""

DELAYS = ("net_admin",)
"""What taskstats asks of the process that reads delays (kernel/taskstats.c)."""

_DUMMY_EVENT = struct.pack("@IIQQQQQIIQQ", 1, 72, 9, 0, 0, 0, 0, 0, 0, 0, 0)
"""struct perf_event_attr: PERF_TYPE_SOFTWARE, PERF_ATTR_SIZE_VER1, PERF_COUNT_SW_DUMMY."""

_VERSION_3 = 0x20080522
_LAST = 63
"""No kernel has a capability beyond this number; one that it does not have cannot be dropped."""
_DROP_BOUNDING = 24  # prctl(PR_CAPBSET_DROP, number)
_CLEAR_AMBIENT = (47, 4, 0, 0, 0)  # prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL)
_NO_NEW_PRIVILEGES = (38, 1, 0, 0, 0)  # prctl(PR_SET_NO_NEW_PRIVS): exec gives root nothing back


def effective() -> int:
    """The capabilities of this process, one bit each."""
    with open("/proc/self/status", encoding="ascii", errors="replace") as status:
        return next(int(line.split()[1], 16) for line in status if line.startswith("CapEff:"))


def missing(names: tuple[str, ...]) -> list[str]:
    """Those of `names` that this process lacks, as people write them. sys_admin stands for all of
    TRACE."""
    held = effective()
    if names == TRACE and held >> _NUMBERS["sys_admin"] & 1:
        return []
    return [f"CAP_{name.upper()}" for name in names if not held >> _NUMBERS[name] & 1]


def may_attach() -> bool:
    """Whether this process may open a perf event, which holds a probe.

    CAP_PERFMON is enough in the kernel as it is published. Debian's and Ubuntu's have a patch by
    which kernel.perf_event_paranoid can be 3, their default: CAP_SYS_ADMIN is needed then.
    """
    try:
        os.close(perf_event_open(_DUMMY_EVENT))
    except OSError as error:
        return error.errno not in (errno.EACCES, errno.EPERM)
    return True


def needed() -> tuple[str, ...]:
    """RECORD, and sys_admin where attaching needs it: found by trying, in a child, and taken to be
    so where there can be none."""
    try:
        pid = os.fork()
    except OSError:
        return (*RECORD, "sys_admin")
    if not pid:
        try:
            keep_only(*RECORD)
            os._exit(not may_attach())
        finally:
            os._exit(1)
    refused = os.waitpid(pid, 0)[1]
    return (*RECORD, "sys_admin") if refused else RECORD


def keep_only(*names: str) -> None:
    """Give up every capability but these, for good; one that is not there is not gained.

    The children started from now on are born without them, too. Raises OSError.
    """
    kept = effective() & sum(1 << _NUMBERS[name] for name in names)
    for number in range(_LAST + 1):
        if not kept >> number & 1:
            libc.prctl(_DROP_BOUNDING, number, 0, 0, 0)  # which takes CAP_SETPCAP
    libc.prctl(*_CLEAR_AMBIENT)
    libc.prctl(*_NO_NEW_PRIVILEGES)
    low, high = kept & 0xFFFFFFFF, kept >> 32
    header = struct.pack("@Ii", _VERSION_3, 0)
    data = struct.pack("@6I", low, low, 0, high, high, 0)  # effective, permitted, inheritable
    if libc.capset(header, data) < 0:
        raise os_error()
