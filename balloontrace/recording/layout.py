# SPDX-License-Identifier: Apache-2.0
"""How a .btrace file is laid out: what its writer and its reader must agree on (docs/format.md).

The file starts with `MAGIC`; then blocks follow, each a 24-byte frame and a payload:

    sync "BTBK" | type u8 | flags u8 | item u16 | sequence u32 | stored u32 | raw u32 | crc u32

The checksum (CRC-32) covers the frame up to the checksum and the stored payload. Format 1 has
neither planes nor differences, alone or behind events; all else is the same.

Standard library only: this file is used inside small guests.
"""

from __future__ import annotations

import struct

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

FORMAT_VERSION = 2
MAGIC = b"\x89BTRACE\n"
SYNC = b"BTBK"

HEADER, EVENTS, SAMPLE, TRAILER, DIFFERENCES, BOTH = 1, 2, 3, 4, 5, 6
"""Types of block; the last: events, as many bytes as the frame says, and differences. A reader
passes over types it does not know."""

ZLIB, PLANES, REFERENCE = 1, 2, 4
"""Flags of a block: it is compressed; it holds planes of items of so many bytes as the frame says;
later samples are written as differences from this one."""

FRAME = struct.Struct("<4sBBHIIII")
CRC = struct.Struct("<I")
SUMMED = FRAME.size - CRC.size
"""Bytes of the frame that its checksum covers."""

MAX_PAYLOAD = 32 << 20
"""Bytes; a frame that promises more is damage. The writer's largest block is one whole ring."""

MARK_CHARACTERS = 200
"""Of a mark's text; what is longer is cut."""

SAID_FROM = struct.Struct("<I")
"""In front of differences: the sequence number of the sample from which they are."""

MOST_SAMPLES = 16
"""In one block of differences; one with more is damage."""

NUMBER_BYTES = 8
"""Of one difference: a signed integer."""

_DEEPEST = 8
"""Objects within each other in a sample of numbers; those of our samplers have two."""


def planes(data: bytes, width: int) -> Iterator[bytes]:
    """The first byte of every item of `width` bytes, then the second of every one, and so on; at
    last what is left behind the last whole item."""
    whole = len(data) - len(data) % width
    for place in range(width):
        yield data[place:whole:width]
    yield data[whole:]


def from_planes(payload: bytes, width: int) -> bytes:
    """What `planes` made these of."""
    items = len(payload) // width
    data = bytearray(payload)
    for place in range(width):
        data[place : items * width : width] = payload[place * items : (place + 1) * items]
    return bytes(data)


def flatten(
    content: dict[str, Any], names: list[Any], numbers: list[int], depth: int = _DEEPEST
) -> bool:
    """Put the numbers of a sample, and what names them, behind those lists; False if it holds
    anything but whole numbers, and objects of them (at most `depth` within each other).

    Samples with the same names differ in their numbers only.
    """
    for key, value in content.items():
        if type(value) is int:
            names.append(key)
            numbers.append(value)
        elif type(value) is dict:
            names.append((key,))
            if not depth or not flatten(value, names, numbers, depth - 1):
                return False
            names.append(None)
        else:
            return False
    return True


def refill(content: dict[str, Any], numbers: Iterator[int]) -> dict[str, Any]:
    """The sample of these names with other numbers, in the order of `flatten`."""
    return {
        key: refill(value, numbers) if isinstance(value, dict) else next(numbers)
        for key, value in content.items()
    }
