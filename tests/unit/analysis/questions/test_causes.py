# SPDX-License-Identifier: Apache-2.0
"""Causes, the driver's behaviour and the finding built on them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from balloontrace.analysis.report import Report, build
from balloontrace.analysis.text.report import report_text
from tests.unit.builders import (
    KSWAPD_TID,
    RECORDER_PID,
    Built,
    ns,
    shrinker_like,
    stock_like,
    vmstat,
)


def report_of(built: Built, tmp_path: Path) -> Report:
    return build(built.write(tmp_path / "r.btrace"))


def causes(built: Built, tmp_path: Path) -> list[tuple[str, str, int, int]]:
    rows = report_of(built, tmp_path).results["causes"].tables["causes"]
    return [(row["cause"], row["actor"], row["calls"], row["pages"]) for row in rows]


def test_what_left_while_nothing_was_traced_is_not_denied(tmp_path: Path) -> None:
    built = Built().target(1, 256, 0).fill(1, 0.1, 256)
    built.gone(10, vmstat(256)).attached(20, vmstat(256, 256)).ends(30, vmstat(256, 256))
    report = report_of(built, tmp_path)
    lacks = "not counted: 256 out while the driver was not traced"
    assert report.results["causes"].notes == [lacks]
    text = report_text(report)
    assert "nothing was taken out of the balloon while it was traced" in text
    assert lacks in text


def test_every_cause_and_actor(tmp_path: Path) -> None:
    built = Built(base=10_000)
    leaks: list[tuple[int, dict[str, Any]]] = [
        (1, {"within": "worker leak"}),
        (2, {"within": "scan leak", "tid": KSWAPD_TID, "comm": b"kswapd0"}),
        (4, {"within": "worker scan leak"}),
        (8, {"within": "scan leak", "tid": 900, "comm": b"cat"}),
        (16, {"within": "oom leak", "tid": 901, "comm": b"stress"}),
        (32, {"within": "remove leak", "tid": 902, "comm": b"rmmod"}),
        (64, {"within": "freeze leak", "tid": 903, "comm": b"systemd-sleep"}),
        (128, {"within": "leak", "tid": 904, "comm": b"who"}),
        (200, {"within": "oom leak", "tid": 99, "pid": RECORDER_PID, "comm": b"python3"}),
    ]
    for at, (pages, fields) in enumerate(leaks):
        built.leak(at, 0.5, pages, **fields)
    built.leak(20, 0.25, 1, within="scan leak", tid=905, comm=b"cat")
    assert causes(built.ends(30), tmp_path) == [
        ("oom", "the recorder itself", 1, 200),
        ("unknown", "who", 1, 128),
        ("freeze", "systemd-sleep", 1, 64),
        ("remove", "rmmod", 1, 32),
        ("oom", "stress", 1, 16),
        ("shrinker", "cat", 2, 9),
        ("shrinker", "the balloon's own inflation", 1, 4),
        ("shrinker", "kswapd", 1, 2),
        ("host", "size worker", 1, 1),
    ]


def test_a_task_s_name_does_not_make_it_kswapd(tmp_path: Path) -> None:
    built = Built(base=100).leak(1, 0.1, 5, within="scan leak", tid=7, comm=b"kswapd")
    (row,) = report_of(built.ends(2), tmp_path).results["causes"].tables["causes"]
    assert (row["actor"], row["actor_kind"]) == ("kswapd", "task")


def test_busy_time_of_an_open_leak_lasts_to_the_end(tmp_path: Path) -> None:
    built = Built(base=100).leak(1, None, 0, within="scan leak", tid=7, comm=b"x").ends(4)
    (row,) = report_of(built, tmp_path).results["causes"].tables["causes"]
    assert (row["busy_s"], row["calls"], row["pages"]) == (3.0, 1, 0)


def test_names_longer_than_a_word_are_told_apart(tmp_path: Path) -> None:
    built = Built(base=100)
    for at, comm in enumerate([b"same-eight-A", b"same-eight-B", b"same-eight-A", b""]):
        built.leak(at, 0.1, 1, within="scan leak", tid=7, comm=comm)
    found = causes(built.ends(9), tmp_path)
    assert sorted(found) == [
        ("shrinker", "", 1, 1),
        ("shrinker", "same-eight-A", 2, 2),
        ("shrinker", "same-eight-B", 1, 1),
    ]


@pytest.mark.parametrize(
    ("features", "symbols", "expected"),
    [
        (["deflate_on_oom"], ["virtio_balloon_oom_notify"], "oom-notifier"),
        (
            ["deflate_on_oom"],
            ["virtio_balloon_oom_notify", "virtio_balloon_shrinker_scan"],
            "oom-notifier",
        ),
        (["deflate_on_oom"], ["virtio_balloon_shrinker_scan"], "shrinker"),
        ([], ["virtio_balloon_oom_notify", "virtio_balloon_shrinker_scan"], "none"),
        (["deflate_on_oom"], [], "none"),
    ],
)
def test_behaviour_by_symbols_and_features(
    tmp_path: Path, features: list[str], symbols: list[str], expected: str
) -> None:
    built = Built().ends(1)
    built.header["balloon"]["features"] = features
    built.header["balloon"]["driver"]["symbols"] = symbols
    assert report_of(built, tmp_path).results["guest"].scalars["driver_behaviour"] == expected


@pytest.mark.parametrize(
    ("base", "offered", "features", "expected"),
    [
        (1000, 1000, ["deflate_on_oom"], "shrinker"),
        (0, 1000, ["deflate_on_oom"], "oom-notifier"),  # an empty balloon offers nothing of its own
        (1000, 0, ["deflate_on_oom"], "oom-notifier"),
        (1000, 1024, ["deflate_on_oom", "free_page_hint"], "oom-notifier"),  # hinted blocks
    ],
)
def test_behaviour_by_what_the_shrinker_offers(
    tmp_path: Path, base: int, offered: int, features: list[str], expected: str
) -> None:
    built = Built(base=base).call("count", 1, 0.001, 0, offered).ends(2)
    built.header["balloon"]["features"] = features
    assert report_of(built, tmp_path).results["guest"].scalars["driver_behaviour"] == expected


def test_a_leak_by_reclaim_outweighs_the_symbols(tmp_path: Path) -> None:
    built = Built(base=100).leak(1, 0.1, 5, within="scan leak", tid=KSWAPD_TID).ends(2)
    assert report_of(built, tmp_path).results["guest"].scalars["driver_behaviour"] == "shrinker"


def test_busy_no_op_is_found_with_its_evidence(tmp_path: Path) -> None:
    findings = report_of(shrinker_like(rounds=400), tmp_path).results["findings"]
    (row,) = findings.tables["findings"]
    assert (row["id"], row["severity"]) == ("busy-no-op", "high")
    assert row["evidence"]["inflated_pages"] == 500 * 256
    assert row["evidence"]["reclaimed_pages"] == 400 * 256
    assert row["evidence"]["gained_pages"] == 100 * 256
    assert row["evidence"]["reclaimed_share"] == 0.8
    assert row["evidence"]["longest_no_progress_s"] == 41.0
    assert [who["actor"] for who in row["evidence"]["reclaimed_by"]] == [
        "kswapd",
        "the balloon's own inflation",
        "task cat",
    ]
    assert "da10329cb057" in row["remedy"]
    assert row["certainty"] == "high"


def test_no_finding_on_a_clean_inflate_and_deflate(tmp_path: Path) -> None:
    findings = report_of(stock_like(), tmp_path).results["findings"]
    assert findings.tables["findings"] == []
    # There are no samples, in which swap would be seen.
    assert findings.scalars["unchecked"].keys() == {"swapped-by-inflation"}


@pytest.mark.parametrize(("reclaimed", "found"), [(9, 0), (10, 1)])
def test_busy_no_op_begins_at_its_thresholds(tmp_path: Path, reclaimed: int, found: int) -> None:
    # 40 chunks in, 9 or 10 taken back: a quarter, and ten chunks.
    built = Built().target(0, 100_000)
    for i in range(40):
        built.fill(i, 0.1, 256)
        if i < reclaimed:
            built.leak(i + 0.5, 0.1, 256, within="scan leak", tid=KSWAPD_TID)
    findings = report_of(built.ends(45), tmp_path).results["findings"]
    assert len(findings.tables["findings"]) == found


def test_deflation_the_host_asked_for_is_not_a_no_op(tmp_path: Path) -> None:
    built = Built().target(0, 25_600)
    for i in range(50):
        built.fill(i, 0.1, 256)
    built.target(50, 0)
    for i in range(50):
        built.leak(50 + i, 0.1, 256, within="worker leak")
    findings = report_of(built.ends(105), tmp_path).results["findings"]
    assert findings.tables["findings"] == []


def test_the_control_groups_of_who_took_pages(tmp_path: Path) -> None:
    built = Built().target(0, 4096, 0).fill(1, 1, 4096)
    for at, tid, comm in ((3, 70, b"java"), (4, 71, b"java"), (5, 72, b"go"), (6, 73, b"sh")):
        built.leak(at, 0.1, 256, within="scan leak", tid=tid, comm=comm)
    for tids in ({"70": "/a/b.service", "72": "/docker/c1"}, {"71": "/a/d.service"}):
        built.samples.append({"t_ns": ns(7), "cgroups": tids})
    report = build(built.ends(9).write(tmp_path / "r.btrace"))
    rows = {row["actor"]: row["cgroups"] for row in report.results["causes"].tables["causes"]}
    assert rows == {"java": ["/a/b.service", "/a/d.service"], "go": ["/docker/c1"], "sh": []}
    text = report_text(report)
    assert "task java (in 2 control groups)" in text
    assert "task go (c1)" in text
    assert "task sh " in text
