# SPDX-License-Identifier: Apache-2.0
"""A dataset is whole after whatever befell those who wrote it, and nothing is read twice."""

from __future__ import annotations

import json
import os
from concurrent.futures import Future
from pathlib import Path
from typing import NoReturn

import duckdb
import pytest

from balloontrace.errors import UserError
from balloontrace.fleet import dataset as module
from balloontrace.fleet import engine, work
from balloontrace.fleet.batches import Batch, batches_of
from balloontrace.fleet.dataset import MARK, Dataset, views
from balloontrace.fleet.schema import FAILURE, GUEST, TABLES
from balloontrace.fleet.sources import Source
from tests.unit.fleet.fleets import BY, LIMITS, fleet, hostile, recording, rows, sources_in


def read(dataset: Dataset, sources: list[Source]) -> None:
    """Read them here, one batch after the other."""
    for batch in batches_of(sources, BY):
        work.read(batch, dataset, LIMITS, lambda _: None)


def new(dataset: Dataset, sources: list[Source], again: bool = False) -> list[str]:
    """What would be read."""
    done = dataset.done(again)
    keys = [(one.name, one.size_bytes, one.version, BY) for one in sources]
    return [Path(key[0]).name for key in keys if key not in done]


def content(dataset: Dataset) -> dict[str, list[dict[str, object]]]:
    return {name: rows(dataset, name) for name in TABLES}


def test_a_part_is_of_one_day_and_named_by_what_it_is_made_of(tmp_path: Path) -> None:
    sources = sources_in(fleet(tmp_path / "in", 6))
    dataset = Dataset.made(tmp_path / "out")
    (batch,) = batches_of(sources, BY)
    read(dataset, sources)
    parts = [str(part.relative_to(dataset.directory)) for part in dataset.parts(GUEST)]
    assert parts == [f"guest/day=1970-01-0{day}/{batch.name}.parquet" for day in (1, 2, 3)]
    before = content(dataset)
    read(dataset, sources)
    assert [str(part.relative_to(dataset.directory)) for part in dataset.parts(GUEST)] == parts
    assert content(dataset) == before


def test_what_was_read_is_not_read_again_unless_it_changed(tmp_path: Path) -> None:
    directory = fleet(tmp_path / "in", 3)
    dataset = Dataset.made(tmp_path / "out")
    read(dataset, sources_in(directory))
    assert new(dataset, sources_in(directory)) == []
    recording(directory / "001.btrace", 9 * 256, "changed")
    recording(directory / "007.btrace", 256, "came")
    changed = sources_in(directory)
    assert new(dataset, changed) == ["001.btrace", "007.btrace"]
    read(dataset, [one for one in changed if Path(one.name).name in ("001.btrace", "007.btrace")])
    assert new(dataset, changed) == []
    guests = {Path(row["source"]).name: row for row in rows(dataset, "guest")}
    assert [guests[name]["host_name"] for name in sorted(guests)] == [
        *("host-0", "changed", "host-2", "came")
    ]
    assert guests["001.btrace"]["inflated_pages"] == 9 * 256
    assert len(rows(dataset, "episode")) == 4


def test_a_failure_is_read_again_if_that_is_asked_for(tmp_path: Path) -> None:
    hostile(fleet(tmp_path / "in", 1))
    dataset, sources = Dataset.made(tmp_path / "out"), sources_in(tmp_path / "in")
    read(dataset, sources)
    assert new(dataset, sources) == []
    assert new(dataset, sources, again=True) == ["empty.btrace", "header.btrace", "zip.btrace"]


def test_a_file_that_went_is_tried_again(tmp_path: Path) -> None:
    sources = sources_in(fleet(tmp_path / "in", 2))
    kept = (tmp_path / "in" / "001.btrace").rename(tmp_path / "kept")
    dataset = Dataset.made(tmp_path / "out")
    read(dataset, sources)
    (failure,) = rows(dataset, "failure")
    assert failure["kind"] == "source"
    assert "No such file" in failure["reason"]
    kept.rename(tmp_path / "in" / "001.btrace")
    assert new(dataset, sources) == ["001.btrace"]
    read(dataset, sources[1:])
    assert rows(dataset, "failure") == []
    assert len(rows(dataset, "guest")) == 2


