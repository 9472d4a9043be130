# SPDX-License-Identifier: Apache-2.0
"""The kernels the lab can boot, read from ``kernels.toml``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from balloontrace.errors import EXIT_USAGE, UserError
from balloontrace.lab.tables import Table, read_tables


@dataclass(frozen=True)
class Kernel(Table):
    """One table of ``kernels.toml``, where each field is explained."""

    FILE: ClassVar[Path] = Path(__file__).with_name("kernels.toml")
    PACKAGE_KEYS: ClassVar[tuple[str, ...]] = ("image", "headers", "source")

    image: str
    headers: str
    source: str
    builder_suite: str
    builder_sources: tuple[str, ...]
    pins: str
    config: str

    @property
    def machine(self) -> str:
        """The Debian release the kernel is from: the name of its Vagrant machine.

        Raises UserError for a kernel that no release has.
        """
        if self.config:
            others = ", ".join(
                kernel.name for kernel in load_kernels().values() if not kernel.config
            )
            raise UserError(
                f"there is no Vagrant machine with kernel {self.name}",
                f"without Vagrant there is; with it, take {others}",
                EXIT_USAGE,
            )
        return self.builder_suite

    @property
    def origin(self) -> str:
        """Where it comes from, for a person."""
        if self.config:
            return f"compiled from Debian {self.builder_suite}'s {self.source}"
        return f"Debian {self.builder_suite}'s"

    @property
    def recipe(self) -> Path:
        """The directory of what makes its image out of two Debian trees."""
        return (self.FILE.parent / (self.config or "drivers/install")).parent


def load_kernels() -> dict[str, Kernel]:
    """Return every kernel by name, in the file's order."""
    return {name: _kernel(name, table) for name, table in read_tables(Kernel.FILE).items()}


def find_kernel(name: str, driver: str = "stock") -> Kernel:
    """Return one kernel, for guests with that balloon driver (of qemu.DRIVERS).

    Raises UserError if the data file has no such table, or the kernel's driver cannot be exchanged.
    """
    kernels = load_kernels()
    if name not in kernels:
        raise UserError(
            f"the lab has no kernel {name!r}", f"it has {', '.join(kernels)}", EXIT_USAGE
        )
    if kernels[name].config and driver != "stock":
        raise UserError(
            f"kernel {name} has its own driver built in: there is no {driver!r} for it",
            "take --driver stock, or another kernel",
            EXIT_USAGE,
        )
    return kernels[name]


def find_machine(name: str) -> Kernel:
    """Return the kernel of a Vagrant machine. Raises UserError if there is none of that name."""
    machines = {kernel.machine: kernel for kernel in load_kernels().values() if not kernel.config}
    if name not in machines:
        raise UserError(
            f"the lab has no machine {name!r}", f"it has {', '.join(machines)}", EXIT_USAGE
        )
    return machines[name]


def _kernel(name: str, table: dict[str, Any]) -> Kernel:
    defaults = {
        "builder_suite": table["suite"],
        "builder_sources": table["sources"],
        "without": (),
        **dict.fromkeys(("image", "headers", "pins", "config"), ""),
    }
    return Kernel(name=name, **(defaults | table))
