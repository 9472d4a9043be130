# SPDX-License-Identifier: Apache-2.0
"""Makes a recording of any length from a real one, and a Parquet copy of its events.

The source is a guest whose balloon's shrinker gives back what inflation took, the founding
experiment's mix of fills, leaks, acks, scans and counts. It is repeated as a busy no-op: the host
asks for one chunk more than the guest ever gave, so that the size worker never rests. The first
repetition is the whole source; each later one leaves out the first fills, so that it takes in what
reclaim gave back in the one before and the balloon comes back to the same size. Time in which
nothing happened is cut short, that the pace is that of a busy guest.
"""

from __future__ import annotations

import copy
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from balloontrace.recording.reader import Recording, read_recording
from balloontrace.recording.writer import Writer
from balloontrace.tracers.record.recorder import BLOCK_BYTES

SOURCE = Path(__file__).parents[1] / "tests" / "data" / "6.1-shrinker-reclaim.btrace"

IDLE_NS = 1_000_000
"""Longer times in which no call was made are cut to this."""

CHUNK = 256
"""Pages the host asks for and never gets."""

PARQUET_BATCH = 1_000_000
"""Events collected before they are written: the size of a row group."""

Items = npt.NDArray[np.void]


class Source(NamedTuple):
    """The real recording: its events without the idle time, as a first and as a later repetition.

    length_ns: from one repetition to the next.
    """

    recording: Recording
    first: Items
    later: Items
    length_ns: int


def read_source() -> Source:
    """The real recording, ready to be repeated."""
    recording = read_recording(str(SOURCE))
    header = recording.header
    layout = np.dtype(
        [("ring_header", f"V{header['ring_header_bytes']}"), *map(tuple, header["record"])]
    )
    items = np.frombuffer(b"".join(recording.events), dtype=layout).copy()
    kinds = header["kinds"]
    _cut_idle(items)
    is_fill, is_target = items["kind"] == kinds["fill"], items["kind"] == kinds["target"]
    items["asked"][is_fill | is_target] += CHUNK
    leaks = items[items["kind"] == kinds["leak"]]
    # What the shrinker gave back is what the last fills of a repetition take in again.
    left = int(items["done"][is_fill].sum()) - int(leaks["done"].sum())
    first_kept = items["start_ns"][is_fill][np.cumsum(items["done"][is_fill]) > left].min()
    later = items[(items["start_ns"] >= first_kept) & ~is_target]
    begin, end = int(later["start_ns"].min()), int((later["start_ns"] + later["duration_ns"]).max())
    return Source(recording, items, later, end - begin + IDLE_NS)


def _cut_idle(items: Items) -> None:
    """Move events to an earlier time where none was under way for long."""
    order = np.argsort(items["start_ns"], kind="stable")
    starts = items["start_ns"][order].astype(np.int64)
    ends = np.maximum.accumulate(starts + items["duration_ns"][order].astype(np.int64))
    idle = np.concatenate(([0], starts[1:] - ends[:-1]))
    items["start_ns"][order] = starts - np.cumsum(np.maximum(idle - IDLE_NS, 0))


def repetitions(source: Source, events: int) -> Iterator[Items]:
    """The source again and again, until there are so many events."""
    left, number = events, 0
    offset = int((source.first["start_ns"] + source.first["duration_ns"]).max())
    offset += IDLE_NS - int(source.later["start_ns"].min())
    while left > 0:
        items = (source.later if number else source.first)[:left].copy()
        if number:
            items["start_ns"] += np.uint64(offset + (number - 1) * source.length_ns)
        yield items
        left -= len(items)
        number += 1


