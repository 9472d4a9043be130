# SPDX-License-Identifier: Apache-2.0
"""What of the kernel a recording needs or gains by, found by trying it. Changes nothing."""

from __future__ import annotations

import gzip
import os
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from balloontrace.tracers.doctor.obstacles import obstacles
from balloontrace.tracers.load import packages
from balloontrace.tracers.machine import balloon, capabilities, system_calls
from balloontrace.tracers.machine.bpf_calls import KPROBE_EVENTS
from balloontrace.tracers.machine.btf import BTF_DIRECTORY
from balloontrace.tracers.machine.files import text
from balloontrace.tracers.machine.symbols import KALLSYMS
from balloontrace.tracers.samplers import delays
from balloontrace.tracers.samplers.psi import Psi
from balloontrace.tracers.samplers.vmstat import balloon_counters

_LOCKDOWN = Path("/sys/kernel/security/lockdown")
_KPTR_RESTRICT = Path("/proc/sys/kernel/kptr_restrict")
_MAP_CREATE = 0
_MAP_TYPE_ARRAY, _MAP_TYPE_RINGBUF = 2, 27
_LOOKED_AT_SYMBOLS = 100
"""Symbols of /proc/kallsyms to look at: per-CPU ones, which come first, begin at address 0."""

_OPTIONS = (
    "CONFIG_BPF_EVENTS",
    "CONFIG_BPF_SYSCALL",
    "CONFIG_DEBUG_INFO_BTF",
    "CONFIG_DEBUG_INFO_BTF_MODULES",
    "CONFIG_KPROBE_EVENTS",
    "CONFIG_PSI",
    "CONFIG_TASKSTATS",
    "CONFIG_TASK_DELAY_ACCT",
    "CONFIG_VIRTIO_BALLOON",
    "CONFIG_VM_EVENT_COUNTERS",
)


class Check(NamedTuple):
    """One thing looked at.

    ok: it is as a recording wants it; found: what was seen; remedy: what to do if it is not ok;
    option: the kernel's configuration option behind it; required: no recording without it.
    """

    name: str
    ok: bool
    found: str
    remedy: str = ""
    option: str = ""
    required: bool = False


def required() -> list[Check]:
    """Everything without which there is no recording, in the order in which a user would mend it.

    The maps are not tried where bpf(2) could not make them: not as root, or not on this machine.
    """
    missing = dict(obstacles())
    checks = [
        Check(
            name,
            name not in missing,
            missing[name].message if name in missing else found,
            missing[name].hint if name in missing else "",
            option,
            required=True,
        )
        for name, found, option in (
            ("root", "running as root" if os.geteuid() == 0 else "CAP_BPF and CAP_PERFMON", ""),
            ("device", "a virtio balloon", ""),
            ("kprobes", _probes(), "CONFIG_KPROBE_EVENTS"),
            ("driver", "loaded", "CONFIG_VIRTIO_BALLOON"),
        )
    ]
    untried = missing.keys() & {"root", "kprobes"}
    return [*checks, _lockdown(), *(() if untried else _maps())]


def helpful() -> list[Check]:
    """What a recording can do without, but with a loss."""
    return [
        _vmlinux_btf(),
        *_driver_btf(),
        _addresses(),
        _pressure(),
        _task_delays(),
        _counters(),
        *_sleeping_lock(),
    ]


def configuration() -> dict[str, str | None]:
    """`source`, and the options behind the checks; empty where the kernel's is not to be had."""
    for path in (Path("/proc/config.gz"), Path(f"/boot/config-{os.uname().release}")):
        try:
            read = gzip.decompress if path.suffix == ".gz" else bytes
            text = read(path.read_bytes()).decode(errors="replace")
        except (OSError, EOFError, zlib.error):  # or one that was cut off
            continue
        lines = (line for line in text.splitlines() if line[:7] == "CONFIG_" and "=" in line)
        values = dict(line.split("=", 1) for line in lines)
        return {"source": str(path), **{option: values.get(option) for option in _OPTIONS}}
    return {}


def _probes() -> str:
    """By what probes can be attached, said to people."""
    if KPROBE_EVENTS.exists():
        return "the kernel has kprobes for BPF"
    return "no kprobes, but BTF, for fentry"


def _maps() -> Iterator[Check]:
    """Make one map of either kind, and close it again."""
    for name, kind, key_bytes, value_bytes, entries, option in (
        ("bpf", _MAP_TYPE_ARRAY, 4, 8, 1, "CONFIG_BPF_SYSCALL"),
        ("ring buffer", _MAP_TYPE_RINGBUF, 0, 0, os.sysconf("SC_PAGE_SIZE"), "CONFIG_BPF_SYSCALL"),
    ):
        attr = struct.pack("@IIIII", kind, key_bytes, value_bytes, entries, 0)
        try:
            os.close(system_calls.bpf(_MAP_CREATE, attr))
        except OSError as error:
            found = f"the kernel makes no such BPF map ({error.strerror})"
            remedy = "it needs CONFIG_BPF_SYSCALL, and 5.8 or a backport for the ring buffer"
        else:
            yield Check(name, True, "a map can be made", "", option, required=True)
            continue
        yield Check(name, False, found, remedy, option, required=True)


def _vmlinux_btf() -> Check:
    there = (BTF_DIRECTORY / "vmlinux").exists()
    return Check(
        "vmlinux BTF",
        there,
        "there" if there else "none: lesser rungs, see the seams",
        "" if there else "a kernel built with CONFIG_DEBUG_INFO_BTF",
        "CONFIG_DEBUG_INFO_BTF",
    )


