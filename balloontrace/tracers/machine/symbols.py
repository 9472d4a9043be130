# SPDX-License-Identifier: Apache-2.0
"""Where the kernel's functions are: /proc/kallsyms, searched without keeping it."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import NamedTuple

KALLSYMS = "/proc/kallsyms"

_ALTERED = (".isra.", ".constprop.", ".part.")
"""In the names of functions that the compiler gave arguments of its own choice."""


class Symbol(NamedTuple):
    """One text symbol. `address` is 0 where kptr_restrict hides it."""

    name: str
    address: int
    module: str
    altered: bool = False
    """The compiler made it from the function of that name, with arguments of its own choice."""


def kallsyms() -> bytes:
    """All symbols, as the kernel lists them. Raises OSError."""
    with open(KALLSYMS, "rb") as file:
        return file.read()


def find_functions(
    names: Iterable[str], modules: Iterable[str], text: bytes
) -> dict[str, list[Symbol]]:
    """The text symbols of each name in `text`, of kallsyms(): those of `modules` or, where there
    are none, the kernel's own.

    The compiler's suffixed copies (`.isra.0`, `.constprop.0`) count as the function. So does
    `.part.0`, the function less a check at its beginning, where the rest has been inlined;
    `.cold`, a piece of it, does not. What link-time optimisation and clang append (`.llvm.1`,
    `.lto_priv.0`, `.__uniq.1`) changes nothing but the name. Names that are not found are left out.
    """
    wanted = frozenset(modules)
    found = {}
    for name in names:
        symbols = list(_matches(text, name))
        if whole := [symbol for symbol in symbols if ".part." not in symbol.name]:
            symbols = whole
        ours = [symbol for symbol in symbols if symbol.module in wanted]
        if ours or (symbols := [symbol for symbol in symbols if not symbol.module]):
            found[name] = ours or symbols
    return found


def _matches(text: bytes, name: str) -> Iterable[Symbol]:
    """Every text symbol called `name`, found by its name rather than by parsing every line."""
    line = re.compile(
        rb"([0-9a-f]+) [tT] (%s(?:\.(?:isra|constprop|part|llvm|lto_priv|__uniq)\.\d+)*)"
        rb"(?:\t\[(\w+)\])?(?:\n|$)" % re.escape(name.encode())
    )
    needle = b" " + name.encode()
    at = text.find(needle)
    while at >= 0:
        match = line.match(text, text.rfind(b"\n", 0, at) + 1)
        if match:
            address, symbol, module = match.groups()
            found = symbol.decode()
            altered = any(suffix in found for suffix in _ALTERED)
            yield Symbol(found, int(address, 16), (module or b"").decode(), altered)
        at = text.find(needle, at + 1)
