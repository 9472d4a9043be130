"""Facts of this guest: kernel, memory, balloon device, negotiated features, driver module."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from balloontrace.errors import EXIT_UNSUPPORTED, UserError
from balloontrace.tracers import capabilities
from balloontrace.tracers.driver import DRIVER_MODULE, identity
from balloontrace.tracers.probes import KPROBE_EVENTS

VIRTIO_ID_BALLOON = 5
"""include/uapi/linux/virtio_ids.h"""

FEATURES = {
    0: "must_tell_host",
    1: "stats_vq",
    2: "deflate_on_oom",
    3: "free_page_hint",
    4: "page_poison",
    5: "reporting",
    24: "notify_on_empty",
    27: "any_layout",
    28: "indirect_desc",
    29: "event_idx",
    32: "version_1",
    33: "access_platform",
    34: "ring_packed",
    35: "in_order",
    36: "order_platform",
    37: "sr_iov",
    38: "notification_data",
    40: "ring_reset",
}
"""Bits of include/uapi/linux/virtio_balloon.h and virtio_config.h -> names."""

_VIRTIO_DEVICES = Path("/sys/bus/virtio/devices")
_MODULE = Path("/sys/module") / DRIVER_MODULE


def require_traceable(driver: bool = True) -> None:
    """Check that this process can trace a balloon here; without `driver`, but for its driver.

    Raises UserError (exit code 3) with what is missing.
    """
    for name, obstacle in obstacles():
        if driver or name != "driver":
            raise obstacle


def obstacles() -> Iterator[tuple[str, UserError]]:
    """What is missing to trace a balloon here, in the order in which a user would mend it."""
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
        paranoid = text(Path("/proc/sys/kernel/perf_event_paranoid"))
        yield (
            "root",
            UserError(
                f"kernel.perf_event_paranoid is {paranoid}: only CAP_SYS_ADMIN may attach probes",
                "run it with sudo, or: sysctl kernel.perf_event_paranoid=2",
                EXIT_UNSUPPORTED,
            ),
        )
    if balloon_device() is None:
        yield (
            "device",
            UserError(
                "this machine has no virtio balloon device",
                "run inside a guest that has one (QEMU: -device virtio-balloon-pci)",
                EXIT_UNSUPPORTED,
            ),
        )
    if not KPROBE_EVENTS.exists():
        yield (
            "kprobes",
            UserError(
                f"kernel {os.uname().release} has no kprobes",
                "it must be built with CONFIG_KPROBE_EVENTS and CONFIG_BPF_EVENTS",
                EXIT_UNSUPPORTED,
            ),
        )
    if not identity():
        yield (
            "driver",
            UserError(
                "the balloon's driver is not loaded",
                f"modprobe {DRIVER_MODULE}, or record --wait until it is",
                EXIT_UNSUPPORTED,
            ),
        )


def balloon_device() -> Path | None:
    """The sysfs directory of the first virtio balloon, None if there is none."""
    for device in sorted(_VIRTIO_DEVICES.glob("virtio*")):
        try:
            if int(text(device / "device"), 16) == VIRTIO_ID_BALLOON:
                return device
        except ValueError:
            continue
    return None


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
            "boot_id": text(Path("/proc/sys/kernel/random/boot_id")),
        },
        "clock": {
            "monotonic_ns": time.clock_gettime_ns(time.CLOCK_MONOTONIC),
            "realtime_ns": time.clock_gettime_ns(time.CLOCK_REALTIME),
        },
        "tasks": {"recorder": recorder, "loader": os.getpid(), "kswapd": _kswapd()},
    }


def describe_balloon() -> dict[str, Any]:
    """`balloon` of the header: device, negotiated features by name, and the driver's module."""
    device = balloon_device()
    return {
        "device": device.name if device else None,
        "features": features(),
        "driver": {
            name: text(_MODULE / name) or None for name in ("version", "srcversion", "taint")
        },
    }


def is_module() -> bool:
    """Whether the driver is a loaded module; one that is built in has no state of loading."""
    return (_MODULE / "initstate").exists()


def features() -> list[str]:
    """The features that the driver and the device agreed upon, by name."""
    device = balloon_device()
    bits = text(device / "features") if device else ""
    return [FEATURES.get(n, f"bit_{n}") for n, bit in enumerate(bits) if bit == "1"]


def _kswapd() -> list[int]:
    """Thread ids of kswapd. Children of kthreadd only: a process may take any name."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        pid, _, rest = text(stat).partition(" (")
        name, _, fields = rest.rpartition(") ")
        if name.startswith("kswapd") and fields.split()[1] == "2":
            found.append(int(pid))
    return found


def text(path: Path) -> str:
    """The stripped contents of a small file, '' if it cannot be read."""
    try:
        return path.read_text(errors="replace").strip()
    except OSError:
        return ""


def possible_cpus() -> int:
    """CPUs this kernel may ever have online: BPF indexes per-CPU data by them."""
    ranges = text(Path("/sys/devices/system/cpu/possible")).replace("-", ",").split(",")
    return int(ranges[-1]) + 1 if ranges[-1].isdigit() else os.cpu_count() or 1
