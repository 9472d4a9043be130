# SPDX-License-Identifier: Apache-2.0
"""Reads the BPF ring buffer through mmap, in spans, without unpacking it.

Layout: kernel/bpf/ringbuf.c. The consumer's position is a page of its own, writable; then the
producer's page and the data. Every event of ours has the same size, a power of two with its header:
none is ever split by the ring's end, a span's record headers stand at a fixed stride, and one slice
finds out whether any of them is still being written.
"""

from __future__ import annotations

import mmap

from balloontrace import events

ITEM_BYTES = events.RING_HEADER_BYTES + events.record_bytes()
"""What one event takes in the ring."""

_FEW_BYTES = 8 * ITEM_BYTES
"""Python has room for so small an object in what it holds already."""

_BUSY = 0x80
"""BPF_RINGBUF_BUSY_BIT, in the last byte of a record header's little-endian length."""


def whole_pages(ring_bytes: int) -> int:
    """The smallest ring of so many bytes that this kernel makes: of a whole number of its pages
    (ringbuf_map_alloc in kernel/bpf/ringbuf.c), which have up to 64 KiB. ring_bytes: a power of
    two, as the size of a page is."""
    return max(ring_bytes, mmap.PAGESIZE)


class Ring:
    """The reader's side of one ring buffer map."""

    def __init__(self, fd: int, ring_bytes: int) -> None:
        """Map the ring of `fd`, whose data is `ring_bytes` long. Raises OSError."""
        self._mask = ring_bytes - 1
        self._consumer_map = mmap.mmap(fd, mmap.PAGESIZE)
        self._map = mmap.mmap(
            fd,
            mmap.PAGESIZE + ring_bytes,
            prot=mmap.PROT_READ,
            offset=mmap.PAGESIZE,
        )
        # Items of a cast memoryview are single 8-byte loads and stores, as the kernel's side needs.
        self._consumer = memoryview(self._consumer_map).cast("Q")
        self._producer = memoryview(self._map)[: mmap.PAGESIZE].cast("Q")

    def read(self, limit: int) -> bytes:
        """Consume at most `limit` bytes of finished records; b'' if there are none. Where there is
        no memory for so many, a few."""
        try:
            return self._read(limit)
        except MemoryError:
            return self._read(min(limit, _FEW_BYTES))

    def _read(self, limit: int) -> bytes:
        consumed = self._consumer[0]
        offset = consumed & self._mask
        to_end = self._mask + 1 - offset
        length = min(self._producer[0] - consumed, limit - limit % ITEM_BYTES, to_end)
        start = mmap.PAGESIZE + offset
        # First, and apart: what is finished is copied once.
        lengths_high_bytes = self._map[start + 3 : start + length : ITEM_BYTES]
        if lengths_high_bytes and max(lengths_high_bytes) >= _BUSY:
            finished = next(i for i, high in enumerate(lengths_high_bytes) if high >= _BUSY)
            length = finished * ITEM_BYTES
        span = self._map[start : start + length]
        self._consumer[0] = consumed + length
        return span
