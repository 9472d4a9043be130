# SPDX-License-Identifier: Apache-2.0
"""What ballooning cost: busy time, tasks stalled, pressure, delays; and published figures."""

from __future__ import annotations

import json
import re
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from balloontrace.analysis.json import report_json
from balloontrace.analysis.reference_figures import beside, markdown
from balloontrace.analysis.report import Report, build
from balloontrace.analysis.text.report import report_text
from balloontrace.analysis.trace.calls import BusyTime
from balloontrace.analysis.trace.trace import read_trace
from tests.unit.builders import KSWAPD_TID, RECORDER_PID, WORKER_TID, Built, ns, vmstat

LOADER_PID, ATTACHER_PID = 1230, 1300


def report_of(built: Built, tmp_path: Path) -> Report:
    return build(built.write(tmp_path / "r.btrace"))


def cost_of(built: Built, tmp_path: Path) -> dict[str, Any]:
    cost: dict[str, Any] = json.loads(report_json(report_of(built, tmp_path)))["cost"]
    return cost


def psi(at: float, some: float, full: float) -> dict[str, Any]:
    """A sample with memory pressure totals in seconds."""
    memory = {"some_us": round(some * 1e6), "full_us": round(full * 1e6)}
    return {"t_ns": ns(at), "vmstat": vmstat(), "psi": {"memory": memory}}


def everything() -> Built:
    """Busy: 4 s of fill without 1 s ack and 0.25 s sleep; 1 s of a leak by the host without 0.5
    ack; 0.5 s of kswapd without 0.125 ack; 0.25 s of cat; 0.125 s of a migration without 0.0625."""
    built = Built(base=9999).fill(1, 4, 256, within="")
    built.ack(3, 1, 256, "inflate", "worker").call("sleep", 2, 0.25, 0, 0, within="worker")
    # In the fill: reclaim, and in that a scan, a leak and its ack, of which the ack is a wait.
    built.call("reclaim", 1.25, 0.5, 0, 256, within="worker")
    built.call("scan", 1.25, 0.375, 128, 256, within="worker")
    built.leak(1.25, 0.25, 256, within="worker scan")
    built.leak(6, 1, 256, within="worker").ack(6.25, 0.5, 256, "deflate", "worker leak")
    kswapd: dict[str, Any] = {"tid": KSWAPD_TID, "comm": b"kswapd0"}
    built.call("scan", 2, 0.5, 128, 512, within="", **kswapd)
    built.leak(2, 0.25, 256, within="scan", **kswapd)
    built.leak(2.25, 0.25, 256, within="scan", **kswapd)
    built.call("ack", 2, 0.125, 256, 256, queue="deflate", within="scan leak", **kswapd)
    built.call("oom_notify", 7, 0.25, 0, 256, within="", tid=900, comm=b"cat")
    built.leak(7, 0.25, 256, within="oom", tid=900, comm=b"cat")
    built.call("migrate", 8, 0.125, 1, 1, within="", tid=900, comm=b"cat")
    inner = {"within": "migrate", "tid": 900}
    built.call("ack", 8, 0.0625, 1, 1, queue="inflate", **inner)
    return built.ends(10)


BUSY = (4 - 1 - 0.25) + (1 - 0.5) + (0.5 - 0.125) + 0.25 + (0.125 - 0.0625)


def test_busy_time_has_every_moment_of_a_call_once(tmp_path: Path) -> None:
    cost = cost_of(everything(), tmp_path)
    assert cost["driver_busy_s"] == BUSY
    assert cost["driver_busy_share"] == BUSY / 10


def test_busy_time_of_a_span_cuts_calls_off(tmp_path: Path) -> None:
    busy = BusyTime(read_trace(everything().write(tmp_path / "r.btrace")))
    assert busy.between(ns(0), ns(10)) == BUSY
    assert busy.between(ns(3.5), ns(4.25)) == 0.25  # the end of the ack, then the fill's rest
    assert busy.between(ns(6.5), ns(6.875)) == 0.125
    assert busy.between(ns(2.25), ns(2.5)) == 0.5  # fill and kswapd at once
    assert busy.between(ns(9), ns(10)) == busy.between(ns(5), ns(5)) == 0
    edges = [0, 1.3, 2.1, 3.3, 6.6, 7.2, 10]
    parts = [busy.between(ns(a), ns(b)) for a, b in pairwise(edges)]
    assert sum(parts) == pytest.approx(BUSY, abs=1e-12)


