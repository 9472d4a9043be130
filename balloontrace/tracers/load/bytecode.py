# SPDX-License-Identifier: Apache-2.0
"""What the compiler made of the BPF programs: bytecode and the maps it names, free of BCC.

The loader makes maps and programs of it; it can be kept in a file (cache.py) and used again.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

from balloontrace.tracers.machine.bpf_calls import MapDefinition

_INSTRUCTION = struct.Struct("<BBhi")
"""struct bpf_insn: u8 code; u8 dst_reg:4, src_reg:4; s16 off; s32 imm."""

_LOAD_IMMEDIATE = 0x18  # BPF_LD | BPF_IMM | BPF_DW, of two instructions
_MAP_DESCRIPTOR = 1  # BPF_PSEUDO_MAP_FD in src_reg: the immediate is a map


class Compiled(NamedTuple):
    """maps: what the programs need; programs: name -> bytecode, in which a map is named by its
    place in `maps`."""

    maps: tuple[MapDefinition, ...]
    programs: dict[str, bytes]

    def linked(self, descriptors: Iterable[int]) -> dict[str, bytes]:
        """The programs for the kernel. descriptors: of the maps, in their order."""
        places = dict(enumerate(descriptors))
        return {name: _renamed(code, places) for name, code in self.programs.items()}

    def to_json(self) -> bytes:
        """For a file."""
        programs = {name: code.hex() for name, code in self.programs.items()}
        return json.dumps({"maps": self.maps, "programs": programs}).encode()


def from_json(data: bytes) -> Compiled:
    """What to_json made. Raises ValueError, KeyError or TypeError if it is something else."""
    content = json.loads(data)
    maps = tuple(MapDefinition(*fields) for fields in content["maps"])
    return Compiled(maps, {name: bytes.fromhex(code) for name, code in content["programs"].items()})


def unlinked(programs: Mapping[str, bytes], definitions: Mapping[int, MapDefinition]) -> Compiled:
    """Of programs in which a map is named by its descriptor, a key of `definitions`."""
    places = {descriptor: place for place, descriptor in enumerate(definitions)}
    return Compiled(
        tuple(definitions.values()),
        {name: _renamed(code, places) for name, code in programs.items()},
    )


def map_descriptors(programs: Iterable[bytes]) -> list[int]:
    """The immediates that name the maps of `programs`, each once, in order."""
    named = (imm for code in programs for _, (*_, imm) in _map_loads(code))
    return list(dict.fromkeys(named))


def _renamed(code: bytes, names: Mapping[int, int]) -> bytes:
    """`code` with another name for each of its maps. Raises KeyError if one has none."""
    renamed = bytearray(code)
    for offset, (operation, registers, displacement, imm) in _map_loads(code):
        _INSTRUCTION.pack_into(renamed, offset, operation, registers, displacement, names[imm])
    return bytes(renamed)


def _map_loads(code: bytes) -> Iterator[tuple[int, tuple[int, int, int, int]]]:
    """(offset, instruction) wherever a program takes the address of a map."""
    second_half = False
    for place, instruction in enumerate(_INSTRUCTION.iter_unpack(code)):
        operation, registers = instruction[:2]
        if second_half:
            second_half = False
            continue
        second_half = operation == _LOAD_IMMEDIATE
        if second_half and registers >> 4 == _MAP_DESCRIPTOR:
            yield place * _INSTRUCTION.size, instruction
