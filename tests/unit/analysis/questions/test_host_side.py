# SPDX-License-Identifier: Apache-2.0
"""A recording with the host's view beside it: lags with their error, what the host has of it, and
what only both sides show."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from balloontrace.analysis.export.timeline import counters_of, marks_of
from balloontrace.analysis.html.report import report_html
from balloontrace.analysis.report import Report, report_of
from balloontrace.analysis.text.report import report_text
from balloontrace.analysis.timeline.bokeh import chart
from balloontrace.analysis.timeline.matplotlib import figure
from balloontrace.analysis.timeline.picture import picture_of
from balloontrace.analysis.timeline.series import TOLD, Scene
from balloontrace.analysis.trace.host_view import lay_beside
from balloontrace.analysis.trace.trace import Trace, read_trace
from balloontrace.analysis.trace.window import Window
from balloontrace.errors import UserError
from tests.unit.builders import ATTACHED_NS, Built, ns, stock_like, vmstat

OFFSET_NS = 1_000_000_000_000
"""The host's clock is so much ahead of the guest's."""
GIB = 1 << 30
ALL = ["target", "actual", "memory", "state", "vcpus", "statistics", "clock"]


def host_ns(at_s: float) -> int:
    """The host's clock at a moment in seconds since attach."""
    return ATTACHED_NS + round(at_s * 1e9) + OFFSET_NS


class Host:
    """The host's view under construction; times in seconds since attach."""

    def __init__(self, **facts: Any) -> None:
        begin = {"format": 1, "hypervisor": "qemu", "version": "10", "memory_bytes": 4 * GIB}
        self.lines: list[dict[str, Any]] = []
        self.add("begin", -1.0, **{**begin, "tells": ALL, "interval_s": 5.0, **facts})

    def add(self, event: str, at_s: float, **fields: Any) -> Host:
        """A line."""
        self.lines.append({"event": event, "t_ns": host_ns(at_s), **fields})
        return self

    def clocks(self, *at_s: float, boot_id: str = "0", error_ns: int = 1_000_000) -> Host:
        """Pairs of both clocks."""
        for at in at_s:
            guest_ns = host_ns(at) - OFFSET_NS
            fields = {"guest_monotonic_ns": guest_ns, "error_ns": error_ns, "boot_id": boot_id}
            self.add("clock", at, **fields)
        return self

    def target(self, at_s: float, pages: int, **more: Any) -> Host:
        """The host sets one."""
        return self.add("target", at_s, bytes=pages * 4096, **{"by": "set", **more})

    def told(self, at_s: float, pages: int, resident: int | None = None, **memory: int) -> Host:
        """A sample."""
        self.add("actual", at_s, bytes=pages * 4096)
        if resident is not None:
            self.add("memory", at_s + 0.001, rss_bytes=resident, **memory)
        return self

    def write(self, path: Path) -> str:
        """Write the file, with a torn line at its end."""
        text = "".join(json.dumps(line) + "\n" for line in self.lines)
        path.write_text(text + '{"event": "act')
        return str(path)


def both(tmp_path: Path, built: Built, host: Host) -> Report:
    """The report of both."""
    return report_of(beside(tmp_path, built, host))


def beside(tmp_path: Path, built: Built, host: Host) -> Trace:
    """The recording with the host's view."""
    trace = read_trace(built.write(tmp_path / "guest.btrace"))
    lay_beside(trace, host.write(tmp_path / "guest.host.jsonl"))
    return trace


def side(report: Report) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """What is said of the host's side, and its targets."""
    result = report.results["host_side"]
    return result.scalars, result.tables["targets"]


def found(report: Report) -> dict[str, dict[str, Any]]:
    """The findings that take both sides, by id."""
    both_sides = {"target-never-arrived", "host-gains-nothing", "host-not-running-guest"}
    rows = report.results["findings"].tables["findings"]
    return {row["id"]: row for row in rows if row["id"] in both_sides}


PAGES = 400 * 256


def ordinary(resident: tuple[int, int, int] = (4 * GIB, 4 * GIB - PAGES * 4096, 4 * GIB)) -> Host:
    """The host's view of `stock_like`: in by 1.0 s to 5.0 s, out from 7.0 s to 9.0 s. resident:
    before, with the balloon in, and at the end."""
    host = Host().clocks(0.0, 60.0).told(0.5, 0, resident[0])
    host.target(0.98, PAGES).told(5.1, PAGES, resident[1])
    return host.target(6.99, 0).told(9.2, 0, resident[2])


