# SPDX-License-Identifier: Apache-2.0
"""How a process of ours begins: by Python's -c, which loads less than -m does."""

from __future__ import annotations

import os

import balloontrace

_HELD = "/proc/self/fd/"


def program(module: str, function: str, root: str = "") -> str:
    """What -c is given to end with what a function returns.

    root: where the package is, by default where this process has it from. Nothing is imported from
    the current directory, as with -P, which Python has since 3.11.
    """
    return (
        f"import sys; sys.path = [{root or package_root()!r}, *filter(None, sys.path)]; "
        f"from {module} import {function}; sys.exit({function}())"
    )


def package_root() -> str:
    """The directory, or the zip (`balloontrace bundle`), in which the package is."""
    return os.path.dirname(os.path.dirname(os.path.abspath(balloontrace.__file__)))


def is_bundled() -> bool:
    """Whether the package is in a zip."""
    return not os.path.isdir(package_root())


def held_path(descriptor: int) -> str:
    """How a file that is open, and nowhere else, is named in sys.path."""
    return f"{_HELD}{descriptor}"


def held() -> int | None:
    """The descriptor of the copy (load/running_copy.py) that this process runs from, if any."""
    root = package_root()
    return int(root[len(_HELD) :]) if root.startswith(_HELD) else None
