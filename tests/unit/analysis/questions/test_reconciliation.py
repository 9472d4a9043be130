# SPDX-License-Identifier: Apache-2.0
"""Traced totals against /proc/vmstat: equal, different, and only within a bound."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from balloontrace.analysis.report import Report, build
from balloontrace.analysis.text.report import report_text
from balloontrace.events import UNKNOWN_PAGES
from tests.unit.builders import Built, stock_like, vmstat


def report_of(built: Built, tmp_path: Path) -> Report:
    return build(built.write(tmp_path / "r.btrace"))


def reconciliation(built: Built, tmp_path: Path) -> dict[str, Any]:
    return report_of(built, tmp_path).results["reconciliation"].scalars


def test_equal_to_the_page(tmp_path: Path) -> None:
    found = reconciliation(stock_like(chunks=400), tmp_path)
    assert (found["agrees"], found["exact"]) == (True, True)
    assert found["vmstat_inflate"] == found["traced_inflate"] == 102_400
    assert found["summary"] == (
        "traced totals equal /proc/vmstat to the page: 102,400 in, 102,400 out, 0 migrated"
    )


def test_one_page_off_is_a_disagreement(tmp_path: Path) -> None:
    built = Built().fill(1, 1, 256).ends(3, vmstat(257))
    found = reconciliation(built, tmp_path)
    assert (found["agrees"], found["exact"]) == (False, True)
    assert "DISAGREE" in found["summary"]
    assert "256 in, 1 short of 257" in found["summary"]


def test_a_disagreement_in_migrations_alone_is_one(tmp_path: Path) -> None:
    built = Built().call("migrate", 1, 0.1, 1, 1).ends(3, vmstat(migrate=2))
    assert reconciliation(built, tmp_path)["agrees"] is False


def test_pages_of_lost_events_are_named(tmp_path: Path) -> None:
    built = Built().fill(1, 1, 256).ends(3, vmstat(512))
    assert built.trailer is not None
    built.trailer |= {"lost_events": 1, "counters": {"fill": {"lost": 1, "lost_pages": 256}}}
    report = report_of(built, tmp_path)
    assert report.results["reconciliation"].scalars["agrees"] is False
    text = report_text(report)
    assert "256 in lost events" in text
    assert "LOSSY: 1 events lost" in text
    assert "pages in lost events: 256 fill" in text
    assert "the ring of 1,024 KiB was full" in text
    assert "record --ring-kib 4096" in " ".join(text.split())


def test_attach_while_moving_gives_a_bound(tmp_path: Path) -> None:
    # 1,000 pages moved between the two reads at attach, 2,560 between attach and detach.
    built = Built(base=1000)
    built.header["vmstat_attach"]["after"] = vmstat(2000)
    for i in range(12):
        built.fill(i, 0.5, 256)
    found = reconciliation(built.ends(13, vmstat(4560)), tmp_path)
    assert found["exact"] is False
    assert found["bounds_inflate"] == [2560 - 256, 3560 + 256]
    assert found["traced_inflate"] == 3072
    assert found["agrees"] is True
    assert found["inexact_because"] == ["the balloon moved while probes attached"]
    assert "bounds 2,304 to 3,816" in found["summary"]


def test_outside_the_bound_is_a_disagreement(tmp_path: Path) -> None:
    built = Built(base=1000)
    built.header["vmstat_attach"]["after"] = vmstat(2000)
    found = reconciliation(built.fill(1, 1, 256).ends(13, vmstat(4560)), tmp_path)
    assert (found["exact"], found["agrees"]) == (False, False)


def test_a_fill_still_open_at_the_end_is_within_a_chunk(tmp_path: Path) -> None:
    # /proc/vmstat counted the chunk when it was queued; the host was told of none of it.
    built = Built().fill(1, 1, 256).fill(2, None, 0).ends(9, vmstat(512))
    found = reconciliation(built, tmp_path)
    assert (found["exact"], found["agrees"]) == (False, True)
    assert found["inexact_because"] == ["a call was under way at attach or detach"]


def test_unknown_pages_widen_the_bound_and_are_noted(tmp_path: Path) -> None:
    built = Built().fill(1, 1, 256).call("fill", 2, 1, 256, UNKNOWN_PAGES, within="worker")
    report = report_of(built.ends(4, vmstat(512)), tmp_path)
    found = report.results["reconciliation"].scalars
    assert (found["exact"], found["agrees"]) == (False, True)
    assert found["bounds_inflate"] == [0, 512 + 256]
    assert report.results["totals"].scalars["inflated_pages"] == 256
    assert any("1 fill calls" in note for note in report.results["totals"].notes)


def test_a_killed_recorder_is_compared_with_its_last_sample(tmp_path: Path) -> None:
    built = Built()
    for i in range(30):
        built.fill(i * 0.1, 0.05, 256)
    built.sample(1.0, vmstat(10 * 256)).sample(2.0, vmstat(20 * 256)).sample(3.5, vmstat(99_999))
    built.trailer = None
    report = report_of(built, tmp_path)
    found = report.results["reconciliation"].scalars
    # The last sample has no event behind it: what it counted may not have reached the file.
    assert (found["until"], found["vmstat_inflate"], found["traced_inflate"]) == (
        "sample",
        20 * 256,
        20 * 256,
    )
    assert (found["exact"], found["agrees"]) == (False, True)
    facts = report.recording.scalars
    assert (facts["complete"], facts["truncated"], facts["lost_events"]) == (False, True, None)
    assert facts["duration_s"] == 3.5
    assert "TRUNCATED" in report_text(report)


def test_a_killed_recorder_that_lost_events_disagrees(tmp_path: Path) -> None:
    built = Built()
    for i in range(10):
        built.fill(i * 0.3, 0.05, 256)
    built.sample(2.0, vmstat(5000))
    built.trailer = None
    assert reconciliation(built, tmp_path)["agrees"] is False


def test_a_sample_may_be_read_a_moment_after_it_is_stamped(tmp_path: Path) -> None:
    # 10 chunks had returned when the sample was stamped at 1.0 s, 6 more follow within 0.1 s.
    built = Built()
    for i in range(10):
        built.fill(i * 0.09, 0.05, 256)
    for i in range(12):
        built.fill(1.0 + i * 0.015, 0.014, 256)
    built.sample(1.0, vmstat(16 * 256))
    built.trailer = None
    found = reconciliation(built, tmp_path)
    assert found["traced_inflate"] == 10 * 256
    # Below: six chunks read late and one in flight; above: one in flight, none ended since 0.9 s.
    assert found["bounds_inflate"] == [16 * 256 - 7 * 256, 16 * 256 + 256]
    assert found["agrees"] is True


def test_a_sample_may_be_read_a_moment_before_it_is_stamped(tmp_path: Path) -> None:
    # 10 chunks had returned at 1.0 s, but only 4 of them when /proc/vmstat was read.
    built = Built()
    for i in range(4):
        built.fill(i * 0.1, 0.05, 256)
    for i in range(6):
        built.fill(0.91 + i * 0.01, 0.01, 256)
    built.fill(1.5, 0.1, 256).sample(1.0, vmstat(4 * 256))
    built.trailer = None
    found = reconciliation(built, tmp_path)
    assert found["traced_inflate"] == 10 * 256
    assert found["bounds_inflate"] == [4 * 256 - 256, 4 * 256 + 7 * 256]
    assert found["agrees"] is True


def test_a_kernel_without_the_counters(tmp_path: Path) -> None:
    built = Built().fill(1, 1, 256).ends(3)
    built.header["vmstat_attach"] = {"before": {}, "after": {}}
    found = reconciliation(built, tmp_path)
    assert (found["agrees"], found["exact"], found["vmstat_inflate"]) == (None, False, None)
    assert found["traced_inflate"] == 256
    assert "cannot be checked" in found["summary"]


def test_a_seam_that_was_not_attached_is_not_zero(tmp_path: Path) -> None:
    built = Built().fill(1, 1, 256).ends(3)
    built.header["seams"]["leak"] = {"rung": None, "not": ["leak_balloon is inlined"]}
    report = report_of(built, tmp_path)
    found = report.results["reconciliation"].scalars
    assert (found["agrees"], found["traced_deflate"], found["vmstat_deflate"]) == (None, None, 0)
    assert report.results["totals"].scalars["deflated_pages"] is None
    assert report.results["totals"].scalars["net_pages"] is None
    assert report.results["causes"].missing == ["leak (leak_balloon is inlined)"]
    assert report.results["phases"].scalars["leak"] is None
    assert report.results["findings"].scalars["unchecked"]["busy-no-op"] == ["episodes", "causes"]
    text = report_text(report)
    assert text.count("not recorded: leak (leak_balloon is inlined)") >= 3


def test_pages_of_the_kernel_are_counted_in_balloon_pages(tmp_path: Path) -> None:
    # 64 KiB pages: /proc/vmstat counts 16 balloon pages as one.
    built = Built(base=2).fill(1, 1, 256).call("migrate", 2, 0.1, 1, 1)
    built.header["guest"]["page_size"] = 65536
    report = report_of(built.target(0.5, 288).ends(3, vmstat(18, 0, 1)), tmp_path)
    found = report.results["reconciliation"].scalars
    assert (found["agrees"], found["vmstat_inflate"], found["vmstat_migrate"]) == (True, 256, 16)
    assert report.results["totals"].scalars["migrated_pages"] == 16
    (episode,) = report.results["episodes"].tables["episodes"]
    assert (episode["start_pages"], episode["outcome"]) == (32, "reached")
