# SPDX-License-Identifier: Apache-2.0
"""Against an earlier dataset: what is sure is said, and nothing else."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest

from balloontrace.fleet.changes import BETTER, NO_CLAIM, TOO_FEW, WORSE, Changes, changes_of, claims
from balloontrace.fleet.dataset import Dataset
from balloontrace.fleet.overview import Fleet, fleet_of
from tests.unit.fleet.datasets import Row, dataset, finding, guest


def fleet(path: Path, guests: list[Row], found: list[Row] | None = None) -> Fleet:
    return fleet_of(Dataset.there(dataset(path, guest=guests, finding=found or [])))


def of_kernel(kernel: str, values: list[float], **more: Any) -> list[Row]:
    return [
        guest(f"/{kernel}/{n}", kernel=kernel, no_progress_s=value, **more)
        for n, value in enumerate(values)
    ]


def verdict(changes: Changes, kernel: str, what: str = "no_progress_s") -> str:
    (row,) = [row for row in changes.rows if (row["kernel"], row["what"]) == (kernel, what)]
    return str(row["verdict"])


def test_what_is_sure_is_said_by_kernel(tmp_path: Path) -> None:
    steady = [n / 10 for n in range(40)]
    earlier = [*of_kernel("6.1", steady), *of_kernel("6.12", [9 + v for v in steady])]
    now = [*of_kernel("6.1", [9 + v for v in steady]), *of_kernel("6.12", steady)]
    earlier += of_kernel("5.10", steady)
    now += of_kernel("5.10", [v + 0.2 for v in steady])
    changes = changes_of(fleet(tmp_path / "a", earlier), fleet(tmp_path / "b", now))
    assert verdict(changes, "6.1") == WORSE
    assert verdict(changes, "6.12") == BETTER
    assert verdict(changes, "5.10") == NO_CLAIM
    assert verdict(changes, "all") == NO_CLAIM
    first, second = claims(changes)
    assert (first["kernel"], second["kernel"]) == ("6.1", "6.12")
    assert first["ratio"] == pytest.approx((9 + 1.95) / 1.95)
    assert first["earlier"]["low"] < first["earlier"]["value"] < first["earlier"]["high"]
    assert first["earlier"]["high"] < first["now"]["low"]


def test_few_recordings_are_no_claim_however_different(tmp_path: Path) -> None:
    sides = [fleet(tmp_path / str(n), of_kernel("6.1", [float(n)] * 5)) for n in (0, 1000)]
    changes = changes_of(*sides)
    assert verdict(changes, "6.1") == TOO_FEW
    assert claims(changes) == []


def test_from_nothing_to_something_is_worse_and_has_no_ratio(tmp_path: Path) -> None:
    sides = [fleet(tmp_path / str(n), of_kernel("6.1", [float(n)] * 20)) for n in (0, 5)]
    row = claims(changes_of(*sides))[-1]
    assert (row["verdict"], row["ratio"]) == (WORSE, None)


def test_shares_of_findings_are_compared_where_they_were_looked_for(tmp_path: Path) -> None:
    guests = of_kernel("6.1", [0.0] * 100)
    few = [finding(f"/6.1/{n}", "churn") for n in range(2)]
    many = [finding(f"/6.1/{n}", "churn") for n in range(40)]
    sides = fleet(tmp_path / "a", guests, few), fleet(tmp_path / "b", guests, many)
    changes = changes_of(*sides)
    assert verdict(changes, "6.1", "churn") == WORSE
    assert {row["what"] for row in changes.rows} == {"no_progress_s", "churn"}
    unsought = of_kernel("6.1", [0.0] * 100, checked=["host-slow"])
    later = fleet(tmp_path / "c", unsought)
    assert {row["what"] for row in changes_of(sides[1], later).rows} == {"no_progress_s"}


def test_two_halves_of_one_fleet_are_no_claim(tmp_path: Path) -> None:
    # With 95 % for each of 31 comparisons, one or two would be claimed by chance now and then.
    chance = random.Random(18)
    for attempt in range(3):
        sides = [
            fleet(
                tmp_path / f"{attempt}{side}",
                [
                    row
                    for kernel in range(30)
                    for row in of_kernel(f"6.{kernel}", [chance.expovariate(1) for _ in range(30)])
                ],
            )
            for side in "ab"
        ]
        assert claims(changes_of(*sides)) == []


def test_kernels_of_one_side_and_other_readers_are_named(tmp_path: Path) -> None:
    earlier = of_kernel("6.1", [1.0] * 20)
    now = of_kernel("6.12", [1.0] * 20, analysed_by="0.2.0")
    changes = changes_of(fleet(tmp_path / "a", earlier), fleet(tmp_path / "b", now))
    assert (changes.only_now, changes.only_earlier) == (["6.12"], ["6.1"])
    assert changes.versions == {"earlier": ["0.1.0"], "now": ["0.2.0"]}
    assert {row["kernel"] for row in changes.rows} == {"all"}
