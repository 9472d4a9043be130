# SPDX-License-Identifier: Apache-2.0
"""The userspaces a guest can have in place of its kernel's, read from ``userspaces.toml``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from balloontrace.errors import EXIT_USAGE, UserError
from balloontrace.lab.tables import Table, read_tables


@dataclass(frozen=True)
class Userspace(Table):
    """One table of ``userspaces.toml``, where each field is explained."""

    FILE: ClassVar[Path] = Path(__file__).with_name("userspaces.toml")
    PACKAGE_KEYS: ClassVar[tuple[str, ...]] = ("packages",)

    packages: tuple[str, ...]


def load_userspaces() -> dict[str, Userspace]:
    """Return every userspace by name, in the file's order."""
    tables = read_tables(Userspace.FILE)
    return {
        name: Userspace(**{"name": name, "without": ()} | table) for name, table in tables.items()
    }


def find_userspace(name: str) -> Userspace:
    """Return one userspace. Raises UserError if the data file has no such table."""
    userspaces = load_userspaces()
    if name not in userspaces:
        raise UserError(
            f"the lab has no userspace {name!r}", f"it has {', '.join(userspaces)}", EXIT_USAGE
        )
    return userspaces[name]
