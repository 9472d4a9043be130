"""Whether the balloon's driver is there, and whether it is still the same one."""

from __future__ import annotations

import os

DRIVER_MODULE = "virtio_balloon"
DRIVER = f"/sys/bus/virtio/drivers/{DRIVER_MODULE}"
"""There while the driver is loaded, or built in."""


def identity() -> int:
    """A number that changes when the driver is loaded again; 0 while there is none."""
    try:
        return os.stat(DRIVER).st_ino
    except FileNotFoundError:
        return 0
