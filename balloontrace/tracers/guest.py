"""Facts of this guest: kernel, memory, balloon device, negotiated features, driver module."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

from balloontrace.errors import EXIT_UNSUPPORTED, UserError
from balloontrace.tracers.seams import DRIVER_MODULE

VIRTIO_ID_BALLOON = 5
"""include/uapi/linux/virtio_ids.h"""

_FEATURES = {
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
_DRIVER = Path("/sys/module") / DRIVER_MODULE


def require_traceable() -> None:
    """Check that this process can trace a balloon here.

    Raises UserError (exit code 3) with what is missing, in the order in which a user would mend it.
    """
    if os.geteuid() != 0:
        raise UserError(
            "tracing the kernel needs root", "run it with sudo", exit_code=EXIT_UNSUPPORTED
        )
    if balloon_device() is None:
        raise UserError(
            "this machine has no virtio balloon device",
            "run inside a guest that has one (QEMU: -device virtio-balloon-pci)",
            exit_code=EXIT_UNSUPPORTED,
        )
    if not Path("/sys/bus/event_source/devices/kprobe").exists():
        raise UserError(
            f"kernel {os.uname().release} has no kprobes",
            "it must be built with CONFIG_KPROBE_EVENTS and CONFIG_BPF_EVENTS",
            exit_code=EXIT_UNSUPPORTED,
        )
    if not _DRIVER.exists():
        raise UserError(
            "the balloon's driver is not loaded",
            f"modprobe {DRIVER_MODULE}",
            exit_code=EXIT_UNSUPPORTED,
        )


def balloon_device() -> Path | None:
    """The sysfs directory of the first virtio balloon, None if there is none."""
    for device in sorted(_VIRTIO_DEVICES.glob("virtio*")):
        try:
            if int(_text(device / "device"), 16) == VIRTIO_ID_BALLOON:
                return device
        except ValueError:
            continue
    return None


def describe(recorder: int) -> dict[str, Any]:
    """`guest`, `clock`, `balloon` and `tasks` of the header; `recorder` is the recorder's pid."""
    uname = os.uname()
    return {
        "guest": {
            "kernel": uname.release,
            "machine": uname.machine,
            "hostname": uname.nodename,
            "page_size": os.sysconf("SC_PAGE_SIZE"),
            "memory_bytes": os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"),
            "cpus": os.cpu_count(),
            "boot_id": _text(Path("/proc/sys/kernel/random/boot_id")),
        },
        "clock": {
            "monotonic_ns": time.clock_gettime_ns(time.CLOCK_MONOTONIC),
            "realtime_ns": time.clock_gettime_ns(time.CLOCK_REALTIME),
        },
        "balloon": _balloon(),
        "tasks": {"recorder": recorder, "kswapd": _kswapd()},
    }


def _balloon() -> dict[str, Any]:
    """The device, its negotiated features by name, and the driver's module."""
    device = balloon_device()
    bits = _text(device / "features") if device else ""
    return {
        "device": device.name if device else None,
        "features": [_FEATURES.get(n, f"bit_{n}") for n, bit in enumerate(bits) if bit == "1"],
        "driver": {
            name: _text(_DRIVER / name) or None for name in ("version", "srcversion", "taint")
        },
    }


def _kswapd() -> list[int]:
    """Thread ids of kswapd. Children of kthreadd only: a process may take any name."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        pid, _, rest = _text(stat).partition(" (")
        name, _, fields = rest.rpartition(") ")
        if name.startswith("kswapd") and fields.split()[1] == "2":
            found.append(int(pid))
    return found


def _text(path: Path) -> str:
    """The stripped contents of a small file, '' if it cannot be read."""
    try:
        return path.read_text(errors="replace").strip()
    except OSError:
        return ""


def possible_cpus() -> int:
    """CPUs this kernel may ever have online: BPF indexes per-CPU data by them."""
    ranges = _text(Path("/sys/devices/system/cpu/possible")).replace("-", ",").split(",")
    return int(ranges[-1]) + 1 if ranges[-1].isdigit() else os.cpu_count() or 1
