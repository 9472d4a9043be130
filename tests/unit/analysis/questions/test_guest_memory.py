# SPDX-License-Identifier: Apache-2.0
"""The guest's memory beside its balloon, and whether the balloon is what it suffers from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from balloontrace.analysis.compare import compare
from balloontrace.analysis.report import Report, build
from balloontrace.analysis.text.compare import compare_text
from balloontrace.analysis.text.report import first_screen
from balloontrace.analysis.text.writer import Page
from balloontrace.analysis.timeline.bokeh import chart
from balloontrace.analysis.timeline.picture import Picture, picture
from balloontrace.analysis.timeline.series import alone
from balloontrace.analysis.timeline.terminal import timeline as drawn_in_terminal
from tests.unit.analysis.findings.test_guest_memory import (
    MIB,
    MIB_PAGES,
    at_rest,
    counted,
    grows,
    starving,
)
from tests.unit.builders import Built, vmstat

GIB = 1 << 30


def report(built: Built, tmp_path: Path, name: str = "r") -> Report:
    return build(built.write(tmp_path / f"{name}.btrace"))


def memory(built: Built, tmp_path: Path) -> dict[str, Any]:
    return report(built, tmp_path).results["memory"].scalars


@pytest.mark.parametrize("features", [(), ("deflate_on_oom",)])
def test_ram_is_the_same_whether_the_driver_lowers_the_total(
    features: tuple[str, ...], tmp_path: Path
) -> None:
    for built in (at_rest(features=features), counted(at_rest(features=features))):
        facts = memory(built, tmp_path)
        assert (facts["ram_bytes"], facts["size_most_share"]) == (4 * GIB, 0.5)
        assert facts["total_lowered"] is not bool(features)
        assert facts["size_begin_pages"] == facts["size_end_pages"] == 2048 * MIB_PAGES


def test_memory_that_was_plugged(tmp_path: Path) -> None:
    built = at_rest()
    for sample in built.samples[50:]:
        sample["meminfo"]["MemTotal"] += GIB
    said = report(built, tmp_path).results["memory"]
    assert said.tables["ram_changes"] == [{"at_s": 50.0, "ram_bytes": 5 * GIB}]
    assert said.scalars["ram_bytes"] == 4 * GIB


def test_shares_are_of_ram_as_it_was_then(tmp_path: Path) -> None:
    """From 64 GiB to 4 in one with 2 GiB in its balloon; and from 4 to 16 GiB in one that inflates
    to 8 then."""
    unplugged = at_rest(features=("deflate_on_oom",))
    for sample in unplugged.samples[:50]:
        sample["meminfo"] |= {"MemTotal": 64 * GIB, "MemAvailable": 30 * GIB}
    facts = memory(grows(unplugged, since=50, some=0.5, full=0.3), tmp_path)
    assert (facts["size_most_share"], facts["ram_bytes"]) == (0.5, 64 * GIB)
    assert facts["available_least_share"] == pytest.approx(60 / 4096)
    assert facts["floor_bytes"] == int(0.1 * 4 * GIB)

    few = at_rest(mib=0, features=("deflate_on_oom",), available_mib=1200)
    for sample in few.samples[50:]:
        sample["meminfo"] |= {"MemTotal": 64 * GIB, "MemAvailable": 60 * GIB}
    assert memory(few, tmp_path)["available_least_share"] == pytest.approx(1200 / 4096)

    plugged = at_rest(mib=0, features=("deflate_on_oom",))
    for sample in plugged.samples[50:]:
        sample["meminfo"]["MemTotal"] = 16 * GIB
    plugged.target(50.1, 8192 * MIB_PAGES, 0).fill(50.1, 10, 8192 * MIB_PAGES)
    assert memory(plugged, tmp_path)["size_most_share"] == 0.5


def test_a_guest_starves_by_the_ram_that_it_has_left(tmp_path: Path) -> None:
    built = starving(features=("deflate_on_oom",))
    for sample in built.samples[:20]:
        sample["meminfo"] |= {"MemTotal": 64 * GIB, "MemAvailable": 30 * GIB}
    said = report(built, tmp_path).results
    (row,) = said["memory"].tables["starved"]
    assert (row["ram_bytes"], row["start_s"] >= 20) == (4 * GIB, True)
    (finding,) = said["findings"].tables["findings"]
    assert finding["id"] == "held-under-pressure"
    assert finding["evidence"]["balloon_share"] == 0.5


def test_that_pages_move_is_no_change_of_ram(tmp_path: Path) -> None:
    built = at_rest(mib=0)
    built.target(10, 500 * MIB_PAGES, 0)
    for at in range(10, 20):
        # Read half a second apart, while 50 MiB a second moved.
        built.samples[at + 1]["meminfo"]["MemTotal"] += 25 * MIB
        built.fill(at + 0.1, 0.5, 50 * MIB_PAGES)
        for sample in built.samples[at + 1 :]:
            sample["meminfo"]["MemTotal"] -= 50 * MIB
            sample["vmstat"] |= vmstat((at - 9) * 50 * MIB_PAGES)
    said = report(built.ends(91), tmp_path).results["memory"]
    assert said.tables["ram_changes"] == []
    assert said.scalars["ram_bytes"] == 4 * GIB


def test_the_worst_minute(tmp_path: Path) -> None:
    built = grows(at_rest(seconds=300), 100, 160, pswpin=50, some=0.5)
    said = report(built, tmp_path).results["memory"]
    row = {row["what"]: row for row in said.tables["rates"]}["swapped in"]
    assert (row["total"], row["per_s"], row["worst_per_s"]) == (3000, 10.0, 50.0)
    assert (row["worst_start_s"], row["worst_end_s"]) == (100.0, 160.0)
    assert said.scalars["psi_some_worst_share"] == pytest.approx(0.5)
    assert said.scalars["psi_some_share"] == pytest.approx(0.1)


def test_samples_that_are_minutes_apart(tmp_path: Path) -> None:
    built = grows(at_rest(seconds=300), pgmajfault=3)
    built.samples = [built.samples[at] for at in (0, 1, 150, 300)]
    said = report(built, tmp_path).results["memory"]
    row = {row["what"]: row for row in said.tables["rates"]}["major faults"]
    assert (row["total"], row["per_s"], row["worst_per_s"]) == (900, 3.0, 3.0)


def test_the_kernel_counts_another_size(tmp_path: Path) -> None:
    built = at_rest()
    for sample in built.samples:
        sample["vmstat"]["nr_balloon_pages"] = built.base + 7
    text = first_screen(report(built, tmp_path))
    assert "nr_balloon_pages of /proc/vmstat is 524,295 pages" in text


def test_commit_and_overcommit(tmp_path: Path) -> None:
    built = at_rest()
    built.header["guest"]["overcommit_memory"] = "2"
    for sample in built.samples:
        sample["meminfo"] |= {"CommitLimit": 2 * GIB, "Committed_AS": GIB}
    built.samples[7]["meminfo"]["Committed_AS"] = 2 * GIB
    facts = memory(built, tmp_path)
    assert (facts["committed_most_share"], facts["overcommit"]) == (1.0, "never beyond CommitLimit")


def verdict(built: Built, tmp_path: Path) -> dict[str, Any]:
    return report(built, tmp_path).results["verdict"].scalars


def test_a_guest_that_does_not_lack_memory(tmp_path: Path) -> None:
    said = verdict(at_rest(available_mib=1000), tmp_path)
    assert said["is_balloon"] is False
    assert said["sentence"] == (
        "the balloon is not what this guest suffers from: it held at most 50.0 % of RAM, and in "
        "the worst minute some task waited for memory 0.0 % of the time, all of them 0.0 %"
    )


def test_a_guest_that_lacks_memory_beside_next_to_no_balloon(tmp_path: Path) -> None:
    assert verdict(grows(at_rest(mib=20), some=0.9, full=0.8), tmp_path)["is_balloon"] is False


def test_a_guest_that_lacks_memory_for_no_known_reason(tmp_path: Path) -> None:
    said = verdict(grows(at_rest(available_mib=1000), some=0.5, full=0.4), tmp_path)
    assert said["is_balloon"] is None
    assert said["sentence"].startswith("cannot tell, because the guest lacked memory beside")


def test_a_fault_of_the_balloon_that_cost_no_memory_is_said_so(tmp_path: Path) -> None:
    built = at_rest(available_mib=1000)
    for i in range(4):
        built.ack(1 + i, 0.9, MIB_PAGES, "inflate", "worker")
    said = verdict(built, tmp_path)
    assert said["is_balloon"] is True
    assert "the cause (slow-host-ack), though the guest did not lack memory" in said["sentence"]


def test_an_absence_that_was_not_traced_is_none(tmp_path: Path) -> None:
    said = verdict(counted(at_rest(available_mib=1000)), tmp_path)
    assert (said["is_balloon"], said["because"]) == (None, ["nothing was traced"])
    assert verdict(counted(at_rest(mib=0, available_mib=1000)), tmp_path)["is_balloon"] is False
    lossy = at_rest(available_mib=1000)
    assert lossy.trailer is not None
    lossy.trailer["lost_events"] = 5
    assert verdict(lossy, tmp_path)["because"] == ["events were lost"]


def test_two_guests_at_rest_are_compared_by_their_memory(tmp_path: Path) -> None:
    ill = report(grows(at_rest(), workingset_refault_file=5000, some=0.2), tmp_path, "ill")
    well = report(at_rest(available_mib=70), tmp_path, "well")
    text = compare_text(compare(ill, well))
    assert "balloon_inflate" not in text
    assert "inflation duration" not in text
    assert "neither side has an inflation" in text
    assert "differs most: refaults: 5,000.0/s before, 0.0/s after" in text
    assert compare(well, well).scalars["differs_most"] is None


def drawn(built: Built, tmp_path: Path) -> Picture:
    return picture(built.write(tmp_path / "p.btrace"))


def test_refaults_and_swap_have_a_panel_where_there_were_any(tmp_path: Path) -> None:
    none = drawn(at_rest(), tmp_path)
    some = drawn(grows(at_rest(), 30, 60, workingset_refault_file=100, pswpout=40), tmp_path)
    assert "reclaim" not in [panel.id for panel in chart(alone(none)).panels]
    (panel,) = [panel for panel in chart(alone(some)).panels if panel.id == "reclaim"]
    assert [style.label for style, _ in panel.legend] == ["refaults", "swapped out"]
    rows = some.timeline.tables["reclaim"]
    moved = [row for row in rows if row["refaults"]]
    assert (moved[0]["start_s"], moved[-1]["end_s"]) == (30.0, 60.0)
    assert {row["refaults"] for row in moved} == {100.0}
    page = Page(False)
    drawn_in_terminal(page, some.timeline, blocks=False)
    (line,) = [line for line in page.text().splitlines() if "swap out/s" in line]
    assert 24 <= line.count("#") + line.count("|") <= 30
    assert "refaults/s" not in str(none.timeline.tables["reclaim"])
