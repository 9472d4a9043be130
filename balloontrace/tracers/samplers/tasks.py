# SPDX-License-Identifier: Apache-2.0
"""Which tasks the events are of, found in a sample of them: unpacking all would cost too much."""

from __future__ import annotations

import struct

from balloontrace.events import KINDS, RING_HEADER_BYTES, number_of, record_layout

MAX_TIDS = 256
LOOKS_PER_SPAN = 16
"""Events looked at in each span of the ring. A span comes once a second, and every 0.2 s in a storm
unless the ring fills up: 16 to 80 looks a second."""

_SIZES = {name: int(fmt.lstrip("<uS")) for name, fmt in record_layout()}
_ITEM_BYTES = RING_HEADER_BYTES + sum(_SIZES.values())


def _offset(name: str) -> int:
    """Where a field stands in an item of the ring."""
    names = list(_SIZES)
    return RING_HEADER_BYTES + sum(_SIZES[before] for before in names[: names.index(name)])


_TID = struct.Struct("<I")
_TID_AT, _KIND_AT = _offset("tid"), _offset("kind")
_NOTICE = number_of(KINDS, "notice")


class SeenTasks:
    """Thread ids of the tasks that made the events.

    Exact it is not: of each span only a few events are looked at, spread over it.
    """

    def __init__(self) -> None:
        self._tids: dict[int, None] = {}
        self._turn = 0

    def note(self, span: bytes | memoryview) -> None:
        """Look at some events of a span of the ring."""
        items = len(span) // _ITEM_BYTES
        # An odd step and a moving start: the driver's calls come in a steady alternation.
        step = -(-items // LOOKS_PER_SPAN) | 1
        self._turn += 1
        for item in range(self._turn % min(step, max(1, items)), items, step):
            at = item * _ITEM_BYTES
            if span[at + _KIND_AT] != _NOTICE:  # an interrupt: whose turn it was means nothing
                self._note(_TID.unpack_from(span, at + _TID_AT)[0])

    def _note(self, tid: int) -> None:
        self._tids.pop(tid, None)  # to the end: who was not seen for longest goes first
        self._tids[tid] = None
        if len(self._tids) > MAX_TIDS:
            del self._tids[next(iter(self._tids))]

    def take(self) -> list[int]:
        """The thread ids seen since the last take, those seen last at the end."""
        tids = list(self._tids)
        self._tids.clear()
        return tids
