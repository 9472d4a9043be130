# SPDX-License-Identifier: Apache-2.0
"""Known numbers in, the same numbers out."""

from __future__ import annotations

import math
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from balloontrace.fleet.dataset import Dataset
from balloontrace.fleet.labels import Labels
from balloontrace.fleet.overview import NOT_KNOWN, Overview, fleet_of, overview_of
from tests.unit.fleet.datasets import dataset, episode, failure, finding, guest


def overview(path: Path, labels: Labels | None = None) -> Overview:
    return overview_of(fleet_of(Dataset.there(path), labels))


def spread_of(said: Overview, measure: str, group: str, by: str = "kernel") -> dict[str, Any]:
    (row,) = [
        row
        for row in said.distributions
        if (row["measure"], row["by"], row["group"]) == (measure, by, group)
    ]
    return row


def test_findings_are_shares_of_those_in_which_they_were_looked_for(tmp_path: Path) -> None:
    guests = [guest(f"/a{n}", kernel="6.1", findings=int(n < 3)) for n in range(8)]
    guests += [guest(f"/b{n}", kernel="5.10", checked=["churn"]) for n in range(4)]
    guests += [guest("/c", checked=[], findings=0)]
    found = [finding(f"/a{n}", "host-slow") for n in range(3)]
    found.append(finding("/a0", "host-slow"))  # twice in one recording counts once
    said = overview(dataset(tmp_path / "d", guest=guests, finding=found))
    slow, churn = said.findings
    assert (slow["id"], slow["recordings"], slow["looked_for"]) == ("host-slow", 3, 8)
    assert slow["not_looked_for"] == 5
    assert slow["share"] == 3 / 8
    assert 0.1 < slow["low"] < 3 / 8 < slow["high"] < 0.75
    assert (churn["id"], churn["recordings"], churn["looked_for"]) == ("churn", 0, 12)
    assert [(row["id"], row["kernel"], row["recordings"]) for row in said.by_kernel] == [
        ("host-slow", "6.1", 3)
    ]
    assert said.totals["found"] == 3


def test_distributions_count_what_is_not_known_and_leave_it_out(tmp_path: Path) -> None:
    guests = [guest(f"/a{n}", kernel="6.1", no_progress_s=float(n)) for n in range(100)]
    guests += [guest("/b", kernel="6.1"), guest("/c", no_progress_s=7.0, day=date(2026, 11, 28))]
    said = overview(dataset(tmp_path / "d", guest=guests))
    row = spread_of(said, "no_progress_s", "6.1")
    assert (row["recordings"], row["known"]) == (101, 100)
    quantiles = ("least", "median", "p90", "p99", "most")
    assert tuple(row[key] for key in quantiles) == (0, 49, 89, 98, 99)
    assert spread_of(said, "no_progress_s", NOT_KNOWN)["median"] == 7
    assert spread_of(said, "host_ack_p99_s", "6.1")["median"] is None
    assert spread_of(said, "no_progress_s", "2026-11-28", "day")["recordings"] == 1


def test_a_recording_that_gained_nothing_is_worse_than_any_number(tmp_path: Path) -> None:
    moved = {"inflated_pages": 512, "deflated_pages": 512}
    guests = [guest(f"/{name}", kernel="6.1", episodes=1) for name in ("nothing", "lost", "idle")]
    guests.append(guest("/more", kernel="6.1", episodes=17))  # than the table keeps
    guests.append(guest("/known", kernel="6.1", episodes=1, amplification=2.0))
    episodes = [
        episode("/nothing", **moved),
        episode("/lost", events_missing=True, **moved),
        episode("/idle", inflated_pages=0, deflated_pages=0),
        episode("/more", **moved),
        episode("/known", **moved),
    ]
    said = overview(dataset(tmp_path / "d", guest=guests, episode=episodes))
    row = spread_of(said, "amplification", "6.1")
    assert (row["recordings"], row["known"], row["gained_nothing"]) == (5, 2, 1)
    assert (row["least"], row["most"]) == (2.0, math.inf)


def test_trust_needs_every_witness(tmp_path: Path) -> None:
    guests = [
        guest("/good"),
        guest("/also", sums_agree=True),
        guest("/disagrees", agrees=False),
        guest("/cut", complete=False, lost_events=None),
        guest("/lost", lost_events=3),
        guest("/sums", sums_agree=False),
        guest("/unknown", agrees=None),
        guest("/no-trailer", lost_events=None),
    ]
    trust = overview(dataset(tmp_path / "d", guest=guests)).trust
    assert (trust["trusted"], trust["doubtful"], trust["not_known"]) == (2, 4, 2)
    assert trust["agrees"] == {"yes": 6, "no": 1, "not_known": 1}
    assert trust["nothing_lost"] == {"yes": 5, "no": 1, "not_known": 2}
    assert trust["sums_agree"] == {"yes": 1, "no": 1, "not_known": 6}