def test_each_step_of_a_target_has_its_lag_and_the_error_of_the_clocks(tmp_path: Path) -> None:
    built = stock_like().call("notice", 0.99, 0.0, 0, 0)
    facts, (into, out) = side(both(tmp_path, built, ordinary()))
    assert into["set_s"] == pytest.approx(0.98)
    assert into["error_s"] == pytest.approx(0.001, abs=1e-4)
    lags = [into[f"{step}_s"] for step in ("noticed", "read", "reached", "told")]
    assert lags == pytest.approx([0.01, 0.02, 4.02, 4.12], abs=1e-6)
    assert (into["inflated_pages"], into["deflated_pages"]) == (PAGES, 0)
    assert (out["inflated_pages"], out["deflated_pages"]) == (0, PAGES)
    assert out["read_s"] == pytest.approx(0.01)
    assert (facts["causal"], facts["clock_pairs"], facts["clock_jumps"]) == (True, 2, 0)


def test_what_the_host_has_of_it(tmp_path: Path) -> None:
    report = both(tmp_path, stock_like(), ordinary())
    facts, (into, _) = side(report)
    assert facts["moved_pages"] == 2 * PAGES
    assert facts["freed_bytes"] == PAGES * 4096
    assert into["freed_s"] == pytest.approx(4.121)
    assert found(report) == {}


@pytest.mark.parametrize("there", [1008, 992])
def test_a_guest_with_large_pages_rounds_the_target(tmp_path: Path, there: int) -> None:
    built = Built().target(1.0, 1001, 0).fill(2.0, 0.1, there)
    built.header["guest"]["page_size"] = 65536
    built.target(10.0, 30, there).leak(11.0, 0.1, there - 32)
    host = Host().clocks(0.0, 60.0).told(0.5, 0).target(0.98, 1001).told(2.2, there)
    host.target(9.98, 30).told(11.2, 32)
    report = both(tmp_path, built.ends(20.0), host)
    _, targets = side(report)
    assert [row["reached_s"] for row in targets] == pytest.approx([1.12, 1.12])
    assert [row["told_s"] for row in targets] == pytest.approx([1.22, 1.22])
    assert found(report) == {}


def test_with_pages_of_its_own_size_a_page_short_is_short(tmp_path: Path) -> None:
    built = Built().target(1.0, 1001, 0).fill(2.0, 0.1, 1000).ends(20.0)
    host = Host().clocks(0.0, 60.0).told(0.5, 0).target(0.98, 1001).told(2.2, 1000)
    _, (row,) = side(both(tmp_path, built, host))
    assert (row["reached_s"], row["told_s"]) == (None, None)


def test_a_target_that_was_seen_late_widens_the_error(tmp_path: Path) -> None:
    host = Host().clocks(0.0, 60.0).told(0.5, 0)
    host.target(1.2, PAGES, by="seen", after_ns=host_ns(0.8)).told(5.1, PAGES)
    _, (into,) = side(both(tmp_path, stock_like(), host))
    assert into["set_s"] == pytest.approx(1.0)
    assert into["error_s"] == pytest.approx(0.201, abs=1e-3)
    assert into["read_s"] == pytest.approx(0.0, abs=1e-6)


def test_without_clocks_only_the_host_s_own_lags_are_known(tmp_path: Path) -> None:
    host = Host().told(0.5, 0).target(0.98, PAGES).told(5.1, PAGES)
    facts, (into,) = side(both(tmp_path, stock_like(), host))
    assert facts["clock_pairs"] == 0
    assert (into["set_s"], into["read_s"], into["reached_s"]) == (None, None, None)
    assert into["told_s"] == pytest.approx(4.12)
    assert facts["causal"] is None


def test_a_target_that_was_read_before_it_was_set_shows_clocks_that_do_not_fit(
    tmp_path: Path,
) -> None:
    host = Host().clocks(0.0, 60.0).told(0.5, 0).target(1.5, PAGES).told(5.1, PAGES)
    facts, (into,) = side(both(tmp_path, stock_like(), host))
    assert facts["causal"] is False
    assert (into["noticed_s"], into["read_s"], into["reached_s"]) == (None, None, None)


