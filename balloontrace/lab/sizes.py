# SPDX-License-Identifier: Apache-2.0
"""Sizes as people write them."""

from __future__ import annotations

import re

from balloontrace.errors import EXIT_USAGE, UserError

_UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}
_SIZE = re.compile(r"(\d+)\s*([KMGT]?)(?:i?B)?", re.IGNORECASE)


def parse_size(text: str) -> int:
    """Return the bytes of a size such as ``512M``, ``4G`` or ``4GiB`` (units are binary).

    Raises UserError if it is not a positive size.
    """
    match = _SIZE.fullmatch(text.strip())
    size = int(match[1]) * _UNITS[match[2].upper()] if match else 0
    if size <= 0:
        raise UserError(f"{text!r} is not a size", "write it like 512M or 4G", EXIT_USAGE)
    return size


def format_size(size: int) -> str:
    """Return bytes in the largest binary unit that divides them: ``4G``, ``1536M``."""
    for unit in ("T", "G", "M", "K"):
        if size and size % _UNITS[unit] == 0:
            return f"{size // _UNITS[unit]}{unit}"
    return str(size)


def whole_gib(size: int) -> int:
    """Return bytes in GiB, rounded up: what a disk of that size is made with."""
    return -(-size // _UNITS["G"])