def test_a_run_that_is_killed_goes_on_and_ends_as_if_it_had_not_been(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sources = sources_in(fleet(tmp_path / "in", 2))
    whole = Dataset.made(tmp_path / "whole")
    read(whole, sources)
    writes = 0
    put = module._put

    class Killed(BaseException):
        pass

    for stop in (0, 2, 4, 5):

        def dying(path: Path, write: object, stop: int = stop) -> None:
            nonlocal writes
            if writes == stop:
                path.with_name(f".{path.name}.123-456").write_bytes(b"half")
                raise Killed
            writes += 1
            put(path, write)  # type: ignore[arg-type]

        directory = tmp_path / f"killed-{stop}"
        dataset, writes = Dataset.made(directory), 0
        monkeypatch.setattr(module, "_put", dying)
        killed = False
        try:
            read(dataset, sources)
        except Killed:
            killed = True
        monkeypatch.setattr(module, "_put", put)
        assert killed == (stop < 5)  # two tables by two days, and the inputs
        with dataset.alone():
            assert (new(dataset, sources) != []) == killed
            if killed:
                assert not list(directory.glob("**/*parquet*"))
                read(dataset, sources)
        assert content(dataset) == content(whole)


def test_a_batch_whose_parts_are_gone_is_read_again(tmp_path: Path) -> None:
    sources = sources_in(fleet(tmp_path / "in", 2))
    dataset = Dataset.made(tmp_path / "out")
    read(dataset, sources)
    dataset.parts(GUEST)[0].unlink()  # as the next run sweeps, while a worker of the last goes on
    with dataset.alone():
        assert len(new(dataset, sources)) == 2
        read(dataset, sources)
    assert len(rows(dataset, "guest")) == 2


def test_ctrl_c_leaves_what_was_finished(tmp_path: Path) -> None:
    directory = tmp_path / "in"
    for day in range(3):
        path = recording(directory / f"{day}.btrace")
        os.utime(path, (day * 86_400, day * 86_400))
    sources, dataset = sources_in(directory), Dataset.made(tmp_path / "out")
    closed = []

    def interrupt(progress: engine.Progress) -> None:
        assert progress.files_done == 1
        raise KeyboardInterrupt

    class Interrupted:
        def submit(self, batches: list[Batch]) -> list[Future[work.Summary]]:
            readings: list[Future[work.Summary]] = [Future() for _ in batches]
            read_now = work.read(batches[0], dataset, LIMITS, lambda _: None)
            readings[0].set_result(read_now)
            return readings

        def close(self) -> None:
            closed.append(True)

    with pytest.raises(KeyboardInterrupt), dataset.alone():
        engine.run(batches_of(sources, BY), Interrupted(), dataset, interrupt)
    assert closed == [True]
    assert len(rows(dataset, "guest")) == 1
    assert len(new(dataset, sources)) == 2


def test_one_run_at_a_time(tmp_path: Path) -> None:
    dataset = Dataset.made(tmp_path / "out")
    with dataset.alone(), pytest.raises(UserError, match="another run"), dataset.alone():
        pass


def test_a_directory_of_something_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(UserError, match="holds something else"):
        Dataset.made(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


@pytest.mark.parametrize("said", ["", "[]", "{}", '{"schema": 99}'])
def test_a_dataset_of_another_version_is_refused(tmp_path: Path, said: str) -> None:
    (tmp_path / MARK).write_text(said)
    with pytest.raises(UserError, match=r"cannot be read|has schema 99"):
        Dataset.there(tmp_path)


def test_a_part_that_is_damaged_is_named(tmp_path: Path) -> None:
    sources = sources_in(fleet(tmp_path / "in", 1))
    dataset = Dataset.made(tmp_path / "out")
    read(dataset, sources)
    dataset.parts(GUEST)[0].write_bytes(b"PAR1 no more")
    with pytest.raises(UserError, match=r"guest/day=.*\.parquet cannot be read: .*; remove it"):
        dataset.table("guest")


def test_a_day_that_cannot_be_read_is_not_passed_over(tmp_path: Path) -> None:
    dataset = Dataset.made(tmp_path / "out")
    read(dataset, sources_in(fleet(tmp_path / "in", 2)))
    day = next((tmp_path / "out/guest").iterdir())
    day.rename(tmp_path / "elsewhere")
    day.write_bytes(b"")
    said = f"^cannot read {day}: Not a directory$"
    with pytest.raises(UserError, match=said):
        rows(dataset, "guest")
    with pytest.raises(UserError, match=said):
        views(dataset)


def test_sql_sees_the_rows_that_count(tmp_path: Path) -> None:
    directory = fleet(tmp_path / "it's", 3)
    dataset = Dataset.made(tmp_path / "o'ut")
    read(dataset, sources_in(directory))
    recording(directory / "001.btrace", 9 * 256, "changed")
    read(dataset, sources_in(directory)[1:2])
    with duckdb.connect() as database:
        for view in views(dataset):
            database.execute(view)
        for name in TABLES:
            (number,) = database.sql(f"SELECT count(*) FROM {name}").fetchall()[0]
            assert number == len(rows(dataset, name)), name
        (total,) = database.sql("SELECT sum(inflated_pages) FROM guest").fetchall()[0]
    assert total == (1 + 9 + 3) * 256
    assert len(rows(dataset, FAILURE.name)) == 0


def test_the_mark_says_which_schema(tmp_path: Path) -> None:
    Dataset.made(tmp_path / "a" / "b")
    assert json.loads((tmp_path / "a" / "b" / MARK).read_text()) == {"schema": 1}


def test_what_was_said_of_a_batch_that_failed_counts_no_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sources = sources_in(fleet(tmp_path / "in", 1))
    dataset = Dataset.made(tmp_path / "out")
    (batch,) = batches_of(sources, BY)
    with monkeypatch.context() as refusing:
        refusing.setattr("balloontrace.fleet.one.read_trace", _refuse)
        work.read(batch, dataset, LIMITS, lambda _: None)
    assert [row["kind"] for row in rows(dataset, "failure")] == ["source"]
    work.read(batch, dataset, LIMITS, lambda _: None)  # and nobody sweeps after it
    assert (len(rows(dataset, "guest")), rows(dataset, "failure")) == (1, [])
    connection = duckdb.connect()
    for view in views(dataset):
        connection.execute(view)
    assert connection.execute("SELECT count(*) FROM failure").fetchone() == (0,)


def _refuse(path: str) -> NoReturn:
    raise OSError(5, "Input/output error", path)


def test_a_dataset_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    dataset = Dataset.made(tmp_path / "out")
    (dataset.directory / ".lock").mkdir()
    with pytest.raises(UserError, match=r"cannot write .*: Is a directory"), dataset.alone():
        pass
