# SPDX-License-Identifier: Apache-2.0
"""Samples that stand in a .btrace file as differences from an earlier one (docs/format.md).

Standard library only: who follows a stream in a guest reads with this. many_differences.py is for
long recordings.
"""

from __future__ import annotations

import json
import re
import struct
from bisect import bisect_right
from collections.abc import Iterator
from itertools import compress, repeat
from operator import add
from typing import Any, NamedTuple

from balloontrace import untrusted_json
from balloontrace.recording import layout

_GATHERED_BYTES = 1 << 18
"""It stays in the processor's cache."""

_LIMIT = 1 << 63

_NUMBER = re.compile(rb'(?<=":)[0-9]+')
"""A number in JSON of nothing but objects and whole numbers, as long as that has no white space and
no escapes: what stands behind a name."""

_MISLEADING = re.compile(rb"[\s\\!]")

_PARTED = bytes(byte if byte in b"0123456789!" else ord(" ") for byte in range(256))
"""For each byte: a space, but for digits, and what stands for a number in the form of a sample."""


class Reference(NamedTuple):
    """A sample from which later ones differ: as it was, and the numbers in it with their names (see
    layout.flatten)."""

    content: dict[str, Any]
    names: list[Any]
    numbers: list[int]


class Differences:
    """Gathers samples of the same names: many are read at once.

    reference: the sample from which the next ones differ.
    """

    def __init__(self) -> None:
        self.reference = Reference({}, [], [])
        self._unread: bytes | None = None
        self._said_from = b""
        self._length = 0
        self._form = b""
        self._is_number: list[bool] = []
        self._payloads: list[bytes] = []
        self._offsets: list[int] = []
        self._referred: list[tuple[int, list[int]]] = [(0, self.reference.numbers)]

    def __len__(self) -> int:
        """How many samples there are."""
        return len(self._payloads)

    def refer_to(self, sequence: int, payload: bytes) -> None:
        """From now on samples differ from this one: its block's number, its JSON. What was gathered
        must have been taken away."""
        self._said_from, self._unread = layout.SAID_FROM.pack(sequence), payload

    def go_on_from(self, sequence: int, payload: bytes, offset: int) -> bool:
        """The same, if the sample is that before with other numbers: then it is one of these, too,
        and is not read as JSON. Else False, and nothing is done."""
        if self._unread is not None or not self._form:
            return False
        found = payload.translate(_PARTED).split()
        if len(found) != len(self._is_number):
            return False
        try:
            numbers = list(map(int, compress(found, self._is_number)))
        except ValueError:  # no number, or one of thousands of digits
            return False
        if max(numbers) >= _LIMIT or self._form % (*numbers,) != payload:
            return False
        self._said_from = layout.SAID_FROM.pack(sequence)
        self.reference = self.reference._replace(numbers=numbers)
        self._referred.append((len(self), numbers))
        self._payloads.append(self._said_from + bytes(self._length - layout.SAID_FROM.size))
        self._offsets.append(offset)
        return True

    def add(self, payloads: list[bytes], offsets: list[int]) -> list[int]:
        """Take samples; offsets: of their blocks in the file. Returns the places in these lists of
        those that differ from what is not there, or are of other numbers."""
        if self._unread is not None:
            self._read(self._unread)
        fit = list(map(bytes.startswith, payloads, repeat(self._said_from)))
        whole = self._length and list(map(len, payloads)).count(self._length) == len(payloads)
        if whole and all(fit):
            self._payloads += payloads
            self._offsets += offsets
            return []
        odd = []
        for place, (payload, offset) in enumerate(zip(payloads, offsets)):
            several = self._apart(payload) if fit[place] else []
            self._payloads += several
            self._offsets += [offset] * len(several)
            if not several:
                odd.append(place)
        return odd

    def _apart(self, payload: bytes) -> list[bytes]:
        """The samples of one block, as if each had been written alone; [] if it does not hold whole
        ones."""
        if len(payload) == self._length > 0:
            return [payload]
        row = self._length - layout.SAID_FROM.size
        samples, left = divmod(len(payload) - layout.SAID_FROM.size, row) if row > 0 else (0, 0)
        if left or not 0 < samples <= layout.MOST_SAMPLES:
            return []
        return [self._said_from + one for one in self._rows(payload, samples, row)]

    def _rows(self, payload: bytes, samples: int, row: int) -> list[bytes]:
        """The differences of each of a block's samples, of so many bytes."""
        part = row // layout.NUMBER_BYTES
        begins = range(layout.SAID_FROM.size, len(payload), samples * part)
        return [
            b"".join([payload[at + place : at + place + part] for at in begins])
            for place in range(0, samples * part, part)
        ]

    @property
    def full(self) -> bool:
        """Whether it should not take more."""
        return len(self) * self._length > _GATHERED_BYTES

    def samples(self) -> Iterator[tuple[dict[str, Any], int, int]]:
        """The samples, with the offset and the length of each one's block; a number that cannot be
        is one below 0, or of more than 63 bits."""
        begins = [begin for begin, _ in self._referred]
        for place, (payload, offset) in enumerate(zip(self._payloads, self._offsets)):
            numbers = self._referred[bisect_right(begins, place) - 1][1]
            packed = layout.from_planes(payload[layout.SAID_FROM.size :], layout.NUMBER_BYTES)
            differences = struct.unpack(f"<{len(numbers)}q", packed)
            content = layout.refill(self.reference.content, map(add, numbers, differences))
            yield content, offset, len(payload)

    def forget(self) -> None:
        """Those that were gathered have been read."""
        self._payloads, self._offsets = [], []
        self._referred = [(0, self.reference.numbers)]

    def _read(self, payload: bytes) -> None:
        """Read the reference. Without one in which all is as it must be there are no samples."""
        self._unread, self._length, self._form = None, 0, b""
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
        self._referred = [(0, read.numbers)]
        self._length = layout.SAID_FROM.size + len(read.numbers) * layout.NUMBER_BYTES
        if not _MISLEADING.search(payload):
            self._learn_form(payload)

    def _learn_form(self, payload: bytes) -> None:
        """See how a reference like this one can be read without a parser of JSON: its numbers stand
        where they stand in this one, and it is the same otherwise."""
        form = _NUMBER.sub(b"!", payload)
        self._is_number = [part == b"!" for part in form.translate(_PARTED).split()]
        found = payload.translate(_PARTED).split()
        if list(compress(found, self._is_number)) == [b"%d" % n for n in self.reference.numbers]:
            self._form = form.replace(b"%", b"%%").replace(b"!", b"%d")