def test_a_host_that_was_told_before_the_guest_was_there_shows_it_too(tmp_path: Path) -> None:
    host = Host().clocks(0.0, 60.0).told(0.5, 0).target(0.98, PAGES).told(3.0, PAGES)
    facts, _ = side(both(tmp_path, stock_like(), host))
    assert facts["causal"] is False


def test_another_boot_is_refused(tmp_path: Path) -> None:
    trace = read_trace(stock_like().write(tmp_path / "guest.btrace"))
    path = Host().clocks(0.0, boot_id="1").write(tmp_path / "other.host.jsonl")
    with pytest.raises(UserError, match="another boot"):
        lay_beside(trace, path)


def test_of_a_guest_that_booted_meanwhile_the_other_boot_is_left_out(tmp_path: Path) -> None:
    host = ordinary().clocks(70.0, boot_id="1")
    facts, _ = side(both(tmp_path, stock_like(), host))
    assert facts["clock_pairs"] == 2


def test_a_host_that_keeps_the_memory(tmp_path: Path) -> None:
    report = both(tmp_path, stock_like(), ordinary((5 * GIB, 5 * GIB, 5 * GIB)))
    kept = found(report)["host-gains-nothing"]
    assert kept["certainty"] == "medium"
    assert kept["evidence"]["due_bytes"] == PAGES * 4096
    assert kept["evidence"]["fallen_bytes"] == 0


def test_a_host_that_has_locked_it(tmp_path: Path) -> None:
    host = ordinary((5 * GIB, 5 * GIB, 5 * GIB))
    for line in host.lines:
        if line["event"] == "memory":
            line["locked_bytes"] = 4 * GIB
    kept = found(both(tmp_path, stock_like(), host))["host-gains-nothing"]
    assert kept["certainty"] == "high"
    assert "locked" in kept["summary"]


@pytest.mark.parametrize("resident", [GIB, 2 * GIB, 3 * GIB])
def test_memory_that_was_never_touched_is_worth_nothing_and_no_finding(
    tmp_path: Path, resident: int
) -> None:
    report = both(tmp_path, stock_like(), ordinary((resident,) * 3))
    assert found(report) == {}


def test_a_target_that_nobody_hears_of(tmp_path: Path) -> None:
    host = ordinary().target(12.0, 5000).told(20.0, 0)
    built = stock_like().ends(30.0)
    lost = found(both(tmp_path, built, host))["target-never-arrived"]
    assert lost["certainty"] == "high"
    assert lost["evidence"]["target_pages"] == 5000
    assert lost["evidence"]["driver_there"] is True


def test_a_target_without_a_driver_is_told_apart(tmp_path: Path) -> None:
    host = ordinary().target(12.0, 5000).told(20.0, 0)
    built = stock_like().gone(11.0, vmstat(PAGES, PAGES)).ends(30.0)
    lost = found(both(tmp_path, built, host))["target-never-arrived"]
    assert lost["evidence"]["driver_there"] is False


def test_a_target_that_stood_while_the_driver_could_not_be_traced_is_not_lost(
    tmp_path: Path,
) -> None:
    built = Built().target(1, 256, 0).fill(1, 0.01, 256)
    built.gone(10, vmstat(256, 256)).driver(11, "untraceable", why="it has other functions")
    built.ends(120, vmstat(50_256, 256))
    host = Host().clocks(1, 119).target(0.5, 256).target(30, PAGES)
    for at in range(0, 120, 5):
        host.told(at, 256 if at < 10 else max(0, min(50_000, (at - 30) * 1000)), resident=GIB)
    report = both(tmp_path, built, host)
    assert found(report) == {}
    facts, rows = side(report)
    assert facts["driver_absent_s"] == pytest.approx(1.0)
    assert (rows[1]["driver_there"], rows[1]["traced"], rows[1]["read_s"]) == (True, False, None)
    assert rows[1]["inflated_pages"] is None


def test_of_a_driver_s_absence_what_is_in_a_window_counts(tmp_path: Path) -> None:
    built = Built().fill(1, 0.5, 256).gone(50, vmstat(256)).attached(200, vmstat(256, 256))
    trace = beside(tmp_path, built.ends(300, vmstat(256, 256)), Host().clocks(1, 290))
    for begin_s, end_s, absent_s in ((100, 110, 10.0), (190, 220, 10.0), (220, 230, 0.0)):
        report = report_of(Window(trace, ns(begin_s), ns(end_s)))
        assert side(report)[0]["driver_absent_s"] == absent_s