SPANS = st.lists(st.tuples(st.integers(0, 50), st.integers(0, 20)), max_size=12)


@settings(max_examples=30, deadline=None)
@given(SPANS, SPANS, st.integers(0, 60), st.integers(0, 20))
def test_busy_time_equals_that_of_a_plain_loop(
    tmp_path_factory: pytest.TempPathFactory,
    fills: list[tuple[int, int]],
    scans: list[tuple[int, int]],
    start: int,
    length: int,
) -> None:
    built = Built()
    for at, took in fills:
        built.fill(at, took, 1, within="")
    for at, took in scans:
        built.call("scan", at, took, 1, 1, within="", tid=KSWAPD_TID)
    path = built.ends(100).write(tmp_path_factory.mktemp("busy") / "r.btrace")
    spans = [(at, at + took) for at, took in fills + scans]
    end = start + length
    expected = sum(max(0, min(b, end) - max(a, start)) for a, b in spans)
    assert BusyTime(read_trace(path)).between(ns(start), ns(end)) == expected


def test_busy_time_of_a_long_recording_with_many_calls_does_not_overflow(tmp_path: Path) -> None:
    built = Built()
    for second in range(3000):  # sums of their moments in ns are beyond 63 bits
        built.fill(4e6 + second, 0.5, 1)
    busy = BusyTime(read_trace(built.ends(5e6).write(tmp_path / "r.btrace")))
    assert busy.between(ns(0), ns(5e6)) == 1500
    assert busy.between(ns(4e6 + 10.25), ns(4e6 + 20.25)) == 5


def test_an_open_wait_for_the_host_is_not_busy(tmp_path: Path) -> None:
    built = Built().fill(1, None, 0, within="")
    built.call("ack", 3, None, 256, 0, queue="inflate", within="worker")
    assert cost_of(built.ends(1000), tmp_path)["driver_busy_s"] == 2


@pytest.mark.parametrize("seam", ["ack", "sleep"])
def test_busy_time_is_unknown_where_its_waits_are(tmp_path: Path, seam: str) -> None:
    built = everything()
    built.header["seams"][seam] = {"rung": None, "not": ["inlined"]}
    report = report_of(built, tmp_path)
    assert report.results["cost"].scalars["driver_busy_s"] is None
    assert report.results["cost"].scalars["driver_busy_share"] is None
    assert "busy in the driver: not recorded" in report_text(report)


def test_tasks_stalled_in_the_driver(tmp_path: Path) -> None:
    kswapd, cat = cost_of(everything(), tmp_path)["tasks"]
    assert kswapd == {
        "actor": "kswapd",
        "actor_kind": "kswapd",
        "calls": 1,
        "stalled_s": 0.5,
        "longest_s": 0.5,
        "host_ack_s": 0.125,
        "freed_pages": 512,
        "migrated_pages": 0,
        "scan_s": 0.5,
        "oom_notify_s": 0.0,
        "leak_s": 0.0,
        "migrate_s": 0.0,
    }
    assert (cat["actor"], cat["actor_kind"], cat["calls"]) == ("cat", "task", 2)
    assert (cat["stalled_s"], cat["longest_s"], cat["host_ack_s"]) == (0.375, 0.25, 0.0625)
    assert (cat["freed_pages"], cat["migrated_pages"]) == (256, 1)
    assert (cat["oom_notify_s"], cat["migrate_s"], cat["scan_s"]) == (0.25, 0.125, 0.0)


