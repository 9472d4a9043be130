# SPDX-License-Identifier: Apache-2.0
"""Offsets of structure members, from the BTF the running kernel carries for itself and its modules.

Layout of BTF: Documentation/bpf/btf.rst. A module's BTF is split: its strings continue those of
vmlinux, which is why both are needed for a module (commit 951bb64621b8 "bpf: Add in-kernel split
BTF support", in v5.11). A structure is found by searching the type section for the offset of its
name, which keeps 5 MB of vmlinux BTF a matter of milliseconds; the number of a function is found by
counting all that stands before it.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from pathlib import Path

SIZE = ""
"""In place of a member: the size of the structure."""

UP_TO_NEXT = ">"
"""In front of a member: the bytes from where it begins to where the next one does."""

BTF_DIRECTORY = Path("/sys/kernel/btf")

_HEADER = struct.Struct("<HBBIIIII")
_TYPE = struct.Struct("<III")
_MAGIC = 0xEB9F
_KIND_STRUCT, _KIND_FUNC = 4, 12

_FIXED_WORDS = {1: 1, 3: 3, 14: 1, 17: 1}
_WORDS_OF_EACH = {4: 3, 5: 3, 6: 2, 13: 2, 15: 3, 19: 3}
"""BTF_KIND -> 32-bit words that follow a type, in all or for each of its members: of INT, ARRAY,
VAR, DECL_TAG; of STRUCT, UNION, ENUM, FUNC_PROTO, DATASEC, ENUM64."""


class _Section:
    """The types and strings of one BTF blob; `base_strings` are those of vmlinux for a module."""

    def __init__(self, blob: bytes, base_strings: bytes = b"") -> None:
        magic, _, _, header, type_off, type_len, str_off, str_len = _HEADER.unpack_from(blob)
        if magic != _MAGIC:
            raise ValueError("not BTF of this byte order")
        self.types = blob[header + type_off : header + type_off + type_len]
        self.strings = base_strings + blob[header + str_off : header + str_off + str_len]

    def string(self, offset: int) -> str:
        end = self.strings.find(b"\0", offset)
        return self.strings[offset:end].decode(errors="replace")

    def structs(self, name: str) -> Iterator[dict[str, int]]:
        """Member name -> bit offset of each structure that may be called `name`; '' -> its size."""
        at = self.strings.find(b"\0" + name.encode() + b"\0")
        if at < 0:
            return
        needle = struct.pack("<I", at + 1)
        found = self.types.find(needle)
        while found >= 0:
            if found % 4 == 0 and found + _TYPE.size <= len(self.types):
                _, info, size = _TYPE.unpack_from(self.types, found)
                if info >> 24 & 0x1F == _KIND_STRUCT:
                    members = self._members(found + _TYPE.size, info & 0xFFFF, bool(info >> 31))
                    yield {**members, SIZE: size * 8}
            found = self.types.find(needle, found + 1)

    def count(self, functions: dict[int, str]) -> tuple[int, dict[str, int]]:
        """How many types there are, and the place of each function, from 0.

        functions: offset of its name in the strings -> name.
        """
        words = memoryview(self.types).cast("I")
        fixed = [_FIXED_WORDS.get(kind, 0) for kind in range(32)]
        each = [_WORDS_OF_EACH.get(kind, 0) for kind in range(32)]
        at, number, end, found = 0, 0, len(words), {}
        while at < end:
            info = words[at + 1]
            kind = info >> 24 & 0x1F
            if kind == _KIND_FUNC and words[at] in functions:
                found[functions[words[at]]] = number
            at += 3 + fixed[kind] + each[kind] * (info & 0xFFFF)
            number += 1
        return number, found

    def names(self, names: Iterable[str]) -> dict[int, str]:
        """Offset in the strings -> name, of those that are there."""
        places = {self.strings.find(b"\0" + name.encode() + b"\0") + 1: name for name in names}
        return {place: name for place, name in places.items() if place}

    def _members(self, start: int, count: int, bitfields: bool) -> dict[str, int]:
        end = min(start + count * _TYPE.size, len(self.types) - _TYPE.size + 1)
        members = {}
        for at in range(start, end, _TYPE.size):
            name, _, offset = _TYPE.unpack_from(self.types, at)
            members[self.string(name)] = offset & 0xFFFFFF if bitfields else offset
        return members


class Btf:
    """The BTF of the running kernel and of one module, which may as well be built in."""

    def __init__(self, module: str, directory: Path = BTF_DIRECTORY) -> None:
        """Read both. Raises OSError or ValueError if the kernel carries none that can be read."""
        self._vmlinux = _Section((directory / "vmlinux").read_bytes())
        split = directory / module
        self._sections = [self._vmlinux]
        if split.exists():
            self._sections.insert(0, _Section(split.read_bytes(), self._vmlinux.strings))

    def offset(self, name: str, member: str) -> int | None:
        """Byte offset of `member` in `struct name`, or what SIZE and UP_TO_NEXT say.

        None if BTF does not tell, as a kernel without the module's BTF does not.
        """
        wanted = member.removeprefix(UP_TO_NEXT)
        for section in self._sections:
            for members in section.structs(name):
                if wanted in members:
                    begin = members[wanted]
                    if wanted == member:
                        return begin // 8
                    return (min(at for at in members.values() if at > begin) - begin) // 8
        return None


def functions(
    wanted: Iterable[tuple[str, str]], directory: Path = BTF_DIRECTORY
) -> dict[tuple[str, str], tuple[int, str]]:
    """(function, its module or '') -> (its number in BTF, the module whose BTF has it, or '').

    Functions that BTF does not know are left out. Raises OSError or ValueError if the kernel
    carries no BTF that can be read.
    """
    by_module: dict[str, list[str]] = {}
    for name, module in wanted:
        by_module.setdefault(module, []).append(name)
    vmlinux = _Section((directory / "vmlinux").read_bytes())
    count, own = vmlinux.count(vmlinux.names(by_module.get("", ())))
    found = {(name, ""): (place + 1, "") for name, place in own.items()}  # 0 is void
    for module, names in by_module.items():
        if module and (directory / module).exists():
            section = _Section((directory / module).read_bytes(), vmlinux.strings)
            _, places = section.count(section.names(names))
            for name, place in places.items():
                found[name, module] = (count + 1 + place, module)
    return found
