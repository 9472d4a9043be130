# SPDX-License-Identifier: Apache-2.0
"""Small files of the kernel."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from os import PathLike


def text(path: str | PathLike[str]) -> str:
    """The stripped contents of a small file, '' if it cannot be read."""
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read().strip()
    except OSError:
        return ""
