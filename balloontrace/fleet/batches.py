# SPDX-License-Identifier: Apache-2.0
"""Recordings that are read together, and become one part of each table."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby

from balloontrace.fleet.schema import VERSION
from balloontrace.fleet.sources import Source

MOST_FILES = 64
MOST_BYTES = 64 << 20
"""Of one batch, whichever is first; one file may be larger. Single files cost the engine more than
they take to read, and parts of one row are ten times slower to query."""


@dataclass(frozen=True)
class Batch:
    """analysed_by: the version of balloontrace; another one reads them anew."""

    sources: tuple[Source, ...]
    analysed_by: str

    @property
    def size_bytes(self) -> int:
        """Of all files."""
        return sum(source.size_bytes for source in self.sources)

    @cached_property
    def name(self) -> str:
        """The hash of its inputs: whoever reads the same again writes the same parts."""
        digest = hashlib.sha256(f"{VERSION}\0{self.analysed_by}\0".encode())
        for one in sorted(self.sources, key=lambda source: source.name):
            digest.update(f"{one.name}\0{one.size_bytes}\0{one.version}\0".encode())
        return digest.hexdigest()[:24]

    def split(self, suspect: int | None = None) -> list[Batch]:
        """The same in smaller ones: the suspect alone and the others, or halves."""
        if suspect is not None and len(self.sources) > 1:
            parts = [
                self.sources[suspect : suspect + 1],
                self.sources[:suspect] + self.sources[suspect + 1 :],
            ]
        else:
            half = len(self.sources) // 2
            parts = [self.sources[:half], self.sources[half:]]
        return [Batch(part, self.analysed_by) for part in parts if part]


def batches_of(sources: Iterable[Source], analysed_by: str, workers: int = 1) -> list[Batch]:
    """All of them in batches, the largest first, so that no worker begins a long one at the end.

    What was written on the same day is read together: a part is of one day, and a batch of many
    days would be many parts. workers: each gets something, also of few files.
    """
    batches = []
    ordered = sorted(sources, key=lambda one: (one.written, -one.size_bytes, one.name))
    most_files = min(MOST_FILES, max(1, -(-len(ordered) // workers)))
    for _, of_a_day in groupby(ordered, key=lambda one: one.written):
        gathered: list[Source] = []
        size_bytes = 0
        for one in of_a_day:
            full = len(gathered) == most_files or size_bytes + one.size_bytes > MOST_BYTES
            if gathered and full:
                batches.append(Batch(tuple(gathered), analysed_by))
                gathered, size_bytes = [], 0
            gathered.append(one)
            size_bytes += one.size_bytes
        batches.append(Batch(tuple(gathered), analysed_by))
    return sorted(batches, key=lambda batch: (-batch.size_bytes, batch.name))
