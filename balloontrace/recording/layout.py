# SPDX-License-Identifier: Apache-2.0
"""How a .btrace file is laid out: what its writer and its reader must agree on (docs/format.md).

The file starts with `MAGIC`; then blocks follow, each a 24-byte frame and a payload:

    sync "BTBK" | type u8 | flags u8 | reserved u16 | sequence u32 | stored u32 | raw u32 | crc u32

The checksum (CRC-32) covers the frame up to the checksum and the stored payload. A writer that is
killed tears at most the last block; a reader that meets damage looks for the next valid frame and
says how many blocks are missing between the two.
"""

from __future__ import annotations

import struct

FORMAT_VERSION = 1
MAGIC = b"\x89BTRACE\n"
SYNC = b"BTBK"

HEADER, EVENTS, SAMPLE, TRAILER = 1, 2, 3, 4
"""Types of block. A reader passes over types it does not know."""

ZLIB = 1
"""Flag of a block: it is compressed."""

FRAME = struct.Struct("<4sBBHIIII")
CRC = struct.Struct("<I")
SUMMED = FRAME.size - CRC.size
"""Bytes of the frame that its checksum covers."""
