# SPDX-License-Identifier: Apache-2.0
"""Samples that stand in a .btrace file as differences from an earlier one (docs/format.md)."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from operator import add
from typing import Any, NamedTuple

from balloontrace import untrusted_json
from balloontrace.recording import layout
from balloontrace.recording.blocks import Fields

_GATHERED_BYTES = 1 << 20


class Reference(NamedTuple):
    """A sample from which later ones differ: as it was, and the numbers in it with their names (see
    layout.flatten)."""

    content: dict[str, Any]
    names: list[Any]
    numbers: list[int]


class Differences:
    """Gathers samples until the one from which they differ changes: many are read at once.

    blocks: of these samples; reference: the sample from which they differ.
    """

    def __init__(self) -> None:
        self.blocks: list[Fields] = []
        self.reference = Reference({}, [], [])
        self._unread: bytes | None = None
        self._said_from = b""
        self._length = 0

    def refer_to(self, sequence: int, payload: bytes) -> None:
        """From now on samples differ from this one: its block's number, its JSON."""
        self._said_from, self._unread = layout.SAID_FROM.pack(sequence), payload

    def add(self, block: Fields) -> bool:
        """Take a sample; False if what it differs from is not there, or of other numbers."""
        if self._unread is not None:
            self._read(self._unread)
        payload = block[4]
        if len(payload) != self._length or not payload.startswith(self._said_from):
            return False
        self.blocks.append(block)
        return True

    @property
    def full(self) -> bool:
        """Whether it should not take more."""
        return len(self.blocks) * self._length > _GATHERED_BYTES

    def samples(self) -> Iterator[dict[str, Any]]:
        """The samples; a number that cannot be is one below 0, or of more than 63 bits."""
        content, _, numbers = self.reference
        for block in self.blocks:
            packed = layout.from_planes(block[4][layout.SAID_FROM.size :], layout.NUMBER_BYTES)
            differences = struct.unpack(f"<{len(numbers)}q", packed)
            yield layout.refill(content, map(add, numbers, differences))

    def _read(self, payload: bytes) -> None:
        """Read the reference. Without one in which all is as it must be there are no samples."""
        self._unread, self._length = None, 0
        read = Reference({}, [], [])
        try:
            content = json.loads(payload)
        except (ValueError, RecursionError):
            return
        if not isinstance(content, dict) or not layout.flatten(content, read.names, read.numbers):
            return
        if not read.numbers or not all(map(untrusted_json.whole, read.numbers)):
            return
        # What fits once fits with other numbers.
        known = read.names == self.reference.names
        if not known and untrusted_json.Fitting().fit(content, untrusted_json.SAMPLE) != content:
            return
        self.reference = read._replace(content=content)
        self._length = layout.SAID_FROM.size + len(read.numbers) * layout.NUMBER_BYTES
