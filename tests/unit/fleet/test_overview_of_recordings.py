# SPDX-License-Identifier: Apache-2.0
"""From recordings in known numbers, through the run, to the overview: the same numbers."""

from __future__ import annotations

from collections import Counter
from datetime import date, timedelta
from pathlib import Path

import pytest

from balloontrace.fleet.dataset import Dataset
from balloontrace.fleet.one import rows_of
from balloontrace.fleet.overview import fleet_of, overview_of
from balloontrace.recording.reader import read_recording
from tests.unit.command_line import balloontrace
from tools.fleet_recordings import DATA, KINDS, Kind, content, make, plan

NUMBER = 100


def test_the_shares_are_of_everything() -> None:
    assert sum(kind.share for kind in KINDS) == pytest.approx(1)
    made = plan(1000, 1)
    assert Counter(one.kind for one in made) == {kind.name: 1000 * kind.share for kind in KINDS}
    assert made == plan(1000, 1) != plan(1000, 2)
    assert len({one.boot_id for one in made}) == 1000


def test_the_overview_says_what_was_made(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = make(tmp_path / "in", NUMBER, 18)
    balloontrace("fleet", tmp_path / "in", "-o", tmp_path / "d", "--workers", "1")
    capsys.readouterr()
    said = overview_of(fleet_of(Dataset.there(tmp_path / "d")))
    readable = [one for one in made if one.readable]
    assert said.totals["recordings"] == said.totals["boots"] == len(readable) == 97
    assert [(row["kind"], row["recordings"]) for row in said.failures] == [("unreadable", 3)]
    found = {row["id"]: row["recordings"] for row in said.findings if row["recordings"]}
    assert found == Counter(name for one in readable for name in one.findings)
    by_kernel = {(row["id"], row["kernel"]): row["recordings"] for row in said.by_kernel}
    assert by_kernel == Counter((name, one.kernel) for one in readable for name in one.findings)
    for by, groups in (
        ("kernel", Counter(one.kernel for one in readable)),
        ("day", Counter(str(date(2026, 11, 1) + timedelta(one.day)) for one in readable)),
    ):
        shown = {
            row["group"]: row["recordings"]
            for row in said.distributions
            if (row["measure"], row["by"]) == ("no_progress_s", by)
        }
        assert shown == groups
    cut = [one for one in readable if not one.complete]
    assert said.trust["complete"] == {"yes": 97 - len(cut), "no": len(cut), "not_known": 0}
    assert said.trust["nothing_lost"]["not_known"] == len(cut) == 7


@pytest.mark.parametrize(
    "kind", [kind for kind in KINDS if kind.readable], ids=lambda kind: kind.name
)
def test_one_of_a_mebibyte_says_the_same_as_its_original(tmp_path: Path, kind: Kind) -> None:
    made = next(one for one in plan(1000, 1) if one.kind == kind.name)
    path = tmp_path / "a.btrace"
    small, large = content(made), content(made, 1 << 20)
    assert len(large) == pytest.approx(1 << 20, rel=0.1)
    rows = []
    for data in (small, large):
        path.write_bytes(data)
        rows.append(rows_of(str(path), date(2000, 1, 1)))
        assert not read_recording(str(path)).damage
    assert rows[0] == rows[1]
    original = rows_of(str(DATA / kind.original), date.min)
    told = {"day", "begin_utc", "kernel", "host_name", "boot_id"}
    assert rows[0].guest["kernel"] == made.kernel
    assert tuple(sorted(row["id"] for row in rows[0].findings)) == made.findings
    if made.complete:
        same = rows[0].guest.keys() - told
        assert {k: rows[0].guest[k] for k in same} == {k: original.guest[k] for k in same}
