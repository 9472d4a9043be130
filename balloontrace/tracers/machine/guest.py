# SPDX-License-Identifier: Apache-2.0
"""Facts of this guest: kernel, memory, CPUs, clocks, tasks."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

from balloontrace.tracers.machine.files import text


def describe(recorder: int) -> dict[str, Any]:
    """`guest`, `clock` and `tasks` of the header; `recorder` is the recorder's pid."""
    uname = os.uname()
    return {
        "guest": {
            "kernel": uname.release,
            "machine": uname.machine,
            "hostname": uname.nodename,
            "page_size": os.sysconf("SC_PAGE_SIZE"),
            "memory_bytes": os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"),
            "cpus": os.cpu_count(),
            "overcommit_memory": text(Path("/proc/sys/vm/overcommit_memory")),
            "boot_id": text(Path("/proc/sys/kernel/random/boot_id")),
            "dmi_vendor": text("/sys/class/dmi/id/sys_vendor"),
        },
        "clock": {
            "monotonic_ns": time.clock_gettime_ns(time.CLOCK_MONOTONIC),
            "realtime_ns": time.clock_gettime_ns(time.CLOCK_REALTIME),
        },
        "tasks": {"recorder": recorder, "loader": os.getpid(), "kswapd": _kswapd()},
    }


def _kswapd() -> list[int]:
    """Thread ids of kswapd. Children of kthreadd only: a process may take any name."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        pid, _, rest = text(stat).partition(" (")
        name, _, fields = rest.rpartition(") ")
        if name.startswith("kswapd") and fields.split()[1] == "2":
            found.append(int(pid))
    return found


def possible_cpus() -> int:
    """CPUs this kernel may ever have online: BPF indexes per-CPU data by them."""
    ranges = text(Path("/sys/devices/system/cpu/possible")).replace("-", ",").split(",")
    return int(ranges[-1]) + 1 if ranges[-1].isdigit() else os.cpu_count() or 1