def test_pages_of_the_kernel_are_not_balloon_pages(tmp_path: Path) -> None:
    built = Built(base=999).call("oom_notify", 1, 0.5, 0, 16, within="", tid=9, comm=b"cat")
    built.leak(1, 0.5, 256, within="oom", tid=9).leak(3, 1, 32, within="remove", tid=9, comm=b"cat")
    built.call("migrate", 5, 0.125, 1, 1, within="", tid=9, comm=b"cat")
    built.header["guest"]["page_size"] = 65536
    (cat,) = cost_of(built.ends(9), tmp_path)["tasks"]
    assert (cat["freed_pages"], cat["migrated_pages"]) == (16 * 16 + 32, 16)


def test_a_leak_stands_for_a_scan_that_an_older_recorder_did_not_trace(tmp_path: Path) -> None:
    built = Built(base=999).leak(1, 0.5, 256, within="scan", tid=KSWAPD_TID)
    built.leak(3, 0.5, 256, within="worker scan")
    built.header["seams"]["scan"] = {"rung": None, "not": ["unknown"]}
    (kswapd,) = cost_of(built.ends(9), tmp_path)["tasks"]
    assert (kswapd["actor"], kswapd["stalled_s"], kswapd["leak_s"]) == ("kswapd", 0.5, 0.5)
    assert (kswapd["scan_s"], kswapd["oom_notify_s"]) == (None, 0.0)


def test_without_a_driver_there_is_no_cost_and_not_none(tmp_path: Path) -> None:
    built = Built().driver(0, "absent", vmstat={"before": vmstat(), "after": vmstat()}).ends(5)
    built.header |= {"seams": {}, "balloon": {}}
    report = report_of(built, tmp_path)
    assert report.results["cost"].missing == ["leak (the driver was not there)"]
    assert "Cost\n  not recorded: leak" in report_text(report)


def test_pressure_is_what_the_samples_saw(tmp_path: Path) -> None:
    built = Built().target(1.5, 256, 0).fill(1.5, 3, 256)
    built.samples += [psi(0, 7, 3), psi(2, 7.5, 3.25), psi(4, 8.5, 3.5), psi(9, 10, 4)]
    content = json.loads(report_json(report_of(built.ends(10), tmp_path)))
    cost, (episode,) = content["cost"], content["episodes"]
    assert (cost["psi_some_s"], cost["psi_full_s"], cost["psi_span_s"]) == (3, 1, 9)
    # From 1.5 s to 4.5 s: the samples at 2 s and 4 s are in it.
    psi_of_it = [episode[f"psi_{what}_s"] for what in ("some", "full", "span")]
    assert psi_of_it == [1, 0.25, 2]


def test_pressure_of_a_span_with_one_sample_is_not_known(tmp_path: Path) -> None:
    built = Built().target(1.5, 256, 0).fill(1.5, 1, 256)
    built.samples += [psi(0, 7, 3), psi(2, 7.5, 3.25), psi(4, 8.5, 3.5)]
    content = json.loads(report_json(report_of(built.ends(10), tmp_path)))
    (episode,) = content["episodes"]
    assert (episode["psi_some_s"], episode["psi_span_s"]) == (None, None)
    built.samples[1:] = []
    report = report_of(built, tmp_path)
    assert report.results["cost"].scalars["psi_full_s"] is None
    assert "memory pressure (PSI): not recorded" in report_text(report)


def reading(tid: int, began: float, **read: Any) -> dict[str, Any]:
    totals = {name: [count, round(seconds * 1e9)] for name, (count, seconds) in read.items()}
    return {str(tid): {"comm": "cat", "start_ns": ns(began), **totals}}


def test_delays_are_those_of_the_guest_s_tasks(tmp_path: Path) -> None:
    built = Built().ends(60)
    read = (
        reading(9, 3, cpu=(1, 0.5), reclaim=(2, 1.5))
        | reading(10, 3, cpu=(1, 0.25), reclaim=(2, 2.0))
        | reading(11, -30, cpu=(1, 99.0))  # older, and read once
        | reading(KSWAPD_TID, 3, cpu=(1, 7.0))
        | reading(RECORDER_PID, 3, cpu=(1, 8.0))
    )
    built.samples += [{"t_ns": ns(0), "delayacct": "on"}, {"t_ns": ns(9), "delays": read}]
    delays = cost_of(built, tmp_path)["delays"]
    assert (delays["tasks"], delays["unknown"]) == (3, 1)
    assert (delays["cpu_s"], delays["reclaim_s"]) == (0.75, 3.5)
    assert delays["compact_s"] is None


