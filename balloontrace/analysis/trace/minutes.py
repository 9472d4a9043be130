# SPDX-License-Identifier: Apache-2.0
"""What the kernel's totals grew by, over a recording and in its worst minute."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from balloontrace.analysis.trace.samples import UNREAD, Samples
from balloontrace.analysis.trace.trace import Bools, Ints
from balloontrace.thresholds import MINUTE_NS

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Growth:
    """Of a total: how much it grew from the first sample to the last, per second of that, and per
    second of the minute in which it grew most (of the whole time, if that is shorter)."""

    total: int
    per_s: float
    worst_per_s: float
    worst_start_ns: int
    worst_end_ns: int


class Minutes:
    """The minutes that end at each sample; before the first has passed, the time until then."""

    def __init__(self, samples: Samples, picked: Ints | None = None) -> None:
        """picked: places of the samples to look at, in order of time; None: all."""
        self._samples, self._picked = samples, picked
        if picked is None and (np.diff(samples.time_ns) < 0).any():
            self._picked = np.argsort(samples.time_ns, kind="stable")
        self.time_ns = self._of(samples.time_ns)
        begins = np.searchsorted(self.time_ns, self.time_ns - MINUTE_NS, side="left")
        # Where samples are further apart than that, from one to the next.
        self.begins = np.minimum(begins, np.maximum(0, np.arange(len(begins)) - 1))

    def column(self, source: str, key: str) -> Ints:
        """One of samples.WANTED, in order of time."""
        return self._of(self._samples.column(source, key))

    def having(self, *columns: tuple[str, str]) -> Bools:
        """Which samples have all of these."""
        read = np.ones(len(self.time_ns), dtype=np.bool_)
        for source, key in columns:
            read &= self.column(source, key) != UNREAD
        return read

    def only(self, which: Bools) -> Minutes:
        """The same of some of the samples."""
        if which.all():
            return self
        places = np.arange(len(self._samples)) if self._picked is None else self._picked
        return Minutes(self._samples, places[which])

    def _of(self, column: Ints) -> Ints:
        return column if self._picked is None else column[self._picked]

    def growth(self, source: str, key: str) -> Growth | None:
        """Of one column; None if it is not known."""
        read = self.having((source, key))
        if not read.all():
            return self.only(read).growth(source, key)
        column, time_ns, begins = self.column(source, key), self.time_ns, self.begins
        if len(column) < 2 or time_ns[-1] <= time_ns[0]:
            return None
        span_ns = int(time_ns[-1] - time_ns[0])
        total = int(column[-1] - column[0])
        per_s = total / span_ns * 1e9
        whole = int(np.searchsorted(time_ns, time_ns[0] + MINUTE_NS, side="left"))
        if whole == len(time_ns):
            return Growth(total, per_s, per_s, int(time_ns[0]), int(time_ns[-1]))
        from_places = begins[whole:]
        spans_ns = np.maximum(1, time_ns[whole:] - time_ns[from_places])
        grown = (column[whole:] - column[from_places]) / spans_ns
        last = whole + int(grown.argmax())
        worst_ns = int(time_ns[begins[last]]), int(time_ns[last])
        return Growth(total, per_s, float(grown.max()) * 1e9, *worst_ns)

    def per_s(self, source: str, key: str, first: Ints, last: Ints) -> Floats:
        """How much a column grew per second between samples of these places."""
        column = self.column(source, key)
        spans_ns = np.maximum(1, self.time_ns[last] - self.time_ns[first])
        rates: Floats = (column[last] - column[first]) / spans_ns * 1e9
        return rates
