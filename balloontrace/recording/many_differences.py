# SPDX-License-Identifier: Apache-2.0
"""Differences of long recordings: many are read at once, with numpy."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from balloontrace.recording import layout
from balloontrace.recording.differences import Differences

Ints = npt.NDArray[np.int64]


class ManyDifferences(Differences):
    """The same, and the numbers of all that were gathered."""

    def numbers(self) -> Ints:
        """One row of numbers for each sample. What is more than 63 bits hold is below 0: it wraps
        around."""
        data = np.frombuffer(b"".join(self._payloads), np.uint8).reshape(len(self), -1)
        planes = data[:, layout.SAID_FROM.size :].reshape(len(self), layout.NUMBER_BYTES, -1)
        packed = np.empty((len(self), planes.shape[2], layout.NUMBER_BYTES), np.uint8)
        for place in range(layout.NUMBER_BYTES):  # half the time of transposing them at once
            packed[:, :, place] = planes[:, place]
        differences = packed.view("<i8")[:, :, 0]
        begins = [begin for begin, _ in self._referred]
        references = np.array([numbers for _, numbers in self._referred], np.int64)
        numbers: Ints = differences + np.repeat(
            references, np.diff(begins, append=len(self)), axis=0
        )
        return numbers

    def _rows(self, payload: bytes, samples: int, row: int) -> list[bytes]:
        planes = np.frombuffer(payload, np.uint8, offset=layout.SAID_FROM.size)
        planes = planes.reshape(layout.NUMBER_BYTES, -1, row // layout.NUMBER_BYTES)
        rows = planes.swapaxes(0, 1).tobytes()
        return [rows[at : at + row] for at in range(0, len(rows), row)]
