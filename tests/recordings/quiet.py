# SPDX-License-Identifier: Apache-2.0
"""Makes recordings that are long in other ways than by events of a storm.

`rest DAYS OUT`: a guest at rest, a sample a second and five events in three; `bursts N OUT`: N
times the OOM notifier gives back twenty chunks, which the size worker takes again, 40 s apart. The
samples and the header are those of a real recording.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import numpy as np

from balloontrace.events import LOSSES
from balloontrace.recording.reader import read_recording
from balloontrace.recording.writer import Writer

SOURCE = Path(__file__).parents[1] / "data" / "6.1-tour.btrace"

SECOND_NS = 1_000_000_000
EVERY_S, CHUNKS = 40, 20
"""Of bursts: from one to the next, and chunks of each."""

CHUNK = 256
TARGET = 400 * CHUNK


class Quiet:
    """A recording under construction: seconds from its begin."""

    def __init__(self, path: str) -> None:
        self._source = read_recording(str(SOURCE))
        header = self._source.header
        self._layout = np.dtype(
            [("ring_header", f"V{header['ring_header_bytes']}"), *map(tuple, header["record"])]
        )
        self._kinds, self._within = header["kinds"], header["within"]
        self._sample = next(s for s in self._source.samples if "vmstat" in s)
        self._begin_ns: int = header["attached_ns"]
        self._fd = os.open(path, os.O_CREAT | os.O_WRONLY | os.O_TRUNC, 0o600)
        self._writer = Writer(self._fd, path)
        self._writer.header(header)
        self._moved = {"fill": 0, "leak": 0}
        self._written = dict.fromkeys(self._kinds, 0)

    def second(self, at_s: int, *calls: tuple[float, str, str, int]) -> None:
        """Calls in order of time (after how many seconds, kind, within, pages), and a sample, as
        the recorder writes what it finds when it wakes up."""
        counters = dict(self._sample["vmstat"])
        for name in counters.keys() - {"oom_kill"}:  # a guest at rest kills nobody
            counters[name] += at_s * 37 % 1000 + at_s
        sample = {**self._sample, "t_ns": self._begin_ns + at_s * SECOND_NS, "vmstat": counters}
        if calls:
            items = np.zeros(len(calls), self._layout)
            for item, (after_s, kind, within, pages) in zip(items, calls, strict=True):
                item["start_ns"] = self._begin_ns + at_s * SECOND_NS + int(after_s * SECOND_NS)
                item["duration_ns"], item["kind"] = 1_000_000, self._kinds[kind]
                item["asked"] = item["done"] = pages
                item["within"] = sum(self._within[name] for name in within.split())
                item["tid"] = item["pid"] = 70
                item["comm"] = b"python3"
                self._written[kind] += 1
                if kind in self._moved:
                    self._moved[kind] += pages
            self._writer.events(items.tobytes(), sample_follows=True)
        self._writer.sample(sample)

    def end(self, at_s: int) -> None:
        """The trailer, as a recorder that lost nothing writes it."""
        attached = self._source.header["vmstat_attach"]["after"]
        last = dict(attached)
        last["balloon_inflate"] += self._moved["fill"]
        last["balloon_deflate"] += self._moved["leak"]
        nothing = dict.fromkeys(LOSSES, 0)
        trailer: dict[str, Any] = {
            **(self._source.trailer or {}),
            "ended_ns": self._begin_ns + at_s * SECOND_NS,
            "vmstat_detach": {"before": last, "after": last},
            "counters": {kind: {"written": n, **nothing} for kind, n in self._written.items()},
            "events": sum(self._written.values()),
        }
        self._writer.trailer(trailer)
        os.close(self._fd)


def rest(days: float, path: str) -> None:
    """A guest whose shrinker is asked now and then, and has nothing to give."""
    made, seconds = Quiet(path), int(days * 86_400)
    for at_s in range(seconds):
        made.second(at_s, *[(0.3 * n, "count", "", 0) for n in range(1 + (at_s % 3 > 0))])
    made.end(seconds)


def bursts(number: int, path: str) -> None:
    """A guest that lives on what the notifier gives back."""
    made = Quiet(path)
    made.second(0, (0.1, "target", "worker", TARGET), (0.2, "fill", "worker", TARGET))
    for at_s in range(1, number * EVERY_S):
        calls = []
        if at_s % EVERY_S == 10:
            for chunk in range(CHUNKS):
                moment = chunk * 0.04
                calls += [
                    (moment, "leak", "oom leak", CHUNK),
                    (moment, "oom_notify", "oom", CHUNK),
                    (moment + 0.02, "fill", "worker", CHUNK),
                ]
        made.second(at_s, *calls)
    made.end(number * EVERY_S)


def main() -> None:
    """argv: rest DAYS OUT, or bursts N OUT."""
    what, length, path = sys.argv[1:]
    if what == "rest":
        rest(float(length), path)
    else:
        bursts(int(length), path)


if __name__ == "__main__":
    main()