def test_what_the_host_has_of_a_target_that_stood_before_is_not_known(tmp_path: Path) -> None:
    built = Built().target(1, PAGES, 0).fill(1, 40, PAGES).ends(60)
    host = Host().clocks(10, 60).add("target", 10.0, bytes=PAGES * 4096, by="seen")
    for at in range(10, 60, 5):
        host.told(at, PAGES, resident=4 * GIB)
    text = " ".join(report_text(both(tmp_path, built, host)).split())
    assert "what the host has of them is not known" in text
    assert "none for a larger target" not in text


@pytest.mark.parametrize("at_s", [26.0, 29.9])
def test_a_target_at_the_end_is_only_late(tmp_path: Path, at_s: float) -> None:
    host = ordinary().target(at_s, 5000).told(at_s, 0)
    assert found(both(tmp_path, stock_like().ends(30.0), host)) == {}


def test_a_guest_that_the_host_does_not_run(tmp_path: Path) -> None:
    host = ordinary().add("vcpus", 0.5, cpu_ns=0, waited_ns=0, threads=2)
    host.add("vcpus", 9.5, cpu_ns=8_000_000_000, waited_ns=11_000_000_000, threads=2)
    starved = found(both(tmp_path, stock_like(), host))["host-not-running-guest"]
    assert starved["certainty"] == "high"
    assert "11.0 s" in starved["summary"]


def test_processors_that_were_unplugged_are_no_host_that_does_not_run_it(tmp_path: Path) -> None:
    host = ordinary().add("vcpus", 0.5, cpu_ns=400 * 10**9, waited_ns=4 * 10**9, threads=4)
    host.add("vcpus", 9.5, cpu_ns=320 * 10**9, waited_ns=16 * 10**9, threads=2)
    report = both(tmp_path, stock_like(), host)
    assert side(report)[0]["vcpus_ran_s"] is None
    assert "host-not-running-guest" not in found(report)


def test_a_busy_host_that_lets_it_run_is_none(tmp_path: Path) -> None:
    host = ordinary().add("vcpus", 0.5, cpu_ns=0, waited_ns=0, threads=2)
    host.add("vcpus", 9.5, cpu_ns=12_000_000_000, waited_ns=5_000_000_000, threads=2)
    assert found(both(tmp_path, stock_like(), host)) == {}


def test_numbers_that_cannot_be_are_left_out(tmp_path: Path) -> None:
    host = ordinary().add("target", 7.5, bytes=10**40, by="set").add("memory", 8.0, rss_bytes=-1)
    host.add("clock", 8.0, guest_monotonic_ns="soon", error_ns=1, boot_id="0")
    host.add("actual", 8.0, bytes=None).add("state", 8.0, state=["running"])
    facts, targets = side(both(tmp_path, stock_like(), host))
    assert len(targets) == 2
    assert facts["clock_pairs"] == 2


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "does not begin as"),
        ("{}\n", "does not begin as"),
        ('{"event": "begin", "t_ns": 1, "format": 9}\n', "has format 9"),
        ('{"event": "begin", "t_ns": 1}\n', "has format None"),
        ("[" * 100000, "does not begin as"),
    ],
)
def test_what_is_no_host_s_view_is_said(tmp_path: Path, text: str, complaint: str) -> None:
    trace = read_trace(stock_like().write(tmp_path / "guest.btrace"))
    path = tmp_path / "x.host.jsonl"
    path.write_text(text)
    with pytest.raises(UserError, match=complaint):
        lay_beside(trace, str(path))


def test_a_target_that_stood_before_anybody_looked_has_no_lag_and_is_not_lost(
    tmp_path: Path,
) -> None:
    host = Host().clocks(0.0, 60.0).target(0.5, PAGES, by="seen").told(0.6, 0).told(29.0, 0)
    built = Built().target(-1.0, PAGES, 0).ends(30.0)
    report = both(tmp_path, built, host)
    facts, (stood,) = side(report)
    assert (stood["target_pages"], stood["set_s"], stood["told_s"]) == (PAGES, None, None)
    assert facts["causal"] is None
    assert found(report) == {}


