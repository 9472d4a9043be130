# SPDX-License-Identifier: Apache-2.0
"""The lab's scenarios, run as a user runs them: `balloontrace lab run`."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from balloontrace.lab.hostlog import SAMPLE_INTERVAL_S
from balloontrace.lab.scenario import SCENARIOS_DIRECTORY
from balloontrace.recording.reader import read_recording
from tests.guest.conftest import report_of
from tests.guest.guests import Guests

PAGES_PER_GIB = 1 << 18


def balloontrace(*arguments: str, **environment: str) -> str:
    """Run the command line; returns its stdout."""
    command = [sys.executable, "-m", "balloontrace", *arguments]
    done = subprocess.run(
        command, stdout=subprocess.PIPE, text=True, check=True, env=os.environ | environment
    )
    return done.stdout


def host_events(path: Path) -> list[dict[str, Any]]:
    """The host's view of a run."""
    return [json.loads(line) for line in path.read_text().splitlines()]


def whole_report(path: Path, *, slow_host: bool = False) -> dict[str, Any]:
    """The report of a recording that lost nothing and equals /proc/vmstat to the page.

    A slow host in it is one by the host's own log, too, unless the scenario makes one: between
    two slow discards its lock is free.
    """
    report = report_of(read_recording(str(path)))
    assert report["complete"] is True
    assert report["lost_events"] == 0
    assert report["reconciliation"]["agrees"] is True
    assert report["reconciliation"]["exact"] is True
    for found in report["findings"]:
        if found["id"] == "slow-host-ack" and not slow_host:
            late_s = late_answers(path.with_name(f"{path.stem}.host.jsonl"))
            assert late_s >= found["evidence"]["slow_s"] / 2, "QEMU itself answered in time"
    return report


def ids_of(report: dict[str, Any]) -> set[str]:
    """The findings of a whole_report, but for a slow host: where several guests share two CPUs,
    that may be true, and whole_report has asked the host."""
    return {finding["id"] for finding in report["findings"]} - {"slow-host-ack"}


def late_answers(path: Path) -> float:
    """Seconds by which QEMU's own answers came late, in all: a second witness of a slow host.

    path: of the host's log. QEMU takes the balloon's pages, and answers, under one lock.
    """
    times_s: list[float] = [e["t_ns"] / 1e9 for e in host_events(path) if e["event"] == "actual"]
    return sum(max(0.0, b - a - SAMPLE_INTERVAL_S - _SAMPLING_S) for a, b in pairwise(times_s))


_SAMPLING_S = 0.05
"""What a sample takes of a machine that is busy."""


def both_sides(path: Path) -> dict[str, Any]:
    """What the report of a run says with the host's view, which it uses by itself."""
    report: dict[str, Any] = json.loads(balloontrace("report", str(path), "--json"))
    assert report["host_side"]["causal"] is not False
    assert report["host_side"]["clock_pairs"] >= 2
    return report


NO_OP_S = 25
"""Of the busy no-op, which never ends by itself; the scenario has longer, for machines that are
slow to get there with the stock driver."""