def test_the_worst_come_first_and_those_in_order_not_at_all(tmp_path: Path) -> None:
    guests = [
        guest("/fine", longest_no_progress_s=0.5),
        guest("/slow", longest_no_progress_s=9.0),
        guest("/memcg", findings=1, longest_no_progress_s=None),
        guest("/blamed", findings=1, host_name="web-1", oom_kills=2),
        guest("/twice", findings=2),
    ]
    found = [
        finding("/memcg", "memcg-oom", blames_balloon=False),
        finding("/blamed", "churn"),
        *(finding("/twice", name) for name in ("churn", "host-slow")),
    ]
    said = overview(dataset(tmp_path / "d", guest=guests, finding=found))
    assert [row["source"] for row in said.worst] == ["/twice", "/blamed", "/slow", "/memcg"]
    assert said.worst[0]["findings"] == ["churn", "host-slow"]
    assert (said.worst[1]["host_name"], said.worst[1]["oom_kills"]) == ("web-1", 2)
    assert said.worst[3]["longest_no_progress_s"] is None


def test_failures_by_kind_with_the_reason_of_one(tmp_path: Path) -> None:
    failures = [failure(f"/{n}", "unreadable", f"no recording {n}") for n in range(3)]
    failures.append(failure("/z", "memory", "took 2 GiB"))
    said = overview(dataset(tmp_path / "d", failure=failures))
    assert [(row["kind"], row["recordings"], row["reason"]) for row in said.failures] == [
        ("unreadable", 3, "no recording 0"),
        ("memory", 1, "took 2 GiB"),
    ]
    assert said.totals["failures"] == 4


def test_an_empty_dataset_knows_nothing(tmp_path: Path) -> None:
    said = overview(dataset(tmp_path / "d"))
    assert said.totals["recordings"] == 0
    assert said.totals["first_day"] is None
    assert said.findings == said.worst == said.failures == []
    assert {row["median"] for row in said.distributions} == {None}


def test_boots_and_kills_that_are_not_known_are_said(tmp_path: Path) -> None:
    guests = [
        guest("/a", boot_id="1", oom_kills=2),
        guest("/b", boot_id="1", oom_kills=3),
        guest("/c"),
    ]
    totals = overview(dataset(tmp_path / "d", guest=guests)).totals
    assert (totals["boots"], totals["boots_not_known"]) == (1, 1)
    assert (totals["oom_kills"], totals["oom_kills_not_known"]) == (5, 1)


def test_drivers_are_told_apart_by_behaviour_and_version(tmp_path: Path) -> None:
    guests = [
        guest("/a", driver_behaviour="shrinker", driver_version="B3"),
        guest("/b", driver_behaviour="shrinker"),
        guest("/c", driver_version="B3"),
        guest("/d"),
    ]
    said = overview(dataset(tmp_path / "d", guest=guests))
    groups = {row["group"] for row in said.distributions if row["by"] == "driver"}
    assert groups == {"shrinker, B3", "shrinker", "B3", NOT_KNOWN}


def test_labels_are_joined_and_counted(tmp_path: Path) -> None:
    guests = [
        guest("/a", host_name="web-1", findings=1, is_balloon=True, no_progress_s=4.0),
        guest("/b", host_name="web-1", is_balloon=None, agrees=False),
        guest("/c", host_name="db-1", hypervisor="firecracker"),
        guest("/d", host_name="nobody"),
        guest("/e"),
    ]
    labels = Labels(
        "host_name",
        ("zone", "hypervisor"),
        {"web-1": ("north", "qemu"), "db-1": (None, "qemu"), "gone": ("south", None)},
    )
    said = overview(dataset(tmp_path / "d", guest=guests), labels)
    zones = [row for row in said.labels if row["label"] == "zone"]
    assert [(row["value"], row["recordings"]) for row in zones] == [("north", 2), (NOT_KNOWN, 3)]
    north = zones[0]
    assert (north["found"], north["trusted"], north["no_progress_s"]) == (1, 1, 4.0)
    assert north["is_balloon"] == {"yes": 1, "no": 0, "not_known": 1}
    assert said.totals["unlabelled"] == 2
    # A label goes before what the recording says of the hypervisor.
    groups = {
        row["group"]: row["recordings"]
        for row in said.distributions
        if (row["measure"], row["by"]) == ("no_progress_s", "hypervisor")
    }
    assert groups == {"qemu": 3, NOT_KNOWN: 2}


@pytest.mark.parametrize("name", ["guest", "finding"])
def test_rows_of_an_earlier_reading_do_not_count(tmp_path: Path, name: str) -> None:
    rows = {"guest": [guest("/a", findings=1)], "finding": [finding("/a", "churn")]}
    rows[name] = rows[name] + [rows[name][0] | {"batch": "older"}]
    said = overview(dataset(tmp_path / "d", **rows))
    assert said.totals["recordings"] == 1
    assert said.worst[0]["findings"] == ["churn"]
