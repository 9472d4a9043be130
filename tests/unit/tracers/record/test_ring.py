# SPDX-License-Identifier: Apache-2.0
"""The reader's side of the ring, on memory laid out as the kernel's (kernel/bpf/ringbuf.c)."""

from __future__ import annotations

import mmap
import os
import struct
from collections.abc import Iterator

import pytest

from balloontrace import events
from balloontrace.tracers.record.ring import ITEM_BYTES, Ring

RING_BYTES = 4096
ITEMS = RING_BYTES // ITEM_BYTES
BUSY_BIT = 1 << 31


class Producer:
    """The kernel's side: a file in memory of the consumer's page, the producer's, and the data."""

    def __init__(self) -> None:
        self.fd = os.memfd_create("ring")
        os.truncate(self.fd, 2 * mmap.PAGESIZE + RING_BYTES)
        self.reserved = 0

    def write(self, number: int, busy: bool = False) -> None:
        """Reserve room for an event that began at `number`; unless `busy`, it is finished."""
        self._put(self.reserved, number, busy)
        self.reserved += 1
        os.pwrite(self.fd, struct.pack("@Q", self.reserved * ITEM_BYTES), mmap.PAGESIZE)

    def finish(self, item: int, number: int) -> None:
        """Finish the event that was reserved as the item of that number, from 0."""
        self._put(item, number, False)

    def _put(self, item: int, number: int, busy: bool) -> None:
        length = ITEM_BYTES - events.RING_HEADER_BYTES | (BUSY_BIT if busy else 0)
        body = events.pack(start_ns=number)[events.RING_HEADER_BYTES :]
        at = 2 * mmap.PAGESIZE + item % ITEMS * ITEM_BYTES
        os.pwrite(self.fd, struct.pack("@II", length, 0) + body, at)


@pytest.fixture
def producer() -> Iterator[Producer]:
    made = Producer()
    yield made
    os.close(made.fd)


def numbers(span: bytes) -> list[int]:
    """Beginnings of the events in a span."""
    assert len(span) % ITEM_BYTES == 0
    items = range(events.RING_HEADER_BYTES, len(span), ITEM_BYTES)
    return [struct.unpack_from("@Q", span, at)[0] for at in items]


def test_what_is_still_being_written_ends_a_span(producer: Producer) -> None:
    ring = Ring(producer.fd, RING_BYTES)
    for number, busy in ((1, False), (2, False), (3, True), (4, False)):
        producer.write(number, busy)
    assert numbers(ring.read(RING_BYTES)) == [1, 2]
    assert ring.read(RING_BYTES) == b""
    producer.finish(2, 3)
    assert numbers(ring.read(RING_BYTES)) == [3, 4]
    assert ring.read(RING_BYTES) == b""


def test_a_span_is_no_longer_than_asked_and_ends_with_the_ring(producer: Producer) -> None:
    ring = Ring(producer.fd, RING_BYTES)
    for number in range(ITEMS):
        producer.write(number)
    assert numbers(ring.read(10 * ITEM_BYTES + 1)) == list(range(10))
    for number in range(ITEMS, ITEMS + 5):  # in the room that was read
        producer.write(number)
    assert numbers(ring.read(RING_BYTES)) == list(range(10, ITEMS))
    assert numbers(ring.read(RING_BYTES)) == list(range(ITEMS, ITEMS + 5))
