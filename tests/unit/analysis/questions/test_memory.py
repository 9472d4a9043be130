# SPDX-License-Identifier: Apache-2.0
"""What lack of memory cost and did: phases, OOM, and free pages told to the host."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from balloontrace.analysis.json import report_json
from balloontrace.analysis.questions.delays import DELAYS
from balloontrace.analysis.report import Report, build
from balloontrace.analysis.text.report import report_text
from balloontrace.events import UNKNOWN_PAGES
from tests.unit.builders import RECORDER_PID, Built, ns

NOTHING = {
    "sleeps": 0,
    "sleep_s": 0.0,
    "reclaims": 0,
    "reclaim_s": 0.0,
    "reclaimed_pages": 0,
    "compactions": 0,
    "compact_s": 0.0,
    "kswapd_wakes": 0,
}
NOT_OFFERED = {"rung": None, "not": ["the device does not offer the feature reporting"]}
"""As recordings of balloontrace 0.1 say it."""


def report_of(built: Built, tmp_path: Path) -> Report:
    return build(built.write(tmp_path / "r.btrace"))


def scalars(built: Built, tmp_path: Path, name: str) -> dict[str, Any]:
    return report_of(built, tmp_path).results[name].scalars


def fill_of(built: Built, tmp_path: Path) -> dict[str, Any]:
    fill: dict[str, Any] = scalars(built, tmp_path, "phases")["fill"]
    return fill


def test_phases_split_off_the_wait_for_the_host(tmp_path: Path) -> None:
    built = Built().fill(1, 1.0, 256).ack(1.7, 0.3, 256, "inflate", "worker")
    # Compaction inside the fill moved a page: not the fill's acks. Neither is a leak's.
    built.ack(1.1, 0.05, 1, "inflate", "worker migrate").ack(
        1.2, 0.05, 1, "deflate", "worker migrate"
    )
    built.leak(3, 0.5, 256, within="worker leak").ack(3.1, 0.2, 256, "deflate", "worker leak")
    phases = scalars(built.ends(5), tmp_path, "phases")
    assert phases["fill"] == {
        "calls": 1,
        "pages": 256,
        "total_s": 1.0,
        "gib_per_s": 256 / 2**18,
        "host_ack_s": 0.3,
        "rest_s": 0.7,
        "host_ack_share": 0.3,
        **NOTHING,
    }
    assert phases["leak"] == {
        "calls": 1,
        "pages": 256,
        "total_s": 0.5,
        "gib_per_s": 256 / 2**18 / 0.5,
        "host_ack_s": 0.2,
        "rest_s": 0.3,
        "host_ack_share": 0.4,
    }


def test_phases_without_acks_do_not_claim_there_were_none(tmp_path: Path) -> None:
    built = Built().fill(1, 1.0, 256).ends(3)
    built.header["seams"]["ack"] = {"rung": None, "not": ["tell_host is inlined"]}
    fill = fill_of(built, tmp_path)
    assert (fill["total_s"], fill["host_ack_s"], fill["rest_s"]) == (1.0, None, None)


def test_an_ack_whose_queue_cannot_be_seen_belongs_to_the_call_it_is_in(tmp_path: Path) -> None:
    built = Built().fill(1, 1.0, 256).ack(1.1, 0.25, 256, "other", "worker")
    built.ack(1.5, 0.125, 256, "other", "worker scan leak")
    built.leak(1.5, 0.25, 256, within="worker scan leak")
    phases = scalars(built.ends(3), tmp_path, "phases")
    assert (phases["fill"]["host_ack_s"], phases["leak"]["host_ack_s"]) == (0.25, 0.125)


def test_a_call_of_which_only_the_ack_was_seen_is_all_ack(tmp_path: Path) -> None:
    built = Built(base=999).leak(1, 0.5, 256, within="worker")
    built.ack(1, 0.5, 256, "deflate", "worker")
    built.fill(3, 0.25, 256, within="", flags="partial").ack(3, 0.25, 256, "inflate", "")
    built.ack(4, 0.25, 1, "inflate", "")  # of a migration that is not traced
    phases = scalars(built.ends(5), tmp_path, "phases")
    assert (phases["leak"]["host_ack_s"], phases["leak"]["rest_s"]) == (0.5, 0.0)
    assert (phases["fill"]["host_ack_s"], phases["fill"]["rest_s"]) == (0.25, 0.0)


def test_no_moment_of_a_fill_is_in_two_phases(tmp_path: Path) -> None:
    # 0.5 reclaim, in it a leak with its ack and a sleep; 0.25 compaction; 0.2 sleep; 1.0 ack.
    built = Built(base=999).fill(1, 4, 256)
    built.call("reclaim", 1, 0.5, 0, 40, within="worker")
    built.leak(1.1, 0.2, 256, within="worker scan leak")
    built.ack(1.2, 0.1, 256, "deflate", "worker scan leak")
    built.call("sleep", 1.4, 0.1, 0, 0, within="worker")
    built.call("compact", 1.5, 0.25, 0, UNKNOWN_PAGES, within="worker")
    built.call("kswapd_wake", 1.8, 0, 0, 0, within="worker")
    built.call("sleep", 2, 0.2, 0, 0, within="worker")
    built.ack(3, 1, 256, "inflate", "worker")
    fill = fill_of(built.ends(9), tmp_path)
    assert fill == {
        "calls": 1,
        "pages": 256,
        "total_s": 4.0,
        "gib_per_s": 256 / 2**18 / 4,
        "host_ack_s": 1.0,
        "host_ack_share": 0.25,
        "reclaims": 1,
        "reclaim_s": 0.5,
        "reclaimed_pages": 40,
        "compactions": 1,
        "compact_s": 0.25,
        "sleeps": 1,
        "sleep_s": 0.2,
        "kswapd_wakes": 1,
        "rest_s": pytest.approx(4 - 1 - 0.5 - 0.25 - 0.2),
    }


def test_what_the_allocations_did_is_printed_if_they_did(tmp_path: Path) -> None:
    built = Built().fill(1, 1, 256).call("sleep", 1, 0.2, 0, 0).call("sleep", 1.5, 0.2, 0, 0)
    report = report_of(built.ends(9), tmp_path)
    text = report_text(report)
    assert "Out of puff: 2 times, 400.0 ms (40.0 % of all fills)" in text
    assert "direct reclaim" not in text
    assert "direct reclaim: 0 times" in report_text(report, verbose=True)


def test_reclaimed_pages_are_balloon_pages(tmp_path: Path) -> None:
    built = Built().fill(1, 1, 256).call("reclaim", 1, 0.5, 0, 3)
    built.header["guest"]["page_size"] = 65536
    assert fill_of(built.ends(9), tmp_path)["reclaimed_pages"] == 48


def test_reclaim_that_was_not_traced_is_in_the_rest(tmp_path: Path) -> None:
    built = Built().fill(1, 1, 256).ack(1, 0.25, 256, "inflate", "worker").ends(9)
    built.header["seams"]["reclaim"] = {"rung": None, "not": ["no such tracepoint"]}
    fill = fill_of(built, tmp_path)
    assert (fill["reclaims"], fill["reclaim_s"], fill["reclaimed_pages"]) == (None, None, None)
    assert (fill["sleeps"], fill["rest_s"]) == (0, 0.75)
    assert "direct reclaim" not in report_text(report_of(built, tmp_path), verbose=True)


def killed(**more: Any) -> Built:
    """stress asks the notifier in vain, then is killed itself; then it has python3 killed."""
    built = Built().call("oom_notify", 1, 0.5, 0, 256, tid=70, comm=b"stress")
    built.call("oom_notify", 2, 0.25, 0, 0, tid=70, comm=b"stress")
    built.call("oom_kill", 2.5, 0, 0, 70, tid=70, comm=b"stress")
    return built.call("oom_kill", 3, 0, 0, 81, tid=70, comm=b"python3", **more)


def test_the_notifier_and_the_victims(tmp_path: Path) -> None:
    oom = report_of(killed().ends(9), tmp_path).results["oom"]
    assert oom.scalars == {
        "notifier_calls": 2,
        "notifier_calls_in_vain": 1,
        "notifier_pages": 256,
        "notifier_s": 0.75,
        "killed": 2,
        "vmstat_killed": None,
    }
    first, second = oom.tables["kills"]
    assert first == {
        "at_s": 2.5,
        "victim": "stress",
        "victim_pid": 70,
        "victim_cgroup": None,
        "memcg": False,
        "needed_by": "stress",
        "needed_by_pid": 70,
        "needed_by_cgroup": None,
        "balloon_pages": 0,
    }
    assert (second["victim"], second["victim_pid"]) == ("python3", 81)
    assert (second["needed_by"], second["needed_by_pid"]) == ("stress", 70)


def test_the_victim_of_a_memory_cgroup(tmp_path: Path) -> None:
    built = Built().call("oom_kill", 3, 0, 0, 81, tid=99, comm=b"nginx", flags="memcg")
    built.samples.append({"t_ns": ns(2), "cgroups": {"81": "/system.slice/web.service"}})
    report = report_of(built.ends(9), tmp_path)
    (kill,) = report.results["oom"].tables["kills"]
    # Nobody asked the notifier: who needed the memory has a number, and no name.
    assert (kill["memcg"], kill["needed_by"], kill["needed_by_pid"]) == (True, None, 99)
    line = next(line for line in report_text(report).splitlines() if "nginx" in line)
    assert re.split("  +", line.strip()) == [
        "3.0", "task nginx (web.service)", "81", "a memory cgroup", "-", "99",
    ]  # fmt: skip
    assert kill["victim_cgroup"] == "/system.slice/web.service"


def test_a_victim_s_name_does_nothing_to_the_terminal(tmp_path: Path) -> None:
    built = Built().call("oom_kill", 3, 0, 0, 81, tid=99, comm=b"\x1b[2J\xff[b]")
    report = report_of(built.ends(9), tmp_path)
    assert "task \\x1b[2J\\xff[b]" in report_text(report)
    assert json.loads(report_json(report))["oom"]["kills"][0]["victim"] == "\\x1b[2J\\xff[b]"


def test_a_rung_that_may_not_see_the_victim_names_nobody(tmp_path: Path) -> None:
    unseen = {"tid": 70, "comm": b"", "flags": "memcg"}
    built = killed().call("oom_kill", 4, 0, 0, UNKNOWN_PAGES, **unseen).ends(9)
    built.header["seams"]["oom_kill"]["loses"] = "the victim's name"
    kills = report_of(built, tmp_path).results["oom"].tables["kills"]
    assert [kill["victim"] for kill in kills] == ["stress", "python3", None]
    assert [kill["memcg"] for kill in kills] == [None, None, True]
    assert [kill["victim_pid"] for kill in kills] == [70, 81, None]


def test_kills_that_were_not_recorded_are_not_none(tmp_path: Path) -> None:
    built = Built().call("oom_notify", 1, 0.5, 0, 256, tid=RECORDER_PID).ends(9)
    built.header["seams"]["oom_kill"] = {"rung": None, "not": ["no tracepoint"]}
    report = report_of(built, tmp_path)
    assert report.results["oom"].scalars["killed"] is None
    assert "note: not recorded: oom_kill (no tracepoint)" in report_text(report)
    assert "nobody was killed" not in report_text(report)
    built.header["seams"]["oom_notify"] = {"rung": None, "not": ["inlined"]}
    missing = report_of(built, tmp_path).results["oom"].missing
    assert missing == ["oom_notify (inlined)", "oom_kill (no tracepoint)"]


def test_kills_that_only_the_kernel_counted_are_told_of(tmp_path: Path) -> None:
    built = killed().sample(0, {"oom_kill": 7}).sample(9, {"oom_kill": 9})
    report = report_of(built.ends(9), tmp_path)
    assert report.results["oom"].scalars["vmstat_killed"] == 2
    assert "/proc/vmstat counted" not in report_text(report)
    built = Built().sample(0, {"oom_kill": 7}).sample(9, {"oom_kill": 8}).ends(9)
    said = report_text(report_of(built, tmp_path))
    assert "/proc/vmstat counted OOM kills: 1, of which are here: 0" in said
    assert "nobody was killed" not in said


def test_free_pages(tmp_path: Path) -> None:
    built = Built().call("report", 1, 0.5, 1024, 1024).call("report", 2, 0.25, 512, 0)
    built.call("report", 8, None, 512, 0)  # still open: neither reported nor refused
    built.call("hint", 3, 1, 0, 4096).call("hint", 5, 0.5, 0, 1024, flags="returned")
    report = report_of(built.ends(9), tmp_path)
    scalars = report.results["free_pages"].scalars
    assert scalars["reporting_offered"] is True
    counts = {"calls": 3, "refused": 1, "pages": 1024, "total_s": 1.75}
    assert counts.items() <= scalars["reporting"].items()
    lent = {"calls": 2, "lent_pages": 4096, "returned_pages": 1024, "total_s": 1.5}
    assert scalars["hinting"] == lent
    text = report_text(report)
    assert (
        "reporting: 3 calls, 1,024 pages reported, 1.8 s (19.4 % of the time), refused once" in text
    )
    assert "had not returned at the end: begun at 8.0 s, open for 1.0 s" in text
    assert "hinting: 2 calls, 4,096 pages lent, 1,024 taken back, 1.5 s" in text


def test_free_pages_that_cannot_be_seen_are_not_zero(tmp_path: Path) -> None:
    unknown = UNKNOWN_PAGES
    built = Built().call("report", 1, 0.5, unknown, unknown).call("hint", 3, 1, 0, 4096).ends(9)
    built.header["seams"]["hint"]["loses"] = "pages taken back"
    found = scalars(built, tmp_path, "free_pages")
    assert found["reporting"]["pages"] is None
    assert (found["hinting"]["lent_pages"], found["hinting"]["returned_pages"]) == (4096, None)


def test_delays_of_tasks_fit_the_page(tmp_path: Path) -> None:
    built = Built().ends(60)
    for tid in range(12):
        read = {name: [10**6, 10**11] for name in DELAYS}
        task = {"comm": f"task-of-16-ch\x1b{tid:02}", "start_ns": ns(3), **read}
        built.samples.append({"t_ns": ns(9), "delays": {str(4_000_000 + tid): task}})
    report = report_of(built, tmp_path)
    text = report_text(report)
    assert max(map(len, text.splitlines())) < 100
    assert "and 2 more tasks" in text
    assert "\x1b" not in text
    assert "task-of-16-ch\\x1b11" in report_text(report, verbose=True)
    assert "Delays" not in report_text(report_of(Built().ends(1), tmp_path))


def needs_features(built: Built) -> Built:
    """Its seams report and hint are traced, whether or not their features are negotiated."""
    built.header["seams"]["report"]["feature"] = "reporting"
    built.header["seams"]["hint"]["feature"] = "free_page_hint"
    return built


def not_offered(built: Built) -> Built:
    built.header["seams"] |= {"report": NOT_OFFERED, "hint": NOT_OFFERED}
    return built


@pytest.mark.parametrize("recorded", [needs_features, not_offered], ids=["now", "0.1"])
def test_what_is_not_negotiated_takes_one_line(
    recorded: Callable[[Built], Built], tmp_path: Path
) -> None:
    built = recorded(Built().ends(3))
    report = report_of(built, tmp_path)
    text = report_text(report)
    assert "Free pages" not in text
    assert "all 22 attached, none loses anything" in text
    assert "nothing to trace, its feature is not negotiated: report, hint" in text
    verbose = report_text(report, verbose=True)
    assert "Free pages\n  not recorded: report (" in verbose
    rows = {row["seam"]: row for row in report.results["seams"].tables["seams"]}
    assert (rows["hint"]["negotiated"], rows["sleep"]["negotiated"]) == (False, True)


def test_a_device_that_is_plugged_in_later_has_its_own_features(tmp_path: Path) -> None:
    built = needs_features(Built())
    later = {**built.header["balloon"], "device": "virtio7", "features": ["reporting"]}
    built.header["balloon"] |= {"device": None, "features": []}
    built.driver(2, "negotiated", balloon=later).call("report", 3, 0.5, 1024, 1024)
    report = report_of(built.ends(9), tmp_path)
    guest = report.results["guest"].scalars
    assert (guest["device"], guest["features"]) == ("virtio7", ["reporting"])
    free = report.results["free_pages"].scalars
    assert free["reporting"]["pages"] == 1024
    assert free["hinting"] is None
    rows = {row["seam"]: row for row in report.results["seams"].tables["seams"]}
    assert (rows["report"]["negotiated"], rows["hint"]["negotiated"]) == (True, False)
    assert report.results["driver"].tables["gaps"] == []


def test_a_negotiated_feature_that_cannot_be_traced_is_in_the_table(tmp_path: Path) -> None:
    built = Built().ends(3)
    built.header["seams"]["report"] = {"rung": None, "not": ["this kernel has no such function"]}
    seams = report_text(report_of(built, tmp_path)).split("\nSeams\n")[1]
    assert "report  not attached  this kernel has no such function" in seams
