# SPDX-License-Identifier: Apache-2.0
"""What lies between a writer and a pipe whose reader may be slow (`record -o - | ssh ...`).

The reader would hold up the writer, that would no longer read the ring, and the guest's events
would be lost. So the pipe is given what it takes, and what it does not take waits here; where too
much waits, whole blocks are left out and counted. Their numbers are missing in the stream, by which
a reader sees it. Runs inside small guests: standard library only.
"""

from __future__ import annotations

import os
import select

MOST_BYTES = 4 << 20
"""That wait: a quarter of a minute of the worst storm seen, hours of a guest at rest."""

STALLED_S = 10.0
"""At the end a reader that takes nothing for so long is given up."""

_AT_ONCE = select.PIPE_BUF
"""Bytes that a pipe which is ready takes without waiting (pipe(7)). The descriptor itself stays as
it is: O_NONBLOCK would be for all processes that share the pipe."""


class Spool:
    """Whole blocks on their way into a pipe, in order.

    waiting: bytes that the pipe has not taken yet.
    """

    def __init__(self, descriptor: int, most_bytes: int = MOST_BYTES) -> None:
        self.descriptor = descriptor
        self.waiting = 0
        self._most = most_bytes
        self._blocks: list[memoryview] = []
        self._poll = select.poll()
        self._poll.register(descriptor, select.POLLOUT)

    def put(self, block: bytes, needed: bool) -> bool:
        """Take a block, and give the pipe what it takes; False: there was no room for it.

        needed: whatever waits, this one is taken. Raises OSError if nobody reads any more.
        """
        self.give()
        if self.waiting and not needed and self.waiting + len(block) > self._most:
            return False
        self._blocks.append(memoryview(block))
        self.waiting += len(block)
        self.give()
        return True

    def give(self, wait_s: float = 0.0) -> None:
        """Give the pipe what it takes. wait_s: for so long it may take nothing. Raises OSError as
        `put`."""
        while self._blocks and self._poll.poll(wait_s * 1000):
            block = self._blocks[0]
            written = os.write(self.descriptor, block[:_AT_ONCE])
            self.waiting -= written
            if written < len(block):
                self._blocks[0] = block[written:]
            else:
                self._blocks.pop(0)

    def end(self) -> int:
        """Give the pipe all that waits; returns the bytes that nobody took in STALLED_S. Raises
        OSError as `put`."""
        self.give(STALLED_S)
        return self.waiting
