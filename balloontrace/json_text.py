# SPDX-License-Identifier: Apache-2.0
"""JSON as the recorder writes it, without the standard library's `json`.

That module loads its decoder, and with it `re` and `enum`: 0.5 MiB of a small guest for a process
that only writes.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def dumps(value: Any) -> str:
    """`value` as JSON without spaces, in ASCII: what json.loads makes the same value of.

    value: None, a bool, int, float or str, or lists, tuples and dicts with such; NaN and infinity,
    which JSON does not have, become null. A string may hold surrogates (surrogateescape). Raises
    TypeError for anything else, a key that is no string among it.
    """
    if value is None or value is True or value is False:
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, str):
        return _string(value)
    if isinstance(value, int):
        return int.__repr__(value)
    if isinstance(value, float):
        return float.__repr__(value) if value - value == 0 else "null"
    if isinstance(value, (list, tuple)):
        return f"[{','.join(map(dumps, value))}]"
    if isinstance(value, dict):
        return f"{{{','.join(f'{_string(key)}:{dumps(item)}' for key, item in value.items())}}}"
    raise TypeError(f"JSON has no {type(value).__name__}")


def _string(text: str) -> str:
    if not isinstance(text, str):
        raise TypeError(f"a key of JSON is a string, not {type(text).__name__}")
    if text.isascii() and text.isprintable() and '"' not in text and "\\" not in text:
        return f'"{text}"'
    return f'"{"".join(map(_escaped, text))}"'


def _escaped(char: str) -> str:
    code = ord(char)
    if char in '"\\':
        return "\\" + char
    if char.isascii() and char.isprintable():
        return char
    if code <= 0xFFFF:
        return f"\\u{code:04x}"
    code -= 0x10000
    return f"\\u{0xD800 | code >> 10:04x}\\u{0xDC00 | code & 0x3FF:04x}"
