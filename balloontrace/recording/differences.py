# SPDX-License-Identifier: Apache-2.0
"""Samples that stand in a .btrace file as differences from an earlier one (docs/format.md)."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from operator import add
from typing import Any

from balloontrace import untrusted_json
from balloontrace.recording import layout

_GATHERED_BYTES = 1 << 20


class Differences:
    """Gathers samples until the one from which they differ changes: many are read at once.

    payloads: as in the file; offsets: where their blocks stand in it; reference: the sample from
    which they differ.
    """

    def __init__(self) -> None:
        self.payloads: list[bytes] = []
        self.offsets: list[int] = []
        self.reference: dict[str, Any] = {}
        self._unread: bytes | None = None
        self._said_from = b""
        self._length = 0
        self._names: list[Any] = []

    def refer_to(self, sequence: int, payload: bytes) -> None:
        """From now on samples differ from this one: its block's number, its JSON."""
        self._said_from, self._unread = layout.SAID_FROM.pack(sequence), payload

    def add(self, payload: bytes, offset: int) -> bool:
        """Take a sample; False if what it differs from is not there, or of other numbers."""
        if self._unread is not None:
            self._read()
        if len(payload) != self._length or not payload.startswith(self._said_from):
            return False
        self.payloads.append(payload)
        self.offsets.append(offset)
        return True

    @property
    def full(self) -> bool:
        """Whether it should not take more."""
        return len(self.payloads) * self._length > _GATHERED_BYTES

    def clear(self) -> None:
        """Forget the samples, which have been read."""
        self.payloads, self.offsets = [], []

    def samples(self) -> Iterator[dict[str, Any]]:
        """The samples; a number that cannot be is one below 0, or of more than 63 bits."""
        numbers: list[int] = []
        layout.flatten(self.reference, [], numbers)
        for payload in self.payloads:
            packed = layout.from_planes(payload[layout.SAID_FROM.size :], layout.NUMBER_BYTES)
            differences = struct.unpack(f"<{len(numbers)}q", packed)
            yield layout.refill(self.reference, map(add, numbers, differences))

    def _read(self) -> None:
        """Read the reference. Without one in which all is as it must be there are no samples."""
        payload, self._unread, self._length = self._unread or b"", None, 0
        names: list[Any] = []
        numbers: list[int] = []
        try:
            content = json.loads(payload)
        except (ValueError, RecursionError):
            return
        if not isinstance(content, dict) or not layout.flatten(content, names, numbers):
            return
        if not all(map(untrusted_json.whole, numbers)):
            return
        # What fits once fits with other numbers.
        if names != self._names:
            if untrusted_json.Fitting().fit(content, untrusted_json.SAMPLE) != content:
                return
            self._names = names
        self.reference = content
        self._length = layout.SAID_FROM.size + len(numbers) * layout.NUMBER_BYTES
