# SPDX-License-Identifier: Apache-2.0
"""Builds constructed recordings whose answers are known by hand.

Times are in seconds since attach, pages are balloon pages; calls may be given in any order, the
file gets them in order of return as the tracer writes them.
"""

from __future__ import annotations

import os
import struct
from pathlib import Path
from typing import Any

from balloontrace import events
from balloontrace.recording.writer import Writer

ATTACHED_NS = 5_000_000_000
KINDS = {kind.name: kind.number for kind in events.KINDS}
WITHIN = {bit.name: bit.number for bit in events.WITHIN}
QUEUES = {bit.name: bit.number for bit in events.QUEUES}
FLAGS = {bit.name: bit.number for bit in events.FLAGS}

KSWAPD_TID, WORKER_TID, RECORDER_PID = 45, 77, 1234

_ITEM = struct.Struct("<II QQIIIIHBBBBH16s")


def ns(at_s: float) -> int:
    """Monotonic nanoseconds of a moment given in seconds since attach."""
    return ATTACHED_NS + round(at_s * 1e9)


def vmstat(inflate: int = 0, deflate: int = 0, migrate: int = 0) -> dict[str, int]:
    """A reading of the three balloon counters."""
    return {
        "balloon_inflate": inflate,
        "balloon_deflate": deflate,
        "balloon_migrate": migrate,
    }


class Built:
    """A recording under construction. Change `header` and `trailer` freely before `write`."""

    def __init__(self, base: int = 0) -> None:
        """base: pages in the balloon at attach."""
        self._calls: list[tuple[int, bytes]] = []
        self.samples: list[dict[str, Any]] = []
        start = vmstat(base)
        self.moved = dict.fromkeys(("fill", "leak", "migrate"), 0)
        self.base = base
        self.header: dict[str, Any] = {
            "tool": "balloontrace 0.1.0",
            "guest": {
                "kernel": "6.1.0-44-amd64",
                "machine": "x86_64",
                "page_size": 4096,
                "memory_bytes": 4 << 30,
                "cpus": 2,
                "boot_id": "0",
                "hostname": "lab",
            },
            "balloon": {
                "device": "virtio2",
                "features": ["stats_vq", "deflate_on_oom"],
                "driver": {
                    "version": None,
                    "srcversion": "ABCDEF",
                    "taint": "",
                    "symbols": ["virtio_balloon_oom_notify", "virtio_balloon_shrinker_scan"],
                },
            },
            "seams": {kind: {"rung": "kprobe", "loses": "", "not": []} for kind in KINDS},
            "record": events.record_layout(),
            "ring_header_bytes": events.RING_HEADER_BYTES,
            "kinds": KINDS,
            "ring_bytes": 1 << 20,
            "within": WITHIN,
            "queues": QUEUES,
            "flags": FLAGS,
            "tasks": {"recorder": RECORDER_PID, "kswapd": [KSWAPD_TID]},
            "vmstat_attach": {"before": start, "after": start},
            "attached_ns": ATTACHED_NS,
        }
        self.trailer: dict[str, Any] | None = {
            "reason": "command",
            "counters": {},
            "lost_events": 0,
            "open_calls": 0,
            "recorder": {"rss_peak_bytes": 11 << 20, "cpu_s": 0.4, "longest_read_gap_s": 0.21},
            "command": None,
        }

    def call(
        self, kind: str, at: float, took: float | None, asked: int, done: int, **more: Any
    ) -> Built:
        """Add any event. took: seconds, None = still open at the end. more: fields by name."""
        start, duration = ns(at), events.OPEN_DURATION
        returned = 1 << 62
        if took is not None:
            duration = ns(at + took) - start
            returned = start + duration
        within = sum(WITHIN[name] for name in more.get("within", "").split())
        flags = sum(FLAGS[name] for name in more.get("flags", "").split())
        tid = more.get("tid", WORKER_TID)
        record = _ITEM.pack(
            *(events.record_bytes(), 0, start, duration, asked, done, tid, more.get("pid", tid)),
            *(0, KINDS[kind], within, QUEUES[more.get("queue", "none")], flags, 0),
            more.get("comm", b"kworker/0:1"),
        )
        self._calls.append((returned, record))
        if kind in self.moved and done != events.UNKNOWN_PAGES:
            self.moved[kind] += done
        return self

    def target(self, at: float, pages: int, size: int = events.UNKNOWN_PAGES) -> Built:
        """The size worker sees a new target; size: what it saw of the balloon."""
        return self.call("target", at, 0.0, pages, size, within="worker")

    def fill(self, at: float, took: float | None, pages: int, **more: Any) -> Built:
        """The size worker puts pages into the balloon."""
        return self.call("fill", at, took, pages, pages, **{"within": "worker", **more})

    def leak(self, at: float, took: float | None, pages: int, **more: Any) -> Built:
        """Pages leave the balloon; by the host's wish unless `within` says otherwise."""
        return self.call("leak", at, took, pages, pages, **{"within": "worker", **more})

    def ack(self, at: float, took: float, pages: int, queue: str, within: str) -> Built:
        """The driver waits for the host."""
        return self.call("ack", at, took, pages, pages, queue=queue, within=within)

    def sample(self, at: float, counters: dict[str, int]) -> Built:
        """What the slow sources said."""
        self.samples.append({"t_ns": ns(at), "vmstat": counters, "meminfo": {}, "psi": {}})
        return self

    def driver(self, at: float, state: str, **content: Any) -> Built:
        """The recorder tells that the driver went or came."""
        self.samples.append({"t_ns": ns(at), "driver": {"state": state, **content}})
        return self

    def gone(
        self, at: float, counters: dict[str, int], after: dict[str, int] | None = None
    ) -> Built:
        """The driver went; its last page moved between the two readings."""
        readings = {"before": counters, "after": after or counters}
        return self.driver(at, "gone", vmstat=readings)

    def attached(
        self, at: float, counters: dict[str, int], after: dict[str, int] | None = None, **more: Any
    ) -> Built:
        """It came back; its first traced page moved between the two readings. more: what is not as
        in the header."""
        described = {key: self.header[key] for key in ("seams", "balloon")} | more
        readings = {"before": counters, "after": after or counters}
        return self.driver(at, "attached", vmstat_attach=readings, **described)

    def ends(self, at: float, counters: dict[str, int] | None = None) -> Built:
        """End of the recording; counters: /proc/vmstat then, by default what was traced."""
        assert self.trailer is not None
        moved = self.moved
        last = counters or vmstat(self.base + moved["fill"], moved["leak"], moved["migrate"])
        self.trailer |= {"ended_ns": ns(at), "vmstat_detach": {"before": last, "after": last}}
        return self

    def write(self, path: Path) -> str:
        """Write the file and return its path; several event blocks, samples at the end."""
        ordered = [record for _, record in sorted(self._calls, key=lambda call: call[0])]
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        try:
            writer = Writer(descriptor)
            writer.header(self.header)
            for first in range(0, len(ordered), 100):
                writer.events(b"".join(ordered[first : first + 100]))
            for sample in self.samples:
                writer.sample(sample)
            if self.trailer is not None:
                writer.trailer(self.trailer)
        finally:
            os.close(descriptor)
        return str(path)


