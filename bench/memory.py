# SPDX-License-Identifier: Apache-2.0
"""`make bench-memory`: what the recorder's memory is, and what more its imports could cost.

The two tables of `make bench` that are of memory, and one for the modules that the recorder does
without. Exits with 1 if a budget is missed.
"""

from __future__ import annotations

from balloontrace.lab.guest import Guest
from balloontrace.lab.image import ensure_image
from balloontrace.lab.kernels import find_kernel
from balloontrace.lab.qemu import GuestConfig, choose_accel
from balloontrace.lab.remote import TREE
from bench.overhead import recorder_costs, where_memory_is
from tools.command import progress, run

MODULES = (
    *("contextlib", "collections", "enum", "signal", "re", "json", "socket", "threading"),
    *("typing", "pathlib", "subprocess", "dataclasses"),
)
"""That were imported once, or would be handy."""

_PROGRAM = """
import balloontrace.tracers.record.session

def resident_kib():
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmRSS:"))

before = resident_kib()
import {module}
print(resident_kib() - before)
"""


def what_imports_cost(guest: Guest) -> None:
    """Each module's resident memory, with all that it loads, beyond what the recorder has."""
    print("\nWhat else the recorder could import, each alone\n")
    print("| | KiB more |\n|---|---:|")
    for module in MODULES:
        program = _PROGRAM.format(module=module)
        command = ["env", f"PYTHONPATH={TREE}", "python3", "-S", "-c", program]
        print(f"| `{module}` | {int(guest.run(command).stdout):,} |")


def main() -> int:
    """Print the tables; 1 if a budget is missed."""
    image = ensure_image(find_kernel("6.1"), progress)
    with Guest(image, GuestConfig(memory_bytes=1 << 30), progress) as guest:
        print(f"Linux {image.release}, {choose_accel()}")
        guest.install_balloontrace()
        holds = recorder_costs(guest)
        where_memory_is(guest)
        what_imports_cost(guest)
    return 0 if holds else 1


if __name__ == "__main__":
    run("bench-memory", main)