def test_a_target_that_comes_back_was_not_read_too_early(tmp_path: Path) -> None:
    host = ordinary().target(8.0, PAGES).target(9.5, 0).target(11.0, PAGES).told(29.0, 0)
    report = both(tmp_path, stock_like().target(8.1, PAGES).target(9.6, 0).ends(30.0), host)
    assert side(report)[0]["causal"] is True
    assert found(report)["target-never-arrived"]["evidence"]["targets"] == 1


def test_a_target_that_is_replaced_at_once_is_not_lost(tmp_path: Path) -> None:
    host = ordinary().target(12.0, 5000).target(12.01, 7000).told(20.0, 0)
    built = stock_like().target(12.02, 7000).ends(30.0)
    assert found(both(tmp_path, built, host)) == {}


def test_where_the_worker_s_reading_was_not_traced_no_target_is_called_lost(
    tmp_path: Path,
) -> None:
    built = stock_like().ends(30.0)
    built.header["seams"]["target"]["rung"] = None
    report = both(tmp_path, built, ordinary().target(12.0, 5000).told(20.0, 0))
    assert "target-never-arrived" in report.results["findings"].scalars["unchecked"]


def test_a_stop_is_not_counted_if_it_is_not_known_to_be_of_the_recording_s_time(
    tmp_path: Path,
) -> None:
    host = Host().told(0.5, 0).add("state", -500.0, state="paused")
    host.add("state", -1.0, state="running")
    assert side(both(tmp_path, stock_like(), host))[0]["stopped_s"] is None
    host.clocks(0.0, 60.0)
    assert side(both(tmp_path, stock_like(), host))[0]["stopped_s"] == 0


@pytest.mark.parametrize(
    ("sampled_s", "told", "before"), [(0.99, 0, 3 * GIB), (0.99, 5, None), (3.0, 0, None)]
)
def test_memory_of_long_before_a_target_is_not_that_at_the_target(
    tmp_path: Path, sampled_s: float, told: int, before: int | None
) -> None:
    host = Host(interval_s=0.2).clocks(0.0, 60.0).told(-0.9, 0, GIB).target(0.98, PAGES)
    host.told(sampled_s, told, 3 * GIB).told(5.1, PAGES, 2 * GIB)
    facts, (into,) = side(both(tmp_path, stock_like(), host))
    assert into["resident_before_bytes"] == before
    assert facts["freed_bytes"] == (GIB if before else None)


def test_what_the_host_s_file_says_of_itself_is_escaped(tmp_path: Path) -> None:
    host = ordinary()
    host.lines[0] |= {"hypervisor": "\x1b[31mqemu<script>", "version": "\n10"}
    pictured = picture_of(beside(tmp_path, stock_like(), host))
    said = report_text(pictured.report, False, True, None, None)
    assert "guest.host.jsonl" in said
    assert "\x1b" not in said
    assert "qemu<script>" in said
    assert "qemu<script>" not in report_html(pictured)


def test_a_window_between_two_targets_counts_none_of_them(tmp_path: Path) -> None:
    trace = beside(tmp_path, stock_like().ends(30.0), ordinary((4 * GIB, 3 * GIB, 2 * GIB)))
    begin_ns = trace.begin_ns + 6_000_000_000
    facts, (out,) = side(report_of(Window(trace, begin_ns, None)))
    assert out["target_pages"] == 0
    assert facts["freed_bytes"] is None
    assert facts["moved_pages"] == PAGES


def test_how_old_the_host_s_statistics_became_is_said_with_a_guest_that_is_late(
    tmp_path: Path,
) -> None:
    host = ordinary()
    host.add("statistics", 5.0, values={}, age_s=2.0, polling_interval_s=1)
    host.add("statistics", 25.0, values={}, age_s=21.5, polling_interval_s=1)
    built = stock_like().call("stats_ask", 4.0, 0.0, 0, 0, within="", tid=0, comm=b"").ends(30.0)
    rows = both(tmp_path, built, host).results["findings"].tables["findings"]
    (late,) = [row for row in rows if row["id"] == "stats-stale"]
    assert late["evidence"]["oldest_s"] == 21.5
    assert "up to 21.5 s old" in late["summary"]


def test_pictures_have_the_host_s_side_by_the_guest_s_clock(tmp_path: Path) -> None:
    scene = Scene(picture_of(beside(tmp_path, stock_like(), ordinary())))
    times, told = scene.steps("host_actual")
    assert times == pytest.approx([0.5, 5.1, 9.2])
    assert told == pytest.approx([0, 400, 0])
    assert scene.host_memory()[1] == pytest.approx([4096, 3696, 4096])
    assert b"host: resident memory" in figure([scene], "svg")
    panels = chart([scene]).panels
    assert "host" in [panel.id for panel in panels]
    assert TOLD in [style for style, _ in panels[0].legend]


