# SPDX-License-Identifier: Apache-2.0
"""What keeps a recording from being made here. Few imports: each recording waits for them."""

from __future__ import annotations

import os
from collections.abc import Iterator

from balloontrace.errors import EXIT_UNSUPPORTED, UserError
from balloontrace.tracers.machine import balloon, capabilities, system_calls
from balloontrace.tracers.machine.bpf_calls import KPROBE_EVENTS
from balloontrace.tracers.machine.btf import BTF_DIRECTORY
from balloontrace.tracers.machine.files import text


def require_traceable(wait: bool = False) -> None:
    """Check that this process can trace a balloon here; `wait`: but for what may come later, the
    device and its driver.

    Raises UserError (exit code 3) with what is missing.
    """
    for name, obstacle in obstacles():
        if not wait or name not in ("device", "driver"):
            raise obstacle


def obstacles() -> Iterator[tuple[str, UserError]]:
    """What is missing to trace a balloon here, in the order in which a user would mend it."""
    if (machine := os.uname().machine) not in system_calls.MACHINES:
        yield (
            "kprobes",
            UserError(
                f"balloontrace does not know the system calls and registers of {machine}",
                f"it runs on {' and '.join(system_calls.MACHINES)}",
                EXIT_UNSUPPORTED,
            ),
        )
        return
    if lacking := capabilities.missing(capabilities.TRACE):
        yield (
            "root",
            UserError(
                f"tracing the kernel needs root, or {' and '.join(lacking)}",
                "run it with sudo",
                EXIT_UNSUPPORTED,
            ),
        )
    elif not capabilities.may_attach():
        paranoid = text("/proc/sys/kernel/perf_event_paranoid")
        yield (
            "root",
            UserError(
                f"kernel.perf_event_paranoid is {paranoid}: only CAP_SYS_ADMIN may attach probes",
                "run it with sudo, or: sysctl kernel.perf_event_paranoid=2",
                EXIT_UNSUPPORTED,
            ),
        )
    if not balloon.device():
        yield (
            "device",
            UserError(
                _no_device(),
                "run inside a guest that has one (QEMU: -device virtio-balloon-pci), or "
                "record --wait until it is plugged in",
                EXIT_UNSUPPORTED,
            ),
        )
    if not KPROBE_EVENTS.exists() and not (BTF_DIRECTORY / "vmlinux").exists():
        yield (
            "kprobes",
            UserError(
                f"kernel {os.uname().release} has neither kprobes nor BTF",
                "it must be built with CONFIG_KPROBE_EVENTS, or with CONFIG_DEBUG_INFO_BTF and "
                "CONFIG_FUNCTION_TRACER; and with CONFIG_BPF_EVENTS",
                EXIT_UNSUPPORTED,
            ),
        )
    if not balloon.identity():
        yield (
            "driver",
            UserError(
                "the balloon's driver is not loaded",
                f"modprobe {balloon.DRIVER_MODULE}, or record --wait until it is",
                EXIT_UNSUPPORTED,
            ),
        )


def _no_device() -> str:
    if other := balloon.other():
        return f"what takes memory here is {other}, which balloontrace does not trace"
    return "this machine has no virtio balloon device"