class Copies:
    """The recording under construction, and its events as one Parquet file for each kind."""

    def __init__(self, source: Source, recording: Path, parquet: Path) -> None:
        self._source = source
        self._kinds: dict[str, int] = source.recording.header["kinds"]
        self._fd = os.open(recording, os.O_CREAT | os.O_WRONLY | os.O_TRUNC, 0o600)
        self._writer = Writer(self._fd, str(recording))
        self._writer.header(source.recording.header)
        self._parquet = parquet
        self._files: dict[str, pq.ParquetWriter] = {}
        self._spans, self._batch = b"", [source.first[:0]]
        self._records = 0
        self.pages = dict.fromkeys(self._kinds, 0)
        self.events = dict.fromkeys(self._kinds, 0)
        self.now_ns = 0

    def add(self, items: Items) -> None:
        """Take the events of one repetition, and a sample at its end."""
        for kind, number in self._kinds.items():
            mine = items["kind"] == number
            self.pages[kind] += int(items["done"][mine].sum())
            self.events[kind] += int(mine.sum())
        self.now_ns = int((items["start_ns"] + items["duration_ns"]).max()) + IDLE_NS // 2
        self._batch.append(items)
        if sum(map(len, self._batch)) >= PARQUET_BATCH:
            self._write_parquet()
        self._spans += items.tobytes()
        while len(self._spans) >= BLOCK_BYTES:
            self._writer.events(self._spans[:BLOCK_BYTES])
            self._spans = self._spans[BLOCK_BYTES:]
        samples = [s for s in self._source.recording.samples if "vmstat" in s]
        sample = samples[sum(self.events.values()) % len(samples)]
        vmstat = sample["vmstat"] | self._vmstat()
        self._writer.sample({**sample, "t_ns": self.now_ns, "vmstat": vmstat})

    def finish(self) -> None:
        """Write what is left, and a trailer that accounts for it."""
        self._writer.events(self._spans)
        self._write_parquet()
        trailer = copy.deepcopy(self._source.recording.trailer) or {}
        for kind, events in self.events.items():
            trailer["counters"][kind] |= {"entered": events, "written": events}
        readings = {"before": self._vmstat(), "after": self._vmstat()}
        trailer |= {"ended_ns": self.now_ns, "events": sum(self.events.values())}
        self._writer.trailer(trailer | {"vmstat_detach": readings})
        os.close(self._fd)
        for file in self._files.values():
            file.close()
        self._write_facts()

    def _write_facts(self) -> None:
        """What the questions need of the header and the trailer."""
        header = self._source.recording.header
        facts = {
            "begin_ns": header["attached_ns"],
            "end_ns": self.now_ns,
            "kswapd": header["tasks"]["kswapd"],
            "recorder": [header["tasks"]["recorder"]],
            "queues": header["queues"],
        }
        (self._parquet / "facts.json").write_text(json.dumps(facts), encoding="utf-8")

    def _vmstat(self) -> dict[str, Any]:
        pages = self.pages
        counters = ("balloon_inflate", "balloon_deflate", "balloon_migrate")
        kinds = ("fill", "leak", "migrate")
        return {counter: pages[kind] for counter, kind in zip(counters, kinds, strict=True)}

    def _write_parquet(self) -> None:
        """One row group of each kind."""
        batch = np.concatenate(self._batch)
        self._batch = [batch[:0]]
        for kind, number in self._kinds.items():
            items = batch[batch["kind"] == number]
            columns = {"record": self._records + np.flatnonzero(batch["kind"] == number)}
            columns |= {
                name: items[name].copy()
                for name in items.dtype.names or ()
                if name not in ("ring_header", "reserved", "comm")
            }
            comm = pa.array(items["comm"].tolist(), pa.binary()).cast(pa.string())
            table = pa.table({**columns, "comm": comm})
            if kind not in self._files:
                path = self._parquet / f"{kind}.parquet"
                self._files[kind] = pq.ParquetWriter(path, table.schema)
            self._files[kind].write_table(table)
        self._records += len(batch)


def make(events: int, recording: Path, parquet: Path) -> None:
    """Write a recording of so many events, and its copy into the directory `parquet`."""
    parquet.mkdir(exist_ok=True)
    source = read_source()
    copies = Copies(source, recording, parquet)
    for items in repetitions(source, events):
        copies.add(items)
    copies.finish()


if __name__ == "__main__":
    make(int(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3]))
