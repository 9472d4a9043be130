# SPDX-License-Identifier: Apache-2.0
"""What the fuzzer begins with: real recordings, and one of each kind that a reader must expect."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

from balloontrace import events
from balloontrace.events import UNKNOWN_PAGES
from balloontrace.recording.layout import EVENTS, TRAILER
from balloontrace.recording.writer import Writer
from tests.stress.mutations import Blocks, blocks_of
from tests.unit.builders import (
    KSWAPD_TID,
    RECORDER_PID,
    Built,
    ns,
    shrinker_like,
    stock_like,
    vmstat,
)

_DATA = Path(__file__).parents[1] / "data"
_MOST_BYTES = 70_000
"""Of a real recording: larger ones are read some ten times slower, and hold nothing else."""

_TIMES = {"cpu": [9, 1_000_000], "swapin": [2, 30_000_000], "thrashing": [1, 5_000]}


def _memory() -> Built:
    """A balloon that is pressed: OOM, its victims, samples, task delays, free page reporting."""
    built = Built(base=512).target(0.5, 2560, 512)
    for second in range(1, 8):
        at = float(second)
        built.fill(at, 0.01, 256).ack(at + 0.001, 0.004, 256, "inflate", "worker")
        built.call("oom_notify", at + 0.1, 0.02, 0, 256, tid=900, comm=b"hog", within="oom")
        built.leak(at + 0.101, 0.01, 256, tid=900, comm=b"hog", within="oom leak")
        built.call("report", at + 0.2, 0.001, 512, 512, tid=33, queue="other")
        counters = vmstat(256 * second, 256 * second) | {
            "oom_kill": second,
            "workingset_refault_file": 9,
        }
        built.sample(at + 0.5, counters)
        built.samples[-1]["meminfo"] = {"MemFree": 9 << 20, "MemAvailable": 10 << 20}
        built.samples[-1]["psi"] = {"memory": {"some_us": 400_000 * second, "full_us": 9 * second}}
        tasks = {
            "900": {"comm": "hog", "start_ns": 5, **_TIMES},
            str(KSWAPD_TID): {"comm": "kswapd0"},
        }
        built.samples.append({"t_ns": ns(at + 0.6), "delays": tasks})
    built.call("oom_kill", 5.0, 0.0, UNKNOWN_PAGES, 901, tid=900, comm=b"hog", flags="memcg")
    return built.ends(9.0)


def _driver_changes() -> Built:
    """A driver that goes and comes back, and a moment at which nobody could trace it."""
    built = stock_like(6)
    built.gone(2.0, vmstat(1536), vmstat(1536, 256))
    built.driver(2.1, "absent").driver(2.2, "untraceable", why="no such function")
    return built.attached(2.5, vmstat(1536, 512), vmstat(1792, 512))


def _losses() -> Built:
    """Events lost, returns missed, calls that are open, pages that no rung could see."""
    built = shrinker_like(12)
    built.fill(9.0, None, 256).call("fill", 9.5, 0.1, 256, UNKNOWN_PAGES, within="worker")
    built.leak(9.7, 0.1, 256, flags="missed", tid=RECORDER_PID)
    assert built.trailer is not None
    lost = {"entered": 90, "written": 80, "lost": 7, "untracked": 1, "missed": 1, "unpaired": 1}
    built.trailer |= {"counters": {"fill": lost, "leak": lost}, "lost_events": 20, "open_calls": 1}
    return built


def _built() -> Iterator[Built]:
    yield from (
        stock_like(6),
        shrinker_like(12),
        _memory(),
        _driver_changes(),
        _losses(),
        Built().ends(3.0),
    )


def _at_rest(path: Path) -> Blocks:
    """A guest at rest: each second a sample, most seconds an event in one block with it."""
    built = Built().ends(9.0)
    with path.open("wb") as file:
        writer = Writer(file.fileno())
        writer.header(built.header)
        for second in range(1, 9):
            if second % 3:
                span = events.pack(start_ns=ns(second), kind=built.header["kinds"]["count"])
                writer.events(span, sample_follows=True)
            writer.sample({"t_ns": ns(second + 0.5), "vmstat": vmstat(256 * second)})
        writer.trailer(built.trailer or {})
    return blocks_of(path.read_bytes())


def seeds() -> list[Blocks]:
    """Each as blocks: real ones first."""
    real = sorted((path.read_bytes() for path in _DATA.glob("*.btrace")), key=len)
    found = [blocks_of(data) for data in real if len(data) <= _MOST_BYTES]
    with TemporaryDirectory() as directory:
        path = Path(directory) / "built.btrace"
        for built in _built():
            built.write(path)
            found.append(blocks_of(path.read_bytes()))
        found.append(_at_rest(path))
    return [*found, *_unwhole(found)]


def _unwhole(whole: list[Blocks]) -> Iterator[Blocks]:
    """Recordings still under way; one without its first events."""
    for blocks in whole[-3:]:
        yield [block for block in blocks if block[0] != TRAILER]
    first = next(n for n, (kind, _) in enumerate(whole[0]) if kind == EVENTS)
    yield whole[0][:first] + whole[0][first + 1 :]