def test_delays_that_were_not_counted_are_not_zero(tmp_path: Path) -> None:
    built = Built().ends(60)
    read = reading(9, 3, cpu=(1, 0.5), reclaim=(0, 0.0))
    built.samples += [{"t_ns": ns(0), "delayacct": "off"}, {"t_ns": ns(9), "delays": read}]
    delays = cost_of(built, tmp_path)["delays"]
    assert (delays["cpu_s"], delays["reclaim_s"]) == (0.5, None)
    assert "the one task that was read: not known" in report_text(report_of(built, tmp_path))
    assert cost_of(Built().ends(1), tmp_path)["delays"] is None


def test_what_the_tracer_itself_caused_is_apart(tmp_path: Path) -> None:
    built = Built(base=9999)
    built.header["tasks"] |= {"netlink": 1250, "loader": LOADER_PID}
    built.header["attached_ns"] = ns(1)
    before, after = vmstat(), vmstat()
    built.gone(20, before).driver(30, "untraceable", why="no", loader=ATTACHER_PID)
    built.attached(40, before, after, loader=ATTACHER_PID + 1)
    for at, pages, pid, comm in (
        (0.5, 1, LOADER_PID, b"python3"),
        (2, 2, LOADER_PID, b"reused"),  # the loader had gone: a number that was used again
        (3, 4, RECORDER_PID, b"python3"),
        (4, 8, 1250, b"python3"),
        (25, 16, ATTACHER_PID, b"python3"),
        (35, 32, ATTACHER_PID + 1, b"python3"),
        (50, 64, 1400, b"python3"),
    ):
        fields = {"tid": pid + 5000, "pid": pid, "comm": comm}
        built.call("oom_notify", at, 0.5, 0, pages, within="", **fields)
        built.leak(at, 0.25, pages, within="oom", **fields)
    report = report_of(built.ends(60), tmp_path)
    rows = report.results["causes"].tables["causes"]
    found = [(row["actor"], row["actor_kind"], row["pages"]) for row in rows]
    assert found == [
        ("python3", "task", 64),
        ("the recorder itself", "recorder", 1 + 4 + 8 + 16 + 32),
        ("reused", "task", 2),
    ]
    own = [row for row in report.results["cost"].tables["tasks"] if row["actor_kind"] == "recorder"]
    assert [(row["calls"], row["freed_pages"], row["stalled_s"]) for row in own] == [(5, 61, 2.5)]
    text = report_text(report)
    assert "apart, by the recorder itself (oom): 61 pages out, 48.0 %, in 5 calls, 1.2 s" in text
    assert "the recorder itself: 2.5 s in 5 calls, 61 pages out" in text


def test_names_of_stalled_tasks_do_nothing_to_the_terminal(tmp_path: Path) -> None:
    built = Built(base=99).call("scan", 1, 1, 1, 1, within="", tid=9, comm=b"\x1b[2J\xffkswapd0")
    report = report_of(built.ends(3), tmp_path)
    assert "task \\x1b[2J\\xffkswapd0" in report_text(report)
    assert "\x1b" not in report_text(report)


def test_many_tasks_are_counted_and_fit_the_page(tmp_path: Path) -> None:
    built = Built(base=10**9)
    for n in range(12):
        comm = f"task-of-16-ch\x1b{n:02}".encode()
        built.call("scan", n, 99_999, 1, 10**9, within="", tid=n + 1, comm=comm)
    report = report_of(built.ends(200_000), tmp_path)
    assert max(map(len, report_text(report).splitlines())) < 100
    assert "and 2 more tasks" in report_text(report)
    assert "task-of-16-ch\\x1b11" in report_text(report, verbose=True)


