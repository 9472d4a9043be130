# SPDX-License-Identifier: Apache-2.0
"""What the lab's images are made from: tables of data files, and where in one a line stands."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar


@dataclass(frozen=True)
class Table:
    """One table of a data file of this directory, where each field is explained."""

    FILE: ClassVar[Path]
    PACKAGE_KEYS: ClassVar[tuple[str, ...]]
    """The keys whose values are packages."""

    name: str
    suite: str
    sources: tuple[str, ...]
    without: tuple[str, ...]

    def place(self, pattern: str) -> str | None:
        """Return where the table first matches a regular expression, as ``file line N``."""
        lines = self.FILE.read_text(encoding="utf-8").splitlines()
        inside = False
        for number, line in enumerate(lines, 1):
            if re.match(r"\s*\[.*\]\s*(#.*)?$", line):
                inside = line.strip(" []\"'") == self.name
            if inside and re.search(pattern, line):
                return f"{self.FILE} line {number}"
        return None


def read_tables(path: Path) -> Mapping[str, dict[str, Any]]:
    """Return the fields of each table by its name, in the file's order; lists are tuples."""
    tables = tomllib.loads(path.read_text(encoding="utf-8"))
    return {
        name: {
            key: tuple(value) if isinstance(value, list) else value for key, value in table.items()
        }
        for name, table in tables.items()
    }