def stock_like(chunks: int = 400) -> Built:
    """Inflate by `chunks` chunks in 0.01 s each, rest, deflate to zero: an ideal driver."""
    built = Built().target(1.0, chunks * 256, 0)
    for i in range(chunks):
        built.ack(1.006 + i * 0.01, 0.003, 256, "inflate", "worker")
        built.fill(1.0 + i * 0.01, 0.01, 256)
    down = 3.0 + chunks * 0.01
    built.target(down, 0, chunks * 256)
    for i in range(chunks):
        built.ack(down + i * 0.005, 0.001, 256, "deflate", "worker leak")
        built.leak(down + i * 0.005, 0.005, 256, within="worker leak")
    return built.ends(down + chunks * 0.005 + 1.0)


def between_pages() -> Built:
    """A guest of 64 KiB pages, whose targets lie between two of them."""
    built = Built().target(1, 100, 0).fill(1, 1, 112).target(3, 1001, 112).fill(3, 1, 896)
    built.header["guest"]["page_size"] = 65_536
    return built.target(5, 100, 1008).leak(5, 1, 896)


def shrinker_like(rounds: int = 400) -> Built:
    """Gains 100 chunks in 2 s, then takes a chunk and loses one to reclaim `rounds` times.

    The target of 1,000 chunks is not reached; `cat` makes every tenth of the leaks, the balloon's
    own inflation every tenth, kswapd the rest.
    """
    built = Built()
    driver = built.header["balloon"]["driver"]
    driver |= {
        "version": "balloontrace-shrinker",
        "taint": "OE",
        "symbols": ["virtio_balloon_shrinker_scan"],
    }
    built.header["seams"]["oom_notify"] = {
        "rung": None,
        "loses": "",
        "not": ["virtio_balloon_oom_notify: this kernel has no such function"],
    }
    built.target(0.5, 256_000, 0)
    for i in range(100):
        built.fill(0.5 + i * 0.02, 0.02, 256)
    for i in range(rounds):
        at = 2.5 + i * 0.1
        actor: dict[str, Any] = {"tid": KSWAPD_TID, "comm": b"kswapd0", "within": "scan leak"}
        if i % 10 == 1:
            actor = {"tid": 900, "comm": b"cat", "within": "scan leak"}
        elif i % 10 == 2:
            actor = {"comm": b"kworker/1:2", "within": "worker scan leak"}
        built.call("count", at, 0.00001, 0, 25_600, **actor)
        built.leak(at, 0.01, 256, **actor)
        built.fill(at + 0.02, 0.05, 256)
    return built.ends(2.5 + rounds * 0.1 + 1.0)