@pytest.fixture
def founding(all_guests: Guests, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The founding experiment at 1 GiB, both drivers; returns the directory of its files."""

    def run() -> Path:
        out = tmp_path_factory.mktemp("founding")
        scenario = tmp_path_factory.mktemp("shorter") / "page-cache.toml"
        steps = (SCENARIOS_DIRECTORY / scenario.name).read_text()
        scenario.write_text(steps.replace("limit_s = 60", f"limit_s = {NO_OP_S}"))
        for name, driver in (("page-cache", "stock"), (str(scenario), "shrinker")):
            arguments = ("--driver", driver, "--memory", "1G", "--out", str(out))
            balloontrace("lab", "run", name, *arguments)
        return out

    return all_guests.prepared("founding", run)


def test_idle_moves_every_page_once_and_leaves_nothing_behind(tmp_path: Path) -> None:
    with tempfile.TemporaryDirectory() as temporary:  # tmp_path is too long for ssh's socket
        balloontrace("lab", "run", "idle", "--out", str(tmp_path), TMPDIR=temporary)
        assert os.listdir(temporary) == []  # no disk, socket or log of its guest
    report = whole_report(tmp_path / "idle-stock.btrace")
    assert ids_of(report) == set()
    assert report["findings_unchecked"] == {}
    assert {episode["outcome"] for episode in report["episodes"]} == {"reached"}
    assert {episode["amplification"] for episode in report["episodes"]} == {1.0}
    views = [event["event"] for event in host_events(tmp_path / "idle-stock.host.jsonl")]
    assert (views[0], views[-1]) == ("begin", "end")
    assert {"clock", "target", "actual", "memory", "vcpus", "reached"} <= set(views)
    inflate, deflate = both_sides(tmp_path / "idle-stock.btrace")["host_side"]["targets"]
    for row in (inflate, deflate):
        lags = [row[f"{step}_s"] for step in ("noticed", "read", "reached", "told")]
        assert None not in lags
        # The driver tells the host within the last call, whose return may be late.
        slack = row["error_s"] + SAMPLE_INTERVAL_S
        assert [later - lag >= -slack for lag, later in pairwise(lags)] == [True] * 3
        assert row["error_s"] < 0.2
    assert (inflate["inflated_pages"], deflate["deflated_pages"]) == (PAGES_PER_GIB // 2,) * 2


OFFERED = """
[guest]
memory = "512M"
swap = "64M"
reporting = true
hinting = true
kernel_options = "init_on_free=1 trial=1"
[host]
stats_interval_s = 1
[[balloon]]
run = "grep -q ' trial=1$' /proc/cmdline && grep -q ^/root/swap /proc/swaps"
hint_s = 1
target = "1/8"
limit_s = 60
"""


def test_what_a_scenario_offers_reaches_its_guest(tmp_path: Path) -> None:
    scenario = tmp_path / "offered.toml"
    scenario.write_text(OFFERED)
    balloontrace("lab", "run", str(scenario), "--out", str(tmp_path))
    report = whole_report(tmp_path / "offered-stock.btrace")
    # The driver takes page_poison only where its kernel fills free pages.
    assert {"reporting", "free_page_hint", "page_poison"} <= set(report["guest"]["features"])
    assert report["free_pages"]["hinting"]["lent_pages"] > 0
    events = host_events(tmp_path / "offered-stock.host.jsonl")
    (asked,) = [event for event in events if event["event"] == "host"]
    assert asked["stats_interval_s"] == 1


def test_founding_experiment_on_the_stock_driver(founding: Path) -> None:
    report = whole_report(founding / "page-cache-stock.btrace")
    inflate = report["episodes"][0]
    assert inflate["outcome"] == "reached"
    assert inflate["target_pages"] == PAGES_PER_GIB * 53 // 64
    assert inflate["amplification"] <= 1.05
    assert ids_of(report) == set()


def test_founding_experiment_on_the_shrinker_driver(founding: Path) -> None:
    report = whole_report(founding / "page-cache-shrinker.btrace")
    inflate = report["episodes"][0]
    assert report["guest"]["driver_behaviour"] == "shrinker"
    assert inflate["amplification"] > 2
    assert ids_of(report) == {"busy-no-op"}
    by_shrinker = {c["actor"]: c["pages"] for c in report["causes"] if c["cause"] == "shrinker"}
    assert max(by_shrinker, key=by_shrinker.__getitem__) == "kswapd"
    events = host_events(founding / "page-cache-shrinker.host.jsonl")
    names = [event["event"] for event in events]
    stopped = next(n for n, e in enumerate(events) if e.get("state") == "stop")
    assert "reached" not in names[:stopped], "the target was reached while the reader ran"


def test_what_the_host_got_of_the_founding_experiment(founding: Path) -> None:
    got = {}
    for driver in ("stock", "shrinker"):
        report = both_sides(founding / f"page-cache-{driver}.btrace")
        side, totals = report["host_side"], report["totals"]
        assert side["moved_pages"] == totals["inflated_pages"] + totals["deflated_pages"]
        assert "host-gains-nothing" not in {found["id"] for found in report["findings"]}
        got[driver] = side["freed_bytes"] / 4096 / side["moved_pages"]
    # A quarter of the guest's pages at least had been backed before, and is no longer.
    assert got["stock"] > 0.25
    assert got["shrinker"] < got["stock"] / 2


def test_the_table_of_both(founding: Path) -> None:
    before, after = (founding / f"page-cache-{d}.btrace" for d in ("shrinker", "stock"))
    table = balloontrace("compare", str(before), str(after))
    for row in ("inflation duration", "longest no-progress", "balloon_inflate", "balloon_deflate"):
        assert row in table
    assert max(map(len, table.splitlines())) < 100


def test_a_run_leaves_what_it_says_and_no_more(founding: Path) -> None:
    kinds = {"btrace", "host.jsonl", "console.log", "record.log"}
    stems = [f"page-cache-{driver}" for driver in ("stock", "shrinker")]
    assert {path.name for path in founding.iterdir()} == {f"{s}.{k}" for s in stems for k in kinds}
