# SPDX-License-Identifier: Apache-2.0
"""The one place that makes strings from a recording fit to print.

Names of tasks, hosts and files come from the guest: they can hold escape sequences, control and
direction characters, and bytes that are no text at all.
"""

from __future__ import annotations

import unicodedata
from typing import Any

_REVERSING = {"R", "AL", "AN"}
"""Bidirectional classes that make a terminal reorder the rest of the line."""


def visible(text: str) -> str:
    """`text` with whatever could act on a terminal or hide itself written as an escape.

    Invalid UTF-8 (surrogates of the error handler surrogateescape) becomes ``\\xNN``, a backslash
    becomes two, so that different strings stay different.
    """
    return "".join(char if _is_plain(char) else _escape(char) for char in text)


def plain(value: Any) -> Any:
    """`value` for JSON: strings visible, numpy numbers as Python's, NaN and infinity as None."""
    if isinstance(value, str):
        return visible(value)
    if isinstance(value, dict):
        return {visible(str(key)): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if value is None or isinstance(value, (bool, int)):
        return value
    number = value.item() if hasattr(value, "item") else value
    if isinstance(number, float):
        return number if abs(number) < float("inf") else None
    return number


def _is_plain(char: str) -> bool:
    if char.isascii():
        return char.isprintable() and char != "\\"
    return (
        char.isprintable()
        and unicodedata.bidirectional(char) not in _REVERSING
        and not unicodedata.category(char).startswith("M")
    )


def _escape(char: str) -> str:
    code = ord(char)
    if char == "\\":
        return "\\\\"
    if 0xDC80 <= code <= 0xDCFF:
        return f"\\x{code - 0xDC00:02x}"
    if code < 0x100:
        # Not \xNN: that is an undecodable byte.
        return f"\\u{code:04x}" if code >= 0x80 else f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
