# SPDX-License-Identifier: Apache-2.0
"""A driver that goes and comes: what is claimed of the time in which none was traced."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from balloontrace.analysis.compare import compare
from balloontrace.analysis.json import report_json
from balloontrace.analysis.report import Report, build
from balloontrace.analysis.text.compare import compare_text
from balloontrace.analysis.text.report import report_text
from tests.unit.builders import Built, vmstat


def report_of(built: Built, tmp_path: Path) -> Report:
    return build(built.write(tmp_path / "r.btrace"))


def words(report: Report) -> str:
    """The report in one line, however it was wrapped."""
    text = report_text(report)
    assert max(map(len, text.splitlines())) < 100
    return " ".join(text.split())


def scalars(built: Built, tmp_path: Path, name: str = "reconciliation") -> dict[str, Any]:
    return report_of(built, tmp_path).results[name].scalars


def reloaded() -> Built:
    """512 pages in and out, a gap from 4 to 6 s in which 300 moved in, then 100 more.

    The target of 400 was set before the gap. The recorder notices late.
    """
    built = Built().target(1, 400, 0).fill(1, 0.5, 256).fill(1.5, 0.5, 256)
    built.call("remove", 3, 1, 0, 0, tid=9, comm=b"rmmod")
    built.leak(3.5, 0.4, 512, within="remove leak", tid=9, comm=b"rmmod")
    built.gone(5, vmstat(512, 512)).attached(6.5, vmstat(812, 512))
    return built.fill(6, 0.25, 100).ends(9, vmstat(912, 512))


def absent(built: Built) -> Built:
    """The recording begins before there is a driver; one is attached to at 2 s."""
    seams = built.header["seams"]
    here = vmstat(700, 700)
    built.header |= {"seams": {}, "vmstat_attach": {"before": here, "after": here}}
    built.driver(0.1, "absent", vmstat={"before": here, "after": here})
    return built.attached(2, vmstat(800, 700), seams=seams)


def test_what_moves_in_a_gap_is_left_out_of_the_comparison(tmp_path: Path) -> None:
    report = report_of(reloaded(), tmp_path)
    found = report.results["reconciliation"].scalars
    assert (found["agrees"], found["exact"]) == (True, True)
    assert (found["vmstat_inflate"], found["vmstat_deflate"]) == (612, 512)
    assert (found["untraced_inflate"], found["untraced_deflate"]) == ((300, 300), (0, 0))
    assert found["summary"] == (
        "traced totals equal /proc/vmstat to the page: 612 in, 512 out, 0 migrated, less 300 in "
        "and 0 out that moved while the driver was not traced"
    )
    notes = report.results["totals"].notes
    assert notes == ["not counted: 300 in and 0 out while the driver was not traced"]


def test_a_page_that_is_missing_beside_the_gap_is_a_disagreement(tmp_path: Path) -> None:
    found = scalars(reloaded().ends(9, vmstat(913, 512)), tmp_path)
    assert (found["agrees"], found["exact"]) == (False, True)
    assert "612 in, 1 short of 613" in found["summary"]


def test_a_driver_that_was_back_before_it_was_missed_gives_bounds(tmp_path: Path) -> None:
    # The last reading of the old driver's time has 256 pages, 512 were traced; up to 300 of what
    # was counted when the recorder noticed are the new driver's.
    built = Built().fill(1, 0.5, 256).fill(2, 0.5, 256)
    built.gone(5, vmstat(256), after=vmstat(812)).attached(6, vmstat(900)).fill(7, 0.5, 100)
    found = scalars(built.ends(9, vmstat(1000)), tmp_path)
    assert (found["agrees"], found["exact"]) == (True, False)
    # Traced spans: 256 or up to 812, then 100; a chunk may be in flight in each.
    assert found["bounds_inflate"] == [0, 912 + 512]
    assert found["untraced_inflate"] == (88, 644)
    assert "less 88 to 644 in and 0 out" in found["summary"]


def test_a_gap_still_open_at_the_end_ends_with_the_detach_readings(tmp_path: Path) -> None:
    built = Built().fill(1, 0.5, 256).gone(3, vmstat(256)).ends(9, vmstat(300))
    report = report_of(built, tmp_path)
    found = report.results["reconciliation"].scalars
    assert (found["agrees"], found["exact"]) == (True, True)
    assert found["untraced_inflate"] == (44, 44)
    (gap,) = report.results["driver"].tables["gaps"]
    assert (gap["open"], gap["start_s"], gap["end_s"]) == (True, 3.0, 9.0)
    assert "no driver was attached to again" in words(report)


def test_every_gap_counts(tmp_path: Path) -> None:
    built = Built()
    for turn in range(5):
        at = vmstat(turn * 300 + 256)
        built.fill(turn * 3 + 0.5, 0.5, 256).gone(turn * 3 + 1.5, at)
        built.attached(turn * 3 + 2, vmstat(turn * 300 + 300))
    report = report_of(built.ends(20, vmstat(1500)), tmp_path)
    found = report.results["reconciliation"].scalars
    assert (found["agrees"], found["exact"]) == (True, True)
    assert found["untraced_inflate"] == (220, 220)
    assert len(report.results["driver"].tables["gaps"]) == 5


def test_a_sample_of_the_driver_is_no_regular_sample(tmp_path: Path) -> None:
    built = reloaded()
    built.samples[:0] = [{"t_ns": built.header["attached_ns"], "vmstat": vmstat()}]
    built.sample(2.5, vmstat(512))
    built.samples.append({"t_ns": built.header["attached_ns"] + 6 * 10**9, "delays": {}})
    built.trailer = None
    found = scalars(built, tmp_path)
    assert (found["until"], found["vmstat_inflate"]) == ("sample", 512)
    assert found["agrees"] is True


def test_a_killed_recorder_after_a_gap(tmp_path: Path) -> None:
    built = reloaded().sample(6.3, vmstat(912, 512)).fill(8, 0.5, 100)
    built.trailer = None
    found = scalars(built, tmp_path)
    assert (found["agrees"], found["vmstat_inflate"], found["traced_inflate"]) == (True, 612, 612)


def test_what_attached_without_a_known_leaving_cannot_be_checked(tmp_path: Path) -> None:
    built = Built().fill(1, 0.5, 256).attached(6, vmstat(900)).ends(9, vmstat(900))
    found = scalars(built, tmp_path)
    assert (found["agrees"], found["untraced_inflate"]) == (None, None)


def test_the_size_is_that_which_was_found_after_the_gap(tmp_path: Path) -> None:
    episodes = report_of(reloaded(), tmp_path).results["episodes"]
    first, second = episodes.tables["episodes"]
    assert (first["outcome"], first["end_pages"]) == ("reached", 512)
    # 300 pages were in the balloon already, the target of 400 was no event again.
    assert (second["start_pages"], second["end_pages"]) == (300, 400)
    assert (second["begun_by"], second["outcome"]) == ("driver", "reached")
    assert (second["start_s"], second["end_s"]) == (6.0, 6.25)
    assert second["asked_pages"] == second["inflated_pages"] == 100
    assert episodes.notes == [
        "#2 began when the driver came and found the target that was set before"
    ]


def test_the_driver_s_leaving_supersedes_an_episode(tmp_path: Path) -> None:
    built = Built().target(1, 1000, 0).fill(1, 0.5, 256)
    built.call("remove", 3, 1, 0, 0, tid=9, comm=b"rmmod")
    built.leak(3.5, 0.4, 256, within="remove leak", tid=9, comm=b"rmmod")
    built.gone(5, vmstat(256, 256)).attached(6, vmstat(256, 256))
    built.target(7, 100, 0).fill(7, 0.5, 100).ends(9, vmstat(356, 256))
    report = report_of(built, tmp_path)
    first, second = report.results["episodes"].tables["episodes"]
    assert (first["outcome"], first["ended_by"], first["end_s"]) == ("superseded", "driver", 3.0)
    assert first["deflated_pages"] == 0
    # The new target is the host's: the driver's coming began nothing before it.
    assert (second["begun_by"], second["outcome"], second["start_pages"]) == (
        "target",
        "reached",
        0,
    )
    assert "#1 superseded: the driver left" in words(report)


def test_a_driver_that_is_bound_again_goes_on_toward_its_target(tmp_path: Path) -> None:
    built = Built().target(1, 512, 0).fill(1, 0.5, 512)
    built.call("remove", 2, 0.5, 0, 0).leak(2.1, 0.3, 512, within="remove leak")
    built.call("bind", 3, 0.5, 0, 0)  # fails
    built.call("bind", 4, 0.5, 0, 1).fill(4.6, 0.4, 256).target(6, 128, 256).leak(6, 1, 128)
    rows = report_of(built.ends(9), tmp_path).results["episodes"].tables["episodes"]
    assert [(row["start_s"], row["begun_by"], row["outcome"], row["ended_by"]) for row in rows] == [
        (1.0, "target", "reached", None),
        (4.0, "driver", "superseded", "target"),
        (6.0, "target", "reached", None),
    ]


def test_a_balloon_that_moved_while_probes_attached_again_is_settled_by_a_target(
    tmp_path: Path,
) -> None:
    built = Built().gone(1, vmstat()).attached(3, vmstat(100), after=vmstat(356))
    built.fill(2.9, 0.05, 256).target(4, 500, 356).fill(4, 1, 144)
    (row,) = report_of(built.ends(9, vmstat(500)), tmp_path).results["episodes"].tables["episodes"]
    assert (row["start_pages"], row["outcome"]) == (356, "reached")


def test_a_recording_that_began_without_a_driver(tmp_path: Path) -> None:
    built = absent(Built()).target(3, 300, 100).fill(3, 1, 200).ends(9, vmstat(1000, 700))
    built.header["balloon"] = {"device": None, "features": [], "driver": {"symbols": []}}
    report = report_of(built, tmp_path)
    found = report.results["reconciliation"].scalars
    assert (found["agrees"], found["exact"], found["vmstat_inflate"]) == (True, True, 200)
    assert found["untraced_inflate"] == (100, 100)
    (episode,) = report.results["episodes"].tables["episodes"]
    assert (episode["start_pages"], episode["outcome"]) == (100, "reached")
    assert len(report.results["seams"].tables["seams"]) == len(built.header["kinds"])
    (gap,) = report.results["driver"].tables["gaps"]
    assert (gap["state"], gap["start_s"], gap["end_s"]) == ("absent", 0.0, 2.0)


def test_features_and_driver_are_those_found_later(tmp_path: Path) -> None:
    built = absent(Built()).ends(9, vmstat(800, 700))
    built.header["balloon"] = {"device": None, "features": [], "driver": {}}
    guest = scalars(built, tmp_path, "guest")
    assert (guest["device"], guest["driver"]["srcversion"]) == ("virtio2", "ABCDEF")
    assert guest["driver_behaviour"] == "oom-notifier"


def test_a_driver_that_never_came_is_not_a_zero(tmp_path: Path) -> None:
    built = Built()
    built.header["seams"] = {}
    here = {"before": vmstat(), "after": vmstat()}
    report = report_of(built.driver(0, "absent", vmstat=here).ends(9), tmp_path)
    assert report.results["totals"].scalars["inflated_pages"] is None
    assert report.results["causes"].missing == ["leak (the driver was not there)"]
    assert report.results["reconciliation"].scalars["agrees"] is None
    assert "no driver was attached to" in words(report)
    assert report.results["guest"].scalars["driver_behaviour"] is None
    assert "driver not known: the driver was not there" in words(report)
    compare_text(compare(report, report))


def test_a_gap_in_which_nothing_moved_takes_nothing_from_the_verdict(tmp_path: Path) -> None:
    built = Built().fill(1, 0.5, 256).gone(3, vmstat(256)).attached(5, vmstat(256))
    report = report_of(built.ends(9, vmstat(256)), tmp_path)
    found = report.results["reconciliation"].scalars
    assert found["summary"].endswith("to the page: 256 in, 0 out, 0 migrated")
    assert report.results["totals"].notes == []
    assert "0 in and 0 out moved unseen" in words(report)


def test_a_driver_that_cannot_be_traced_is_said_at_the_top(tmp_path: Path) -> None:
    built = Built()
    built.header["seams"] = {}
    here = {"before": vmstat(), "after": vmstat()}
    built.driver(0, "absent", vmstat=here).driver(3, "untraceable", why="\x1b no tell_host")
    report = report_of(built.ends(9, vmstat(500)), tmp_path)
    assert report.results["causes"].missing == ["leak (the driver could not be traced)"]
    top = words(report).split("Totals")[0]
    assert "UNTRACEABLE" in top
    assert "\\x1b no tell_host" in top
    assert "not traced (untraceable)" in report_text(report)
    (gap,) = json.loads(report_json(report))["driver"]["gaps"]
    assert gap["inflated_pages"] == [500, 500]
    assert gap["untraceable"] == "\\x1b no tell_host"


def test_another_rung_and_another_driver_after_the_gap_are_named(tmp_path: Path) -> None:
    built = Built().gone(1, vmstat())
    seams = {**built.header["seams"], "leak": {"rung": "acks", "loses": "its time", "not": []}}
    balloon = json.loads(json.dumps(built.header["balloon"]))
    balloon["driver"]["version"] = "balloontrace-shrinker"
    built.attached(3, vmstat(), seams=seams, balloon=balloon)
    report = report_of(built.ends(9), tmp_path)
    row = next(r for r in report.results["seams"].tables["seams"] if r["seam"] == "leak")
    assert row["rung"] == "kprobe"
    assert row["later"] == [
        {"from_s": 3.0, "rung": "acks", "loses": "its time", "why_not": "", "was": "kprobe"}
    ]
    (gap,) = report.results["driver"].tables["gaps"]
    assert gap["changed"] == ["version"]
    assert "from 3.0 s on leak: acks, before that kprobe (loses its time)" in words(report)
    assert "now version balloontrace-shrinker" in words(report)


def test_the_table_of_the_driver_s_life(tmp_path: Path) -> None:
    report = report_of(reloaded(), tmp_path)
    (remove,) = report.results["driver"].tables["calls"]
    assert (remove["call"], remove["by"], remove["pages"]) == ("remove", "rmmod", 512)
    (gap,) = report.results["driver"].tables["gaps"]
    # From the end of the remove, though noticed at 5 s; to the first event, though told at 6.5 s.
    assert (gap["start_s"], gap["end_s"], gap["open"]) == (4.0, 6.0, False)
    lines = report_text(report).split("\nDriver\n")[1].splitlines()
    assert lines[1].split() == ["3.0", "1.0", "s", "remove", "task", "rmmod", "512"]
    assert lines[2].endswith("300 in and 0 out moved unseen")


def test_each_leaving_has_its_own_pages(tmp_path: Path) -> None:
    built = Built(base=1000)
    for at, kind, pages in ((1, "freeze", 30), (3, "remove", 4), (5, "freeze", 5)):
        built.call(kind, at, 1, 0, 0).leak(at + 0.2, 0.1, pages, within=f"{kind} leak")
        built.leak(at + 0.5, 0.1, 100, within="worker leak")
    calls = report_of(built.ends(9), tmp_path).results["driver"].tables["calls"]
    assert [(row["call"], row["pages"]) for row in calls] == [
        ("freeze", 30),
        ("remove", 4),
        ("freeze", 5),
    ]


def test_a_gap_begins_when_noticed_if_the_driver_had_been_bound_again(tmp_path: Path) -> None:
    built = Built().call("remove", 1, 1, 0, 0).call("bind", 3, 1, 0, 1).gone(6, vmstat())
    (gap,) = report_of(built.ends(9), tmp_path).results["driver"].tables["gaps"]
    assert gap["start_s"] == 6.0


@pytest.mark.parametrize("verbose", [False, True])
def test_nothing_happened_to_the_driver(tmp_path: Path, verbose: bool) -> None:
    report = report_of(Built().ends(3), tmp_path)
    assert ("\nDriver\n" in report_text(report, verbose=verbose)) is verbose
    assert report.results["driver"].tables == {"calls": [], "gaps": [], "frozen": []}


@pytest.mark.parametrize(("slept_ns", "said"), [(2_500_000_000, True), (3_000_000, False)])
def test_a_suspended_guest_is_said_so(tmp_path: Path, slept_ns: int, said: bool) -> None:
    built = Built().fill(1, 0.5, 256)
    assert scalars(built, tmp_path, "driver")["suspended_s"] is None
    assert built.trailer is not None
    built.trailer["suspended_ns"] = slept_ns
    report = report_of(built, tmp_path)
    assert ("the guest was suspended for 2.5 s in all" in words(report)) is said


def test_what_moved_in_a_gap_is_in_no_episode(tmp_path: Path) -> None:
    # 12,800 pages in; the driver leaves and gives back 12,800 unseen, takes 2,560 unseen.
    built = Built().target(1, 25_600).fill(1, 0.5, 12_800)
    built.gone(3, vmstat(12_800)).attached(4, vmstat(15_360, 12_800))
    built.fill(4.5, 0.5, 23_040).ends(8, vmstat(38_400, 12_800))
    first, second = report_of(built, tmp_path).results["episodes"].tables["episodes"]
    assert (first["outcome"], first["ended_by"], first["end_pages"]) == (
        "superseded",
        "driver",
        12_800,
    )
    assert (first["deflated_pages"], first["unseen_pages"], first["churn_ratio"]) == (0, 0, 0)
    assert (second["start_pages"], second["inflated_pages"]) == (2560, 23_040)
    assert (second["outcome"], second["amplification"]) == ("reached", 1.0)
