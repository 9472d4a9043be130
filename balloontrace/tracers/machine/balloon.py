# SPDX-License-Identifier: Apache-2.0
"""This balloon: its device, what was negotiated, and its driver."""

from __future__ import annotations

import os

from balloontrace.tracers.machine.files import text

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

DRIVER_MODULE = "virtio_balloon"
DRIVER = f"/sys/bus/virtio/drivers/{DRIVER_MODULE}"
"""There while the driver is loaded, or built in."""

VIRTIO_ID_BALLOON, VIRTIO_ID_MEM = 5, 24
"""include/uapi/linux/virtio_ids.h"""

OTHERS = {
    "hv_balloon": "/sys/bus/vmbus/drivers/hv_balloon",
    "vmw_balloon": "/sys/module/vmw_balloon",
    "xen_balloon": "/sys/devices/system/xen_memory/xen_memory0",
}
"""Drivers by which other hypervisors take memory back (drivers/hv/hv_balloon.c,
drivers/misc/vmw_balloon.c, drivers/xen/xen-balloon.c) -> what is there with them."""

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

TRANSPORTS = {"pci": "pci", "platform": "mmio", "ccw": "ccw"}
"""The bus of the device's parent -> its transport (drivers/virtio)."""

_VIRTIO_DEVICES = "/sys/bus/virtio/devices"
_MODULE = f"/sys/module/{DRIVER_MODULE}"


def identity() -> int:
    """A number that changes when the driver is loaded again; 0 while there is none."""
    try:
        return os.stat(DRIVER).st_ino
    except FileNotFoundError:
        return 0


def device() -> str:
    """The sysfs directory of the first virtio balloon, '' if there is none."""
    return _virtio_device(VIRTIO_ID_BALLOON)


def other() -> str:
    """The driver of a balloon that is not virtio's, or of virtio-mem; '' if there is none."""
    found = (name for name, path in OTHERS.items() if os.path.exists(path))
    return next(found, "virtio_mem" if _virtio_device(VIRTIO_ID_MEM) else "")


def _virtio_device(kind: int) -> str:
    """The sysfs directory of the first virtio device of this kind, '' if there is none."""
    try:
        names = sorted(os.listdir(_VIRTIO_DEVICES))
    except FileNotFoundError:
        return ""
    for name in names:
        try:
            if int(text(f"{_VIRTIO_DEVICES}/{name}/device"), 16) == kind:
                return f"{_VIRTIO_DEVICES}/{name}"
        except ValueError:
            continue
    return ""


def transport(found: str) -> str:
    """The transport of `found`, a device's directory; '' if it is none of TRANSPORTS."""
    bus = os.path.realpath(f"{os.path.dirname(os.path.realpath(found))}/subsystem") if found else ""
    return TRANSPORTS.get(os.path.basename(bus), "")


_REPORTING_ORDER = "/sys/module/page_reporting/parameters/page_reporting_order"
_ORDERS = 64


def describe() -> dict[str, Any]:
    """`balloon` of the header: device, negotiated features by name, and the driver's module."""
    found = device()
    return {
        "device": os.path.basename(found) or other() or None,
        "features": features(),
        "driver": {
            name: text(f"{_MODULE}/{name}") or None for name in ("version", "srcversion", "taint")
        },
        "reporting_order": _reporting_order(),
    }


def _reporting_order() -> int | None:
    """Free page reporting tells of blocks of so many pages and more, as a power of two (a parameter
    since commit 9f849c6fbe1b "mm/page_reporting: export reporting order as module parameter", in
    v5.14; before that pageblock_order); None: not told, or nothing has registered to be reported to
    yet (-1)."""
    told = text(_REPORTING_ORDER)
    return int(told) if told.isdigit() and int(told) < _ORDERS else None


def is_module() -> bool:
    """Whether the driver is a loaded module; one that is built in has no state of loading."""
    return os.path.exists(f"{_MODULE}/initstate")


def features() -> list[str]:
    """The features that the driver and the device agreed upon, by name."""
    bits = negotiated(device())[1]
    return [FEATURES.get(n, f"bit_{n}") for n, bit in enumerate(bits) if bit == "1"]


def negotiated(found: str) -> tuple[str, str]:
    """`found`, a device's directory, and its features as a digit for each bit; '' if it is gone, or
    no driver has negotiated with it yet."""
    bits = text(f"{found}/features") if found else ""
    return found, bits if "1" in bits else ""
