# SPDX-License-Identifier: Apache-2.0
"""Episodes and progress, against answers worked out by hand and by a plain loop."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from balloontrace.analysis.questions.episodes import progress_edges
from balloontrace.analysis.report import build
from balloontrace.analysis.text.report import report_text
from balloontrace.events import UNKNOWN_PAGES
from tests.unit.builders import KSWAPD_TID, Built, between_pages, stock_like, vmstat


def episodes(built: Built, tmp_path: Path) -> list[dict[str, Any]]:
    result = build(built.write(tmp_path / "r.btrace")).results["episodes"]
    assert not result.missing
    return result.tables["episodes"]


def test_ideal_inflate_and_deflate(tmp_path: Path) -> None:
    up, down = episodes(stock_like(chunks=400), tmp_path)
    assert up == {
        "kind": "target",
        "start_s": 1.0,
        "end_s": 5.0,
        "direction": "inflate",
        "target_pages": 102_400,
        "start_pages": 0,
        "end_pages": 102_400,
        "asked_pages": 102_400,
        "outcome": "reached",
        "left": 0,
        "begun_by": "target",
        "ended_by": None,
        "inflated_pages": 102_400,
        "deflated_pages": 0,
        "reclaimed_pages": 0,
        "gained_pages": 102_400,
        "unseen_pages": 0,
        "amplification": 1.0,
        "churn_ratio": 0.0,
        "moved_gib_per_s": 102_400 / 2**18 / 4,
        "net_gib_per_s": 102_400 / 2**18 / 4,
        "longest_no_progress_s": 0.01,
        "no_progress": [],
        "events_missing": False,
        "driver_busy_s": 2.8,  # of each 0.01 s the host took 0.003
        "driver_busy_share": 0.7,
        **dict.fromkeys(("psi_some_s", "psi_full_s", "psi_span_s")),
        "sleeps": 0,
        "sleep_s": 0.0,
        "first_sleep_s": None,
    }
    assert (down["direction"], down["outcome"], down["deflated_pages"]) == (
        "deflate",
        "reached",
        102_400,
    )
    assert (down["start_s"], down["end_s"]) == (7.0, 9.0)
    assert down["longest_no_progress_s"] == 0.005


def test_a_loss_that_is_made_good_is_no_progress(tmp_path: Path) -> None:
    # 512 at 2 s, 256 at 3 s, 512 again at 4 s: the mark advances only at 7 s.
    built = Built().target(1, 768).fill(1, 1, 512)
    built.leak(2.5, 0.5, 256, within="scan leak", tid=KSWAPD_TID)
    built.fill(3.5, 0.5, 256).fill(6, 1, 256).ends(9)
    (row,) = episodes(built, tmp_path)
    assert row["outcome"] == "reached"
    assert row["end_s"] == 7.0
    assert (row["inflated_pages"], row["deflated_pages"]) == (1024, 256)
    assert row["reclaimed_pages"] == 256
    assert row["amplification"] == pytest.approx(1024 / 768)
    assert row["churn_ratio"] == pytest.approx(1 - 768 / 1280)
    assert row["longest_no_progress_s"] == 5.0
    assert row["no_progress"] == [
        {"start_s": 1.0, "end_s": 2.0, "rest_s": 0.0},
        {"start_s": 2.0, "end_s": 7.0, "rest_s": 2.0},
    ]


def test_superseded_then_unfinished(tmp_path: Path) -> None:
    built = Built().target(1, 1000).fill(1, 0.5, 256).target(2, 500).fill(2, 0.1, 100).ends(4)
    first, second = episodes(built, tmp_path)
    assert (first["outcome"], first["start_s"], first["end_s"]) == ("superseded", 1.0, 2.0)
    assert (first["ended_by"], second["ended_by"]) == ("target", None)
    assert (first["gained_pages"], first["amplification"]) == (256, 1.0)
    assert (second["outcome"], second["end_s"]) == ("unfinished", 4.0)
    assert second["asked_pages"] == 244
    assert second["longest_no_progress_s"] == pytest.approx(1.9)


def test_direction_follows_from_the_size_at_that_time(tmp_path: Path) -> None:
    built = Built(base=5000).target(1, 4000).leak(1, 1, 1000).ends(3)
    (row,) = episodes(built, tmp_path)
    assert (row["direction"], row["start_pages"], row["outcome"]) == ("deflate", 5000, "reached")


def test_a_call_that_ends_as_a_target_is_read_belongs_to_the_time_before(tmp_path: Path) -> None:
    built = Built().target(0, 256).fill(0, 1, 256).target(1, 0).leak(1, 1, 256).ends(3)
    up, down = episodes(built, tmp_path)
    assert (up["outcome"], up["end_s"]) == ("reached", 1.0)
    assert (down["start_pages"], down["outcome"]) == (256, "reached")


def test_a_target_that_equals_the_size_is_no_episode_but_ends_one(tmp_path: Path) -> None:
    built = Built().target(1, 1000).fill(1, 1, 256).target(3, 256).ends(5)
    (row,) = episodes(built, tmp_path)
    assert (row["outcome"], row["end_s"]) == ("superseded", 3.0)


def test_a_target_between_two_pages_of_the_guest_is_met_by_the_larger_size(tmp_path: Path) -> None:
    built = between_pages().target(7, 97, 112).ends(9, vmstat(63, 56))
    rows = episodes(built, tmp_path)
    assert [row["outcome"] for row in rows] == ["reached"] * 3
    assert [row["target_pages"] for row in rows] == [100, 1001, 100]
    assert [row["asked_pages"] for row in rows] == [112, 896, 896]
    assert [row["end_pages"] for row in rows] == [112, 1008, 112]
    assert [row["end_s"] for row in rows] == [2, 4, 6]
    assert [row["amplification"] for row in rows] == [1, 1, 1]
    assert [row["left"] for row in rows] == [0, 0, 0]


def test_what_moves_after_the_target_is_reached_is_an_episode_of_its_own(tmp_path: Path) -> None:
    built = Built().target(1, 256).fill(1, 1, 256)
    built.leak(5, 0.1, 256, within="oom leak", comm=b"stress").ends(6)
    report = build(built.write(tmp_path / "r.btrace"))
    row, after = report.results["episodes"].tables["episodes"]
    assert (row["kind"], row["deflated_pages"], row["left"]) == ("target", 0, 1)
    assert (after["kind"], after["direction"], after["target_pages"]) == ("after", None, 256)
    assert (after["start_s"], after["end_s"]) == (2, 6)
    assert (after["start_pages"], after["end_pages"], after["deflated_pages"]) == (256, 0, 256)
    assert (after["outcome"], after["asked_pages"], after["churn_ratio"]) == ("unfinished", 0, 0)
    assert (after["gained_pages"], after["amplification"]) == (None, None)
    assert (after["longest_no_progress_s"], after["no_progress"]) == (None, [])
    assert report.results["totals"].scalars["deflated_pages"] == 256


@pytest.mark.parametrize(
    ("at", "outcome", "by"), [(7.5, "settled", None), (6.5, "superseded", "target")]
)
def test_a_balloon_at_rest_short_of_its_target_is_settled(
    tmp_path: Path, at: float, outcome: str, by: str | None
) -> None:
    # The last page moved at 2 s.
    built = Built().target(1, 1000, 0).fill(1, 1, 256).target(at, 0, 256).leak(at, 0.1, 256)
    first, second = episodes(built.ends(9), tmp_path)
    assert (first["outcome"], first["ended_by"]) == (outcome, by)
    assert second["outcome"] == "reached"


def test_what_was_given_back_and_taken_again_ends_at_its_target(tmp_path: Path) -> None:
    built = Built().target(1, 512, 0).fill(1, 1, 512)
    built.leak(5, 0.1, 256, within="oom leak", comm=b"stress").fill(5.5, 0.1, 256)
    _, after = episodes(built.ends(6), tmp_path)
    assert (after["outcome"], after["left"], after["churn_ratio"]) == ("reached", 1, 1)


def test_sleeps_under_a_target_that_was_reached_have_a_row(tmp_path: Path) -> None:
    built = Built().target(1, 512, 0).fill(1, 1, 512)
    built.call("sleep", 5, 0.2, 0, 0, within="worker").ends(6)
    _, after = episodes(built, tmp_path)
    assert (after["kind"], after["sleeps"]) == ("after", 1)


def test_text_names_them(tmp_path: Path) -> None:
    built = Built().target(1, 512, 0).fill(1, 1, 512).leak(5, 0.1, 256, within="oom leak", tid=70)
    said = report_text(build(built.ends(6).write(tmp_path / "r.btrace")), only=["episodes"])
    row = next(line.split() for line in said.splitlines() if " after " in line)
    assert row[:8] == ["2", "2.0", "4.0", "after", "512", "2", "unfinished", "0"]
    assert row[8:] == ["256", "-", "0.000", "-"]


def test_an_open_fill_counts_what_the_host_was_told_when_the_recording_ends(
    tmp_path: Path,
) -> None:
    built = Built().target(1, 1000).fill(2, None, 100).ends(9)
    (row,) = episodes(built, tmp_path)
    assert (row["outcome"], row["inflated_pages"], row["end_pages"]) == ("unfinished", 100, 100)
    assert row["longest_no_progress_s"] == 8.0


def test_attach_while_moving_is_settled_by_the_size_a_target_event_saw(tmp_path: Path) -> None:
    built = Built(base=1000)
    built.header["vmstat_attach"]["after"] = vmstat(1256)
    built.fill(0.1, 0.1, 256).target(1, 2000, 1256).fill(1, 1, 744).ends(3)
    (row,) = episodes(built, tmp_path)
    assert (row["start_pages"], row["outcome"]) == (1256, "reached")


def test_without_any_known_size_there_are_no_episodes(tmp_path: Path) -> None:
    built = Built().target(1, 256, UNKNOWN_PAGES).fill(1, 1, 256).ends(3)
    built.header["vmstat_attach"] = {"before": {}, "after": {}}
    result = build(built.write(tmp_path / "r.btrace")).results["episodes"]
    assert result.missing
    assert not result.tables


steps = st.lists(
    st.tuples(st.integers(0, 50), st.integers(-300, 300)),
    max_size=60,
)


@given(steps, st.integers(0, 1000), st.sampled_from([1, -1]), st.integers(0, 100))
def test_edges_equal_those_of_a_plain_loop(
    moves: list[tuple[int, int]], start_size: int, direction: int, rest: int
) -> None:
    times = np.cumsum([100, *(gap for gap, _ in moves)])[1:]
    sizes = start_size + np.cumsum([change for _, change in moves], dtype=np.int64)
    end = int(times[-1]) + rest if moves else 100 + rest
    edges = progress_edges(times, sizes, start_size, 100, end, direction)

    expected, mark = [100], start_size * direction
    for time, size in zip(times.tolist(), sizes.tolist(), strict=True):
        if size * direction > mark:
            mark = size * direction
            expected.append(time)
    assert edges.tolist() == [*expected, end]
    assert int(np.diff(edges).max()) == max(
        b - a for a, b in zip([*expected], [*expected[1:], end], strict=True)
    )


@settings(deadline=None)  # it writes files
@given(steps, st.integers(0, 2000))
@example([(0, 1)], 1000)  # it was there when the target was set
def test_an_episode_s_answers_equal_those_of_a_plain_loop(
    tmp_path_factory: pytest.TempPathFactory, moves: list[tuple[int, int]], target: int
) -> None:
    built, at, base = Built(base=20_000), 1.0, 20_000
    target += 19_000
    built.target(at, target)
    size, high, last, longest, reached = base, abs(target - base), at, 0.0, None
    for gap, change in moves:
        at = round(at + (gap + 1) / 8, 3)
        (built.fill if change > 0 else built.leak)(at, 0.0, abs(change))
        size += change
        if reached is None and target != base:
            remaining = (target - size) if target > base else (size - target)
            if remaining < high:
                longest, last, high = max(longest, at - last), at, remaining
            if remaining <= 0:
                reached = at
    end = at + 1
    rows = episodes(built.ends(end), tmp_path_factory.mktemp("r"))
    if target == base:
        assert {one["kind"] for one in rows} <= {"after"}
        assert sum(one["inflated_pages"] - one["deflated_pages"] for one in rows) == size - base
        return
    row, *after = rows
    assert [one["kind"] for one in after] == ["after"] * bool(reached and at > reached)
    assert row["outcome"] == ("unfinished" if reached is None else "reached")
    assert row["end_s"] == pytest.approx(end if reached is None else reached)
    longest = longest if reached is not None else max(longest, end - last)
    assert row["longest_no_progress_s"] == pytest.approx(longest)