def _driver_btf() -> Iterator[Check]:
    """Nothing is to be said while there is no driver."""
    if not balloon.identity():
        return
    built_in = not balloon.is_module()
    there = (BTF_DIRECTORY / (balloon.DRIVER_MODULE if not built_in else "vmlinux")).exists()
    yield Check(
        "driver BTF",
        there,
        ("in vmlinux's" if built_in else "there") if there else "none: lesser rungs, see the seams",
        "" if there else "a module with BTF (CONFIG_DEBUG_INFO_BTF_MODULES, pahole)",
        "CONFIG_DEBUG_INFO_BTF_MODULES",
    )


def _lockdown() -> Check:
    """`confidentiality` forbids kprobes, and BPF to read the kernel's memory.

    Commit 9d1f8be5cf42 "bpf: Restrict bpf when kernel lockdown is in confidentiality mode" (in
    v5.4).
    """
    said = text(_LOCKDOWN)
    mode = said.partition("[")[2].partition("]")[0] or _no_lockdown_file()
    if mode != "confidentiality":
        return Check("lockdown", True, mode, required=True)
    found = "the kernel is locked down for confidentiality: no BPF program may read its memory"
    return Check("lockdown", False, found, "boot with lockdown=integrity or none", required=True)


def _no_lockdown_file() -> str:
    if not os.path.ismount(_LOCKDOWN.parent):
        return f"not known: securityfs is not mounted at {_LOCKDOWN.parent}"
    return "none: this kernel has no lockdown"


def _addresses() -> Check:
    """Where a name stands for several functions, their addresses tell them apart."""
    try:
        with open(KALLSYMS, "rb") as kallsyms:
            first = [next(kallsyms, b"0") for _ in range(_LOOKED_AT_SYMBOLS)]
    except OSError as error:
        found = f"{KALLSYMS} cannot be read ({error.strerror})"
        return Check("kernel addresses", False, found, "a kernel built with CONFIG_KALLSYMS")
    seen = any(int(line.split()[0], 16) for line in first)
    restrict = f"kptr_restrict {text(_KPTR_RESTRICT) or 'not there'}"
    if seen:
        return Check("kernel addresses", True, f"visible ({restrict})")
    if os.geteuid() != 0:
        found = f"hidden from this user ({restrict})"
        return Check("kernel addresses", False, found, "needs CAP_SYSLOG")
    return Check("kernel addresses", False, f"hidden ({restrict})", "sysctl kernel.kptr_restrict=1")


def _pressure() -> Check:
    try:
        Psi().read()
    except OSError:
        return Check(
            "PSI",
            False,
            "/proc/pressure cannot be read: no pressure in recordings",
            "boot with psi=1, on a kernel built with CONFIG_PSI",
            "CONFIG_PSI",
        )
    return Check("PSI", True, "/proc/pressure can be read", "", "CONFIG_PSI")


def _task_delays() -> Check:
    """What accounting() says, which asks through taskstats as a recording does."""
    name, option = "task delays", "CONFIG_TASK_DELAY_ACCT"
    delays.prefer_bare_pyroute2()
    try:
        own = delays.TaskDelays().read(os.getpid())
    except ImportError:
        remedy = packages.how_to_install("pyroute2")
        return Check(name, False, "not looked at, pyroute2 is missing", remedy, option)
    except OSError as error:
        allowed = not capabilities.missing(capabilities.DELAYS)
        remedy = "a kernel built with CONFIG_TASKSTATS" if allowed else "needs CAP_NET_ADMIN"
        return Check(name, False, f"no taskstats ({error.strerror})", remedy, "CONFIG_TASKSTATS")
    if own is None:
        return Check(name, False, "taskstats does not know this process", "", option)
    accounting = delays.accounting(own)
    state, version = accounting["delayacct"], f"taskstats {accounting['taskstats_version']}"
    if state == "on":
        scope = "all tasks" if accounting["since_boot"] else "tasks started since it was turned on"
        return Check(name, True, f"on, for {scope} ({version})", "", option)
    if state == "absent":
        return Check(name, False, "this kernel counts none", f"one built with {option}", option)
    if Path(delays.DELAYACCT).exists():
        remedy = "sysctl kernel.task_delayacct=1: tasks started from then on are counted"
    else:
        remedy = "boot without nodelayacct"
    return Check(name, False, f"off ({version})", remedy, option)


def _sleeping_lock() -> Iterator[Check]:
    """Nothing is to be said but for real time, where a spinlock may sleep.

    Commit 8b62645b09f8 "bpf: Use raw_spinlock_t in ringbuf" (in v6.12, and in 6.6.83 and 6.11.5).
    """
    if "PREEMPT_RT" in os.uname().version:
        yield Check(
            "real time",
            False,
            "PREEMPT_RT: without commit 8b62645b09f8 the ring buffer takes a lock that may sleep, "
            "where a program must not",
            "a kernel with that commit: 6.6.83, 6.11.5, 6.12, or newer",
        )


def _counters() -> Check:
    counters = balloon_counters()
    if counters:
        return Check("vmstat counters", True, ", ".join(counters), "", "CONFIG_VM_EVENT_COUNTERS")
    return Check(
        "vmstat counters",
        False,
        "none in /proc/vmstat: totals cannot be checked against it",
        "a kernel built with CONFIG_VM_EVENT_COUNTERS",
        "CONFIG_VM_EVENT_COUNTERS",
    )