def test_rates_tell_work_from_gain(tmp_path: Path) -> None:
    # 2 GiB in and 1 GiB out within 4 s, on the way up.
    built = Built().target(1, 10**6, 0).fill(1, 1, 2**19)
    built.leak(3, 1, 2**18, within="scan", tid=KSWAPD_TID).target(5, 0, 2**18)
    built.leak(5, 2, 2**18, within="worker")
    report = report_of(built.ends(9), tmp_path)
    up, down = report.results["episodes"].tables["episodes"]
    assert (up["moved_gib_per_s"], up["net_gib_per_s"]) == (0.75, 0.25)
    assert (down["moved_gib_per_s"], down["net_gib_per_s"]) == (0.5, 0.5)
    phases = report.results["phases"].scalars
    assert (phases["fill"]["gib_per_s"], phases["leak"]["gib_per_s"]) == (2.0, 2 / 3)


def test_published_figures_stand_beside_ours_for_those_who_ask(tmp_path: Path) -> None:
    built = Built().target(1, 2**18, 0).fill(1, 4, 2**18, within="")
    built.ack(2, 1, 2**18, "inflate", "worker").call("sleep", 3, 0.5, 0, 0, within="worker")
    built.target(9, 0, 2**18).leak(9, 0.5, 2**18, within="worker")
    report = report_of(built.ends(20), tmp_path)
    assert "Published" not in report_text(report)
    section = report_text(report, verbose=True).split("\nPublished elsewhere\n")[1]
    here = dict(re.findall(r"^  (fill: \w+|fill: host ack|\w+ating) +(\S+ \S+)  ", section, re.M))
    assert here == {
        "fill: allocation": "62.50 %",  # 4 - 1 - 0.5 of 4 s
        "fill: host ack": "25.00 %",
        "inflating": "0.25 GiB/s",
        "deflating": "2.00 GiB/s",
    }
    assert "68.3 % sending PFNs, 6.1 % address translation, 19 %" in section
    assert "lkml.iu.edu" in section
    assert max(map(len, section.splitlines())) < 100


def test_no_figure_of_ours_is_made_up(tmp_path: Path) -> None:
    built = Built().target(1, 999, 0).fill(1, 4, 256).ends(9)  # never reached
    built.header["seams"]["sleep"] = {"rung": None, "not": ["inlined"]}
    results = report_of(built, tmp_path).results
    here = {row["what"]: row["here"] for row in beside(results).tables["published"]}
    assert set(here.values()) == {None}
    assert {"fill: allocation", "fill: host ack", "inflating", "deflating"} < here.keys()


def test_the_docs_have_the_published_figures() -> None:
    page = (Path(__file__).parents[4] / "docs" / "report.md").read_text(encoding="utf-8")
    assert markdown() in page


def test_worker_tid_is_no_task_of_the_table(tmp_path: Path) -> None:
    built = Built(base=999).leak(1, 1, 256, within="worker", tid=WORKER_TID).ends(4)
    report = report_of(built, tmp_path)
    assert report.results["cost"].tables["tasks"] == []
    assert "no task but the size worker was in the driver's code" in report_text(report)


def test_the_driver_of_a_real_guest_was_busy_as_its_phases_say() -> None:
    data = Path(__file__).parents[3] / "data"
    for name in ("5.10-tour", "6.1-tour", "6.12-tour", "7.2-tour"):
        results = build(str(data / f"{name}.btrace")).results
        fill, cost = results["phases"].scalars["fill"], results["cost"]
        (host,) = [r for r in results["causes"].tables["causes"] if r["cause"] == "host"]
        stalled = sum(row["stalled_s"] - row["host_ack_s"] for row in cost.tables["tasks"])
        # The size worker's part is what is left; its leaks waited for the host for some of it.
        worker = cost.scalars["driver_busy_s"] - stalled
        without_leaks = fill["total_s"] - fill["host_ack_s"] - fill["sleep_s"]
        assert without_leaks <= worker + 1e-6 <= without_leaks + host["busy_s"]


def test_every_page_that_left_a_real_balloon_has_a_cause() -> None:
    for path in (Path(__file__).parents[3] / "data").glob("*.btrace"):
        results = build(str(path)).results
        pages = sum(row["pages"] for row in results["causes"].tables["causes"])
        assert pages == results["totals"].scalars["deflated_pages"] > 0
