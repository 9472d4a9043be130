# SPDX-License-Identifier: Apache-2.0
"""Samples as columns: the same numbers, whichever way they were read."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from balloontrace.analysis.trace import samples as samples_module
from balloontrace.analysis.trace.samples import UNREAD, WANTED, Samples
from balloontrace.analysis.trace.task_delays import TaskDelays
from balloontrace.analysis.trace.trace import read_trace, trace_of
from balloontrace.recording.reader import read_recording
from tests.unit.builders import Built, ns, vmstat

DATA = Path(__file__).parents[3] / "data"
RECORDINGS = sorted(DATA.glob("*.btrace"))


@pytest.mark.parametrize("path", RECORDINGS, ids=lambda path: path.stem)
def test_columns_are_those_of_samples_that_were_read_with_care(path: Path) -> None:
    fast, careful = read_trace(str(path)), trace_of(read_recording(str(path)))
    assert len(fast.samples) == len(careful.samples) > 0
    assert not any("vmstat" in s or "delays" in s for s in fast.recording.samples)
    assert fast.samples.delays.tasks == careful.samples.delays.tasks
    assert (fast.samples.time_ns == careful.samples.time_ns).all()
    for source, keys in WANTED.items():
        for key in keys:
            column = fast.samples.column(source, key)
            assert (column == careful.samples.column(source, key)).all()
    assert fast.every_sample == careful.every_sample
    assert fast.driver_changes == careful.driver_changes


def test_what_a_sample_lacks_is_not_zero(tmp_path: Path) -> None:
    built = Built().sample(1, vmstat(7)).ends(9)
    built.samples.append({"t_ns": ns(2), "vmstat": {}, "psi": {"memory": {"some_us": 3}}})
    samples = read_trace(built.write(tmp_path / "r.btrace")).samples
    assert samples.column("vmstat", "balloon_inflate").tolist() == [7, UNREAD]
    assert samples.column("memory", "some_us").tolist() == [UNREAD, 3]
    assert samples.column("memory", "full_us").tolist() == [UNREAD, UNREAD]
    assert (samples.counters(0)["balloon_inflate"], samples.counters(1)) == (7, {})


def test_what_the_kernel_counts_by_zone_and_by_reclaimer_is_one_number(tmp_path: Path) -> None:
    counted = [
        {"allocstall_dma32": 3, "allocstall_normal": 4, "pgscan_kswapd": 5, "pgscan_direct": 6},
        {"allocstall": 8, "pgscan_kswapd": 9, "pgscan_direct_throttle": 1, "pgscan_anon": 9},
    ]
    built = Built().ends(9)
    built.samples = [{"t_ns": ns(at), "vmstat": of} for at, of in enumerate(counted, 1)]
    path = built.write(tmp_path / "r.btrace")
    for trace in (read_trace(path), trace_of(read_recording(path))):
        columns = (
            trace.samples.column("vmstat", key) for key in ("allocstall", "pgscan", "pgsteal")
        )
        assert [column.tolist() for column in columns] == [[7, 8], [11, 9], [UNREAD, UNREAD]]


@pytest.mark.parametrize("number", [-1, 1 << 63, 1.5, "7", True, [7]])
def test_a_number_that_cannot_be_is_damage_and_costs_itself(number: object, tmp_path: Path) -> None:
    built = Built().sample(1, vmstat(7)).ends(9)
    built.samples.append({"t_ns": ns(2), "vmstat": {"balloon_inflate": number, "oom_kill": 5}})
    trace = read_trace(built.write(tmp_path / "r.btrace"))
    assert len(trace.recording.damage) == 1
    assert trace.samples.column("vmstat", "balloon_inflate").tolist() == [7, UNREAD]
    assert trace.samples.column("vmstat", "oom_kill").tolist() == [UNREAD, 5]


def test_a_sample_that_tells_more_is_kept_whole(tmp_path: Path) -> None:
    built = Built().sample(1, vmstat(7)).ends(9)
    built.samples.append({"t_ns": ns(2), "vmstat": vmstat(8), "failed": {"psi": "gone"}})
    built.samples.append({"t_ns": ns(3), "delays": {}})
    trace = read_trace(built.write(tmp_path / "r.btrace"))
    assert trace.samples.time_ns.tolist() == [ns(1), ns(2)]
    assert [sample["t_ns"] for sample in trace.recording.samples] == [ns(2)]
    assert [sample["t_ns"] for sample in trace.every_sample] == [ns(1), ns(2), ns(3)]


def test_columns_grow_while_they_are_looked_at() -> None:
    samples = Samples()
    for second in range(3):
        assert samples.take(b'{"t_ns":%d,"vmstat":{}}' % second)
        assert samples.time_ns.tolist() == list(range(second + 1))
    assert not samples.take(b'{"t_ns":1}')
    assert not samples.take(b"[" * 100_000)
    assert np.shape(samples.time_ns) == (3,)


def test_columns_that_are_packed_hold_what_was_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(samples_module, "_PACKED", 4)
    samples, most = Samples(), (1 << 63) - 1
    wanted: dict[str, list[int | None]] = {
        "balloon_inflate": [0, 300, 5, most, 7, 7, 7, 7, most, 1],
        "oom_kill": [None, most, 3, 2, None, None, None, None, 70_000, 0],
    }
    for t_ns in range(10):
        counters = {key: column[t_ns] for key, column in wanted.items()}
        samples.add({"t_ns": t_ns, "vmstat": counters})
    assert len(samples) == 10
    assert samples.time_ns.tolist() == list(range(10))
    for key, column in wanted.items():
        held = [UNREAD if value is None else value for value in column]
        assert samples.column("vmstat", key).tolist() == held
        assert [samples.number("vmstat", key, place) for place in range(10)] == held
    part = samples.within(1, 7, TaskDelays())
    assert part.column("vmstat", "balloon_inflate").tolist() == wanted["balloon_inflate"][2:8]
