# SPDX-License-Identifier: Apache-2.0
"""Task delays gained over a recording, against answers known by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from balloontrace.analysis.base import Result
from balloontrace.analysis.report import build
from tests.unit.builders import KSWAPD_TID, WORKER_TID, Built, ns

OFF, ON = {"delayacct": "off"}, {"delayacct": "on", "since_boot": True}


def result(tmp_path: Path, *blocks: dict[str, Any]) -> Result:
    built = Built().target(1, 100, 0).ends(60)
    built.samples += blocks
    return build(built.write(tmp_path / "r.btrace")).results["delays"]


def delays(at: float, *, tid: int, began: float, comm: str = "cat", **read: Any) -> dict[str, Any]:
    """A block with one task's reading; delays as (count, seconds)."""
    totals = {name: [count, round(seconds * 1e9)] for name, (count, seconds) in read.items()}
    return {
        "t_ns": ns(at),
        "delays": {str(tid): {"comm": comm, "start_ns": ns(began), **totals}},
    }


def test_an_old_task_gains_the_difference(tmp_path: Path) -> None:
    found = result(
        tmp_path,
        {"t_ns": ns(0), **ON},
        delays(0, tid=WORKER_TID, began=-4, cpu=(100, 5.0), reclaim=(10, 1.0)),
        delays(5, tid=WORKER_TID, began=-4.001, cpu=(110, 5.5), reclaim=(11, 1.25)),
        delays(9, tid=WORKER_TID, began=-3.999, cpu=(150, 7.0), reclaim=(14, 3.5)),
    )
    (row,) = found.tables["tasks"]
    assert (row["tid"], row["readings"], row["kswapd"]) == (WORKER_TID, 3, False)
    assert (row["cpu_s"], row["cpu_count"]) == (2.0, 50)
    assert (row["reclaim_s"], row["reclaim_count"]) == (2.5, 4)
    assert row["compact_s"] is None  # not in this version of taskstats
    assert row["compact_count"] is None
    assert len(found.notes) == 1


def test_a_task_born_in_the_recording_gains_all_it_has(tmp_path: Path) -> None:
    found = result(tmp_path, {"t_ns": ns(0), **ON}, delays(9, tid=9, began=3, reclaim=(7, 0.5)))
    (row,) = found.tables["tasks"]
    assert (row["reclaim_s"], row["reclaim_count"], row["readings"]) == (0.5, 7, 1)


def test_an_old_task_read_once_is_unknown_not_zero(tmp_path: Path) -> None:
    found = result(tmp_path, {"t_ns": ns(0), **ON}, delays(9, tid=9, began=-30, cpu=(7, 0.5)))
    (row,) = found.tables["tasks"]
    assert row["cpu_s"] is None
    assert any("read only once" in note for note in found.notes)


def test_a_thread_id_used_again_is_another_task(tmp_path: Path) -> None:
    found = result(
        tmp_path,
        {"t_ns": ns(0), **ON},
        delays(5, tid=9, began=1, comm="cat", reclaim=(9, 3.0)),
        delays(15, tid=9, began=12, comm="dd", reclaim=(2, 1.0)),
    )
    rows = [(row["comm"], row["reclaim_s"]) for row in found.tables["tasks"]]
    assert rows == [("cat", 3.0), ("dd", 1.0)]


def test_who_waited_longest_for_memory_comes_first(tmp_path: Path) -> None:
    found = result(
        tmp_path,
        {"t_ns": ns(0), **ON},
        delays(5, tid=7, began=1, cpu=(1, 30.0)),
        delays(5, tid=8, began=1, compact=(1, 1.0), thrashing=(1, 1.5)),
        delays(5, tid=KSWAPD_TID, began=1, cpu=(1, 31.0)),
        delays(5, tid=9, began=1, reclaim=(1, 2.0)),
    )
    rows = found.tables["tasks"]
    assert [row["tid"] for row in rows] == [8, 9, KSWAPD_TID, 7]
    assert [row["kswapd"] for row in rows] == [False, False, True, False]


def test_accounting_that_is_off_comes_with_what_to_do(tmp_path: Path) -> None:
    reading = delays(9, tid=9, began=3, cpu=(7, 0.5), reclaim=(0, 0))
    found = result(tmp_path, {"t_ns": ns(0), **OFF}, reading)
    assert found.scalars["delayacct"] == "off"
    (row,) = found.tables["tasks"]
    assert (row["cpu_s"], row["reclaim_s"], row["reclaim_count"]) == (0.5, None, None)
    assert any("sysctl kernel.task_delayacct=1" in note for note in found.notes)
    found = result(tmp_path, {"t_ns": ns(0), **ON, "since_boot": False}, reading)
    assert any("before delay accounting was turned on" in note for note in found.notes)


def test_a_reader_that_ended_is_told(tmp_path: Path) -> None:
    reading = delays(9, tid=9, began=3, cpu=(7, 0.5))
    ended = {"t_ns": ns(12), "delays": "ended"}
    found = result(tmp_path, {"t_ns": ns(0), **ON}, reading, ended)
    assert any("after 12.0 s" in note for note in found.notes)


def test_not_recorded_is_not_zero(tmp_path: Path) -> None:
    assert result(tmp_path).missing == ["task delays"]
    absent = {"t_ns": ns(0), "delays": "absent", "why": "No module named 'pyroute2'"}
    assert result(tmp_path, absent).missing == ["task delays (No module named 'pyroute2')"]
