# SPDX-License-Identifier: Apache-2.0
"""SQL over a dataset: it reads, and nothing else."""

from __future__ import annotations

import json
import signal
import time
from pathlib import Path

import pytest

from balloontrace.errors import EXIT_USAGE, UserError
from balloontrace.fleet.dataset import Dataset
from balloontrace.fleet.query import Answer, as_csv, as_json, as_text, query
from balloontrace.fleet.schema import TABLES
from tests.unit.fleet.datasets import dataset, failure, guest


@pytest.fixture
def three(tmp_path: Path) -> Dataset:
    guests = [guest("/a", kernel="6.1", cpus=2), guest("/b", kernel="6.1"), guest("/c")]
    return Dataset.there(
        dataset(tmp_path / "it's [a]*", guest=guests, failure=[failure("/z", "time", "r")])
    )


def test_it_counts_what_is_there(three: Dataset) -> None:
    answer = query(three, "SELECT kernel, count(*) AS n FROM guest GROUP BY kernel ORDER BY n DESC")
    assert answer == Answer(["kernel", "n"], [("6.1", 2), (None, 1)])
    assert as_text(answer) == "kernel  n\n------  -\n6.1     2\n        1"
    assert as_csv(answer) == "kernel,n\n6.1,2\n,1"
    assert json.loads(as_json(answer)) == [{"kernel": "6.1", "n": 2}, {"kernel": None, "n": 1}]


@pytest.mark.parametrize("table", TABLES)
def test_every_table_is_there_whole_also_without_rows(three: Dataset, table: str) -> None:
    answer = query(three, f"SELECT * FROM {table}")
    assert answer.columns == [column.name for column in TABLES[table].columns]
    json.loads(as_json(answer))


def test_columns_of_one_name_are_told_apart(three: Dataset) -> None:
    answer = query(three, "SELECT 1 AS a, 2 AS a, 'x' AS a_2, 'nan'::DOUBLE AS nothing")
    assert json.loads(as_json(answer)) == [{"a": 1, "a_2": 2, "a_2_2": "x", "nothing": None}]


@pytest.mark.parametrize(
    "sql",
    [
        "",
        "SELEKT",
        "SELECT 1; SELECT 2",
        "SELECT nothing FROM guest",
        "COPY (SELECT 1) TO '{inside}/x.csv'",
        "CREATE TABLE x AS SELECT 1",
        "DROP VIEW guest",
        "INSTALL httpfs",
        "LOAD httpfs",
        "ATTACH '{inside}/x.db'",
        "SET enable_external_access = true",
        "EXPLAIN ANALYZE COPY (SELECT 1) TO '{inside}/x.csv'",
        "SELECT * FROM read_text('{outside}')",
        "SELECT * FROM read_text('{inside}/../secret.txt')",
        "SELECT * FROM glob('{outside}')",
        "FROM 'https://example.com/x.csv'",
        "SELECT * FROM three",  # a variable of Python's
    ],
)
def test_whatever_else_is_asked_is_one_line(three: Dataset, tmp_path: Path, sql: str) -> None:
    (tmp_path / "secret.txt").write_text("secret")
    inside = str(three.directory).replace("'", "''")
    before = sorted(three.directory.rglob("*"))
    with pytest.raises(UserError) as refused:
        query(three, sql.format(inside=inside, outside=tmp_path / "secret.txt"))
    assert refused.value.exit_code == EXIT_USAGE
    assert "\n" not in str(refused.value)
    assert "secret\n" not in str(refused.value)
    assert sorted(three.directory.rglob("*")) == before


def test_text_that_sql_makes_is_harmless_and_that_of_guests_is_as_it_was(three: Dataset) -> None:
    answer = query(three, r"SELECT chr(27) || '[2J' AS made, 'a\x1b' AS kept")
    assert as_text(answer).splitlines()[2] == r"\x1b[2J  a\x1b"


def test_ctrl_c_ends_a_query_that_would_last_for_hours(three: Dataset) -> None:
    before = signal.signal(signal.SIGALRM, signal.default_int_handler)
    signal.setitimer(signal.ITIMER_REAL, 0.5)
    begun_s = time.monotonic()
    try:
        with pytest.raises(KeyboardInterrupt):
            query(three, "SELECT count(*) FROM range(100000000000) a, range(1000) b")
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert time.monotonic() - begun_s < 10


def test_a_spreadsheet_takes_no_text_for_a_formula(three: Dataset) -> None:
    answer = query(three, "SELECT '=1+1' AS a, ['@x', 'y'] AS b, 0.5 AS c")
    assert as_csv(answer) == "a,b,c\n'=1+1,\"'@x, y\",0.5"
    assert json.loads(as_json(answer)) == [{"a": "=1+1", "b": ["@x", "y"], "c": 0.5}]
