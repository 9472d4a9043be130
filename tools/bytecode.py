# SPDX-License-Identifier: Apache-2.0
"""`make bytecode`: compiles the BPF programs for each machine, in a guest with BCC.

Writes balloontrace/tracers/bpf/bytecode/<machine>.json, the same bytes whenever it is made of the
same source: tests/guest/test_bytecode.py makes it again and compares.
"""

from __future__ import annotations

from pathlib import Path

from balloontrace import tracers
from balloontrace.lab.guest import Guest
from balloontrace.lab.image import ensure_image
from balloontrace.lab.kernels import find_kernel
from balloontrace.lab.qemu import GuestConfig
from balloontrace.lab.remote import TREE
from balloontrace.tracers.load import shipped
from tools.command import progress, run

KERNEL = "6.1"
"""Whose guest has the BCC that compiles."""

LIMIT_S = 600.0
"""For one machine, on a computer that is busy."""

MACHINES = {"x86_64": "x86", "aarch64": "arm64"}
"""As uname(2) calls a machine -> as BCC's variable ARCH does."""

_COMPILE = """
import sys
from balloontrace.tracers.load import compiler, shipped
sys.stdout.buffer.write(shipped.to_json(compiler.compile_programs(), compiler.digest()))
"""


def path_of(machine: str) -> Path:
    """What is shipped for a machine, in this checkout."""
    return Path(tracers.__path__[0]) / shipped.name_of(machine)


def made_in(guest: Guest, machine: str) -> bytes:
    """What a guest, which has the tree and BCC, makes for a machine."""
    environment = [f"ARCH={MACHINES[machine]}", f"PYTHONPATH={TREE}"]
    program = ["env", *environment, "python3", "-c", _COMPILE]
    return guest.run(program, timeout_s=LIMIT_S).stdout.encode()


def main() -> int:
    """Write a file for each machine."""
    with Guest(ensure_image(find_kernel(KERNEL), progress), GuestConfig(KERNEL), progress) as guest:
        guest.install_balloontrace()
        for machine in MACHINES:
            path = path_of(machine)
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(made_in(guest, machine))
            progress(f"wrote {path}")
    return 0


if __name__ == "__main__":
    run("bytecode", main)
