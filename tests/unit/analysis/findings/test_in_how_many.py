# SPDX-License-Identifier: Apache-2.0
"""A finding says for how many episodes it holds, not only of the worst one."""

from __future__ import annotations

from pathlib import Path

import pytest

from balloontrace.analysis.findings.base import in_how_many
from balloontrace.analysis.report import build
from tests.unit.builders import KSWAPD_TID, Built


def no_ops(hit: int, of: int) -> Built:
    """Inflations of 10,240 pages, of which reclaim takes 5,120 back in the last `hit`."""
    built = Built()
    for number in range(of):
        at = 1 + 4 * number
        built.target(at, 10_240, 0)
        if number >= of - hit:
            built.fill(at, 0.5, 5120)
            built.leak(at + 0.6, 0.1, 5120, within="scan", tid=KSWAPD_TID, comm=b"kswapd0")
        built.fill(at + 1, 0.5, 5120).fill(at + 1.5, 0.1, 5120)
        built.target(at + 2, 0, 10_240).leak(at + 2, 0.5, 10_240)
    return built.ends(4 * of + 2)


def test_a_busy_no_op_in_three_of_five_inflations(tmp_path: Path) -> None:
    (row,) = build(no_ops(3, 5).write(tmp_path / "r.btrace")).results["findings"].tables["findings"]
    assert (row["evidence"]["episodes"], row["evidence"]["of_episodes"]) == (3, 5)
    assert row["summary"].startswith("In 3 of 5 inflations; the worst: Episode ")


def test_slow_waits_in_two_of_four_episodes(tmp_path: Path) -> None:
    built = Built()
    for number in range(4):
        at, took = 1 + 10 * number, 4 if number < 2 else 0.001
        built.target(at, 256 * (number + 1), 256 * number)
        built.ack(at, took, 256, "inflate", "worker").fill(at, took + 0.01, 256)
    (row,) = (
        build(built.ends(50).write(tmp_path / "r.btrace")).results["findings"].tables["findings"]
    )
    assert (row["id"], row["evidence"]["slow_acks"]) == ("slow-host-ack", 2)
    assert "They were in 2 of 4 episodes." in row["summary"]


@pytest.mark.parametrize(
    ("hit", "of", "targets", "said"),
    [
        (1, 1, 0, ""),
        (0, 3, 1, ""),
        (1, 60, 0, "In 1 of 60 inflations: "),
        (41, 60, 0, "In 41 of 60 inflations; the worst: "),
        (2, 3, 1, "In 2 of 3 inflations and under a target that had been reached; the worst: "),
        (0, 3, 2, "Under 2 targets that had been reached; the worst: "),
    ],
)
def test_in_words(hit: int, of: int, targets: int, said: str) -> None:
    assert in_how_many(hit, of, "inflations", targets) == said