def test_pictures_without_the_host_s_side_have_no_room_for_it(tmp_path: Path) -> None:
    scene = Scene(picture_of(read_trace(stock_like().write(tmp_path / "guest.btrace"))))
    assert "host" not in [panel.id for panel in chart([scene]).panels]
    assert b"host: " not in figure([scene], "svg")


def test_a_trace_has_the_host_s_targets_as_marks(tmp_path: Path) -> None:
    trace = beside(tmp_path, stock_like(), ordinary().target(500.0, 3))
    marks = [mark for mark in marks_of(trace) if mark.track == "host: targets"]
    assert [mark.arguments["target_balloon_pages"] for mark in marks] == [PAGES, 0]
    assert [trace.seconds(mark.time_ns) for mark in marks] == pytest.approx([0.98, 6.99])
    assert {counter.name for counter in counters_of(trace)} >= {
        "host: actual",
        "host: resident memory",
    }


def by_wall(tmp_path: Path, ahead_s: float) -> Report:
    """Both sides without pairs; ahead_s: so much the host's wall clock is ahead of the guest's."""
    host = Host(utc_ns=round((1000.0 - 1.0 + ahead_s) * 1e9)).told(0.5, 0)
    host.target(0.98, PAGES).told(5.1, PAGES).target(12.0, 5000).told(29.0, PAGES)
    built = stock_like().ends(30.0)
    built.header["clock"] = {"monotonic_ns": ATTACHED_NS, "realtime_ns": 1_000_000_000_000}
    return both(tmp_path, built, host)


def test_without_pairs_the_wall_clocks_tie_both_with_an_error_that_is_said(tmp_path: Path) -> None:
    report = by_wall(tmp_path, 0.0)
    facts, (into, _) = side(report)
    assert (facts["clock_pairs"], facts["by_wall_clocks"], facts["causal"]) == (0, True, True)
    assert facts["clock_error_s"] is None
    assert into["read_s"] == pytest.approx(0.02)
    assert into["error_s"] == pytest.approx(1.0, abs=1e-3)
    assert "the wall clocks alone" in report.results["host_side"].notes[0]
    assert "target-never-arrived" in report.results["findings"].scalars["unchecked"]


@pytest.mark.parametrize("ahead_s", [3.0, 3600.0, -3600.0, 1e9])
def test_wall_clocks_that_differ_make_no_lag_and_no_finding(tmp_path: Path, ahead_s: float) -> None:
    report = by_wall(tmp_path, ahead_s)
    _, rows = side(report)
    assert [row["read_s"] for row in rows] == [None] * len(rows)
    assert found(report) == {}


@pytest.mark.parametrize("error_ns", [0, 2**63 - 1])
@pytest.mark.parametrize("guest_ns", [0, 2**63 - 1])
@pytest.mark.parametrize("t_ns", [0, 2**62, 2**63 - 1])
def test_moments_that_no_machine_has_are_not_known(
    tmp_path: Path, t_ns: int, guest_ns: int, error_ns: int
) -> None:
    host = Host().target(0.98, PAGES).told(5.1, PAGES, 2**63 - 1, hugetlb_bytes=2**63 - 1)
    pair = {"guest_monotonic_ns": guest_ns, "error_ns": error_ns, "boot_id": "0"}
    host.lines.append({"event": "clock", "t_ns": t_ns, **pair})
    host.lines.append({"event": "target", "t_ns": t_ns, "bytes": 2**63 - 1, "by": "set"})
    pictured = picture_of(beside(tmp_path, stock_like(), host))
    assert side(pictured.report)[1] is not None
    assert chart([Scene(pictured)]).panels


def test_a_host_is_told_within_the_last_call_and_not_after_it(tmp_path: Path) -> None:
    built = Built().target(1.0, 256, 0).fill(1.0, 2.0, 256).ends(10.0)  # the host is told at 1.1
    host = Host().clocks(0.0, 60.0).told(0.5, 0).target(0.98, 256).told(1.1, 256)
    facts, (into,) = side(both(tmp_path, built, host))
    assert facts["causal"] is True
    assert into["told_s"] < into["reached_s"]
