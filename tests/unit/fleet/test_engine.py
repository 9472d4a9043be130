# SPDX-License-Identifier: Apache-2.0
"""A fleet is read wholly, whatever its recordings do to those who read them."""

from __future__ import annotations

import os
import signal
import threading
from concurrent.futures import Future
from pathlib import Path

import pytest

from balloontrace.errors import UserError
from balloontrace.fleet import engine, work
from balloontrace.fleet.batches import Batch, batches_of
from balloontrace.fleet.dataset import Dataset
from balloontrace.fleet.processes import Lost, Processes, Worker
from balloontrace.fleet.schema import TABLES
from balloontrace.fleet.sources import Source
from balloontrace.fleet.work import Limits, Summary
from tests.unit.fleet.fleets import BY, LIMITS, fleet, hog, hostile, rows, run, sources_in


class Here:
    """Reads in this process, and loses the batches that hold one of `deadly`."""

    def __init__(self, dataset: Dataset, deadly: tuple[str, ...] = (), tells: bool = False) -> None:
        self.dataset, self.deadly, self.tells = dataset, deadly, tells
        self.read: list[Batch] = []
        self.closed = False

    def submit(self, batches: list[Batch]) -> list[Future[Summary]]:
        """At once."""
        return [self._submit(batch) for batch in batches]

    def _submit(self, batch: Batch) -> Future[Summary]:
        self.read.append(batch)
        done: Future[Summary] = Future()
        names = [Path(source.name).name for source in batch.sources]
        bad = [number for number, name in enumerate(names) if name in self.deadly]
        if bad:
            done.set_exception(Lost("killed", "it died", bad[0] if self.tells else None))
        else:
            done.set_result(work.read(batch, self.dataset, LIMITS, lambda _: None))
        return done

    def close(self) -> None:
        """Nothing to end."""
        self.closed = True


def read_here(
    dataset: Dataset, sources: list[Source], *more: object
) -> tuple[engine.Progress, Here]:
    workers = Here(dataset, *more)  # type: ignore[arg-type]
    with dataset.alone():
        return engine.run(batches_of(sources, BY), workers, dataset), workers


def test_processes_say_the_same_as_this_one_row_by_row(tmp_path: Path) -> None:
    sources = fleet(tmp_path / "in", 9)
    bad = hostile(sources)
    found = sources_in(sources)
    one, other = Dataset.made(tmp_path / "one"), Dataset.made(tmp_path / "other")
    read_here(one, found)
    progress = run(other, found)
    assert (progress.files_done, progress.failures) == (12, {"unreadable": 3})
    for name in TABLES:
        assert rows(one, name) == rows(other, name), name
    assert len(rows(other, "guest")) == 9
    reasons = {Path(row["source"]).name: row["reason"] for row in rows(other, "failure")}
    assert reasons.keys() == bad.keys()
    for name, reason in bad.items():
        assert reason in reasons[name]


@pytest.mark.parametrize("tells", [True, False], ids=["named", "by halves"])
def test_who_kills_workers_is_found_and_named(tmp_path: Path, tells: bool) -> None:
    found = sources_in(fleet(tmp_path / "in", 20))
    dataset = Dataset.made(tmp_path / "out")
    deadly = ("003.btrace", "017.btrace")
    progress, workers = read_here(dataset, found, deadly, tells)
    failed = rows(dataset, "failure")
    assert [Path(row["source"]).name for row in failed] == list(deadly)
    assert {(row["kind"], row["reason"]) for row in failed} == {("killed", "it died")}
    assert len(rows(dataset, "guest")) == 18
    assert progress.files_done == 20
    assert len(workers.read) <= (5 if tells else 20)
    assert workers.closed


def test_a_worker_that_is_killed_costs_nothing(tmp_path: Path) -> None:
    found = sources_in(fleet(tmp_path / "in", 12))
    dataset = Dataset.made(tmp_path / "out")
    killed: list[int] = []

    def kill(_: engine.Progress) -> None:
        if not killed:
            killed.extend(workers.pids[:1])
            for pid in killed:
                os.kill(pid, signal.SIGKILL)

    with dataset.alone():
        workers = Processes(2, dataset, LIMITS)
        progress = engine.run(batches_of(found, BY, 4), workers, dataset, kill)
    assert killed
    assert progress.failures == {}
    assert len(rows(dataset, "guest")) == 12


def test_what_takes_too_long_is_named_and_the_others_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = sources_in(fleet(tmp_path / "in", 3))
    from balloontrace.fleet import one

    rows_of, never = one.rows_of, threading.Event()
    rows_of(found[0].name, found[0].written)  # what is imported late, is

    def slow(path: str, written: object) -> object:
        if path.endswith("001.btrace"):
            never.wait()
        return rows_of(path, written)  # type: ignore[arg-type]

    monkeypatch.setattr(one, "rows_of", slow)
    dataset = Dataset.made(tmp_path / "out")
    (batch,) = batches_of(found, BY)
    summary = work.read(batch, dataset, Limits(1 << 30, 2), lambda _: None)
    assert [(Path(name).name, kind) for name, kind, _ in summary.failures] == [
        ("001.btrace", "time")
    ]
    assert summary.spent
    assert len(rows(dataset, "guest")) == 2


def test_what_takes_too_much_memory_is_named_and_the_others_are_read(tmp_path: Path) -> None:
    directory = fleet(tmp_path / "in", 3)
    hog(directory / "hog.btrace", 5)
    dataset = Dataset.made(tmp_path / "out")
    progress = run(dataset, sources_in(directory), 1, Limits(160 << 20, 60))
    assert progress.failures == {"memory": 1}
    assert [Path(row["source"]).name for row in rows(dataset, "failure")] == ["hog.btrace"]
    assert len(rows(dataset, "guest")) == 3


def test_a_disk_that_is_full_ends_the_run(tmp_path: Path) -> None:
    found = sources_in(fleet(tmp_path / "in", 2))
    dataset = Dataset.made(tmp_path / "out")
    (dataset.directory / "guest").write_text("in the way")
    with pytest.raises(UserError, match="cannot write the dataset"):
        run(dataset, found)


def test_what_lies_beside_the_recordings_is_not_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = sources_in(fleet(tmp_path, 1))
    (tmp_path / "resource.py").write_text("raise SystemExit(3)\n")
    monkeypatch.chdir(tmp_path)
    worker = Worker(Dataset.made(tmp_path / "out"), LIMITS)
    (batch,) = batches_of(found, BY)
    summary = worker.read(batch)
    assert (summary.files, summary.failures) == (1, [])
    worker.end()


def test_a_worker_that_cannot_begin_says_why(tmp_path: Path) -> None:
    found = sources_in(fleet(tmp_path / "in", 1))
    dataset = Dataset.made(tmp_path / "out")
    with pytest.raises(UserError, match="does not begin"):
        run(dataset, found, 1, Limits(4 << 20, 60))
