# SPDX-License-Identifier: Apache-2.0
"""A guest that lacks memory beside its balloon: what shows each finding, and what must not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from balloontrace.analysis.report import Report, build
from balloontrace.tracers.load.description import UNTRACED
from tests.unit.builders import KINDS, Built, ns, vmstat

DATA = Path(__file__).parents[3] / "data"
MIB, MIB_PAGES = 1 << 20, 256


def at_rest(
    mib: int = 2048, available_mib: int = 60, seconds: int = 90, features: tuple[str, ...] = ()
) -> Built:
    """A guest of 4 GiB with a balloon at rest, and nothing that anybody waits for."""
    built = Built(base=mib * MIB_PAGES)
    built.header["balloon"]["features"] = list(features)
    built.header["guest"]["overcommit_memory"] = "0"
    for at in range(seconds + 1):
        counters = {**vmstat(built.base), **dict.fromkeys(_COUNTERS, 0)}
        sizes = {"MemTotal": 4096 * MIB, "MemFree": 30 * MIB, "MemAvailable": available_mib * MIB}
        if "deflate_on_oom" not in features:
            sizes["MemTotal"] -= mib * MIB
        pressure = {"memory": {"some_us": 0, "full_us": 0}}
        built.samples.append(
            {"t_ns": ns(at), "vmstat": counters, "meminfo": sizes, "psi": pressure}
        )
    return built.ends(seconds + 0.5)


_COUNTERS = (
    *("workingset_refault_file", "workingset_refault_anon", "pgmajfault", "allocstall_normal"),
    *("pswpin", "pswpout", "oom_kill"),
)


def grows(built: Built, since: int = 0, until: int = 1 << 30, **per_s: float) -> Built:
    """Counters (or `some`, `full`: shares of the time) that grow in each second of a span."""
    for at, sample in enumerate(built.samples):
        passed = max(0, min(at, until) - since)
        for name, rate in per_s.items():
            if name in ("some", "full"):
                sample["psi"]["memory"][f"{name}_us"] = round(passed * rate * 1e6)
            else:
                sample["vmstat"][name] = round(passed * rate)
    return built


def starving(**how: Any) -> Built:
    """It reads its programs again and again, and all its tasks wait for that."""
    built = at_rest(**how)
    return grows(built, some=0.9, full=0.7, pgmajfault=1200, workingset_refault_file=46_000)


def counted(built: Built) -> Built:
    """The same as `record --counters` tells it."""
    seam = {"rung": None, "number": 0, "loses": "", "not": [UNTRACED], "feature": ""}
    built.header |= {"counters": {"interval_s": 1.0}, "seams": dict.fromkeys(KINDS, seam)}
    return built


def report_of(built: Built, tmp_path: Path) -> Report:
    return build(built.write(tmp_path / "r.btrace"))


def found(built: Built, tmp_path: Path) -> dict[str, dict[str, Any]]:
    rows = report_of(built, tmp_path).results["findings"].tables["findings"]
    return {row["id"]: row for row in rows}


def test_held_under_pressure_says_how_much_less_to_ask_for(tmp_path: Path) -> None:
    for built in (starving(), starving(features=("deflate_on_oom",)), counted(starving())):
        row = found(built, tmp_path)["held-under-pressure"]
        evidence = row["evidence"]
        assert (row["severity"], row["certainty"]) == ("high", "medium")
        assert (evidence["start_s"], evidence["end_s"]) == (0, 90)
        assert (evidence["balloon_share"], evidence["psi_full_share"]) == (0.5, pytest.approx(0.7))
        # A tenth of 4 GiB is to be left, and 60 MiB are.
        assert evidence["less_bytes"] == 4096 * MIB // 10 - 60 * MIB
        assert evidence["most_pages"] == (2048 * MIB - evidence["less_bytes"]) // 4096
        assert "at least 350 MiB less, at most 1,698 MiB" in row["summary"]


def test_a_host_that_asked_for_less_is_not_what_holds_it(tmp_path: Path) -> None:
    said = found(starving(), tmp_path)["held-under-pressure"]["summary"]
    assert "its target did not change" in said
    said = found(counted(starving()), tmp_path)["held-under-pressure"]["summary"]
    assert "whether its target changed was not traced" in said
    asked = starving().target(1.0, 0, 2048 * MIB_PAGES)
    assert "held-under-pressure" not in found(asked, tmp_path)


@pytest.mark.parametrize("mib", [2560, 2100], ids=["raised", "lowered, to above its size"])
def test_a_host_that_asked_for_more_meanwhile_is_said(tmp_path: Path, mib: int) -> None:
    asked = starving().target(0.5, 3000 * MIB_PAGES, 2048 * MIB_PAGES)
    asked.target(30.0, mib * MIB_PAGES, 2048 * MIB_PAGES)
    said = found(asked, tmp_path)["held-under-pressure"]["summary"]
    assert "its target changed, and was never less than that" in said


def test_of_a_starving_spell_only_that_counts(tmp_path: Path) -> None:
    built = grows(at_rest(seconds=300), 100, 200, some=0.9, full=0.7, pgmajfault=500)
    evidence = found(built, tmp_path)["held-under-pressure"]["evidence"]
    assert 40 <= evidence["start_s"] <= 110
    assert 190 <= evidence["end_s"] <= 260


@pytest.mark.parametrize(
    "built",
    [
        starving(mib=300),  # a balloon of 7 % of RAM
        starving(available_mib=600),  # a container at its limit, in a guest that has memory
        starving(seconds=8),  # a burst
        grows(at_rest(), pgmajfault=1200, full=0.05, some=0.1),  # nobody waits
        # A large file that is read over and over, as in the founding experiment.
        grows(at_rest(), some=0.4, full=0.2, workingset_refault_file=22_000, pgmajfault=1),
        at_rest(),
        at_rest(available_mib=2000),
    ],
    ids=["small", "available", "burst", "nobody waits", "page cache", "little", "idle"],
)
def test_what_is_not_held_under_pressure(built: Built, tmp_path: Path) -> None:
    for one in (built, counted(built)):
        assert found(one, tmp_path) == {}


def test_while_the_balloon_moves_it_is_not_held(tmp_path: Path) -> None:
    built = starving()
    built.base, inflated = 0, 0
    built.header["vmstat_attach"] = {"before": vmstat(), "after": vmstat()}
    built.target(0.0, 2048 * MIB_PAGES, 0)
    for at, sample in enumerate(built.samples):
        sample["vmstat"] |= vmstat(inflated)
        if inflated < 2048 * MIB_PAGES:
            built.fill(at + 0.1, 0.1, 24 * MIB_PAGES)
            inflated += 24 * MIB_PAGES
    assert "held-under-pressure" not in found(built.ends(91), tmp_path)


def test_without_pressure_information_the_certainty_is_low(tmp_path: Path) -> None:
    built = starving()
    for sample in built.samples:
        sample["psi"] = {}
    report = report_of(built, tmp_path)
    (row,) = report.results["findings"].tables["findings"]
    assert (row["id"], row["certainty"]) == ("held-under-pressure", "low")
    assert report.results["verdict"].scalars["is_balloon"] is None


def killed(built: Built, at: int = 50, **flags: str) -> Built:
    """The OOM killer chose a victim."""
    done = {"tid": 70, "pid": 70, "comm": b"java", **flags}
    return grows(built.call("oom_kill", at - 0.5, 0.0, 0, 4242, **done), at - 1, at, oom_kill=1)


def test_killed_beside_a_balloon(tmp_path: Path) -> None:
    row = found(killed(at_rest(mib=400)), tmp_path)["killed-beside-balloon"]
    assert (row["severity"], row["certainty"]) == ("high", "high")
    (victim,) = row["evidence"]["victims"]
    assert (victim["victim"], victim["victim_pid"], victim["at_s"]) == ("java", 4242, 49.5)
    assert victim["balloon_share"] == pytest.approx(400 / 4096)
    assert (victim["available_bytes"], row["evidence"]["ram_bytes"]) == (60 * MIB, 4096 * MIB)
    assert "400 MiB, 10 % of the guest's RAM of 4,096 MiB" in row["summary"]


def test_killed_beside_a_balloon_where_the_mark_was_not_recorded(tmp_path: Path) -> None:
    lossy, counters = killed(at_rest()), counted(at_rest())
    lossy.header["seams"]["oom_kill"]["loses"] = "whether a memory cgroup was out of memory"
    for built in (lossy, grows(counters, 49, 50, oom_kill=1)):
        rows = found(built, tmp_path)
        assert rows.keys() == {"killed-beside-balloon"}
        assert rows["killed-beside-balloon"]["certainty"] == "medium"


@pytest.mark.parametrize("rung", ["", "whether a memory cgroup was out of memory"])
def test_a_container_that_is_killed_is_not_the_balloon(rung: str, tmp_path: Path) -> None:
    built = killed(at_rest(available_mib=1500), flags="" if rung else "memcg")
    built.header["seams"]["oom_kill"]["loses"] = rung
    rows = found(built, tmp_path)
    # On a rung that loses the mark nobody can say what it was.
    assert rows.keys() == (set() if rung else {"memcg-oom"})


@pytest.mark.parametrize(("mib", "features"), [(100, ()), (2048, ("deflate_on_oom",))])
def test_a_kill_that_the_balloon_is_not_to_blame_for(
    mib: int, features: tuple[str, ...], tmp_path: Path
) -> None:
    built = killed(at_rest(mib=mib, features=features))
    assert "killed-beside-balloon" not in found(built, tmp_path)


def swapping(out_mib: int, back_mib: int) -> Built:
    """An inflation by 1,000 MiB from 10 to 20 s, swap while it goes on, and later the way back."""
    built = at_rest(mib=0, available_mib=1000, features=("deflate_on_oom",))
    built.target(10.0, 1000 * MIB_PAGES, 0)
    for at in range(10, 20):
        built.fill(at + 0.1, 0.5, 100 * MIB_PAGES)
    grows(built, 10, 20, balloon_inflate=100 * MIB_PAGES, pswpout=out_mib * MIB_PAGES / 10)
    return grows(built, 40, 50, pswpin=back_mib * MIB_PAGES / 10).ends(91)


def test_swapped_by_inflation(tmp_path: Path) -> None:
    row = found(swapping(200, 100), tmp_path)["swapped-by-inflation"]
    assert (row["severity"], row["certainty"]) == ("medium", "medium")
    assert row["evidence"]["swapped_out_bytes"] == 200 * MIB
    assert row["evidence"]["swapped_in_bytes"] == 100 * MIB
    assert (row["evidence"]["start_s"], row["evidence"]["end_s"]) == (10, 20)
    assert found(counted(swapping(200, 100)), tmp_path).keys() == {"swapped-by-inflation"}


@pytest.mark.parametrize(("out", "back"), [(200, 40), (20, 20), (0, 100)])
def test_swap_that_does_no_harm(out: int, back: int, tmp_path: Path) -> None:
    assert found(swapping(out, back), tmp_path) == {}


CASES = {
    "thrash-at-rest": {"held-under-pressure"},
    "oom-kill-no-deflate": {"killed-beside-balloon"},
}


@pytest.mark.parametrize("name", CASES)
def test_cases_of_public_reports(name: str) -> None:
    report = build(str(DATA / "cases" / f"{name}.btrace"))
    assert {row["id"] for row in report.results["findings"].tables["findings"]} == CASES[name]
    verdict = report.results["verdict"].scalars
    assert verdict["is_balloon"] is True
    assert verdict["sentence"].startswith("the balloon is the cause")


@pytest.mark.parametrize("path", sorted(DATA.glob("*.btrace")), ids=lambda path: path.stem)
def test_none_of_them_in_guests_that_are_well_or_have_other_troubles(path: Path) -> None:
    results = build(str(path)).results["findings"]
    ids = {"held-under-pressure", "killed-beside-balloon", "swapped-by-inflation"}
    assert ids.isdisjoint(row["id"] for row in results.tables["findings"])
    assert ids <= {*results.scalars["checked"]}


def refused(committed: float = 0.97, mode: str = "2", times: int = 3, **how: Any) -> Built:
    """Tasks are refused memory, with so much of the limit committed."""
    built = at_rest(**how)
    built.header["guest"]["overcommit_memory"] = mode
    for sample in built.samples:
        limit = sample["meminfo"]["MemTotal"] // 2
        sample["meminfo"] |= {"CommitLimit": limit, "Committed_AS": round(limit * committed)}
    for number in range(times):
        built.call("refuse", 10 + number, 0.0, 0, 0, within="", tid=70, comm=b"postgres")
    return built


def test_allocations_refused_by_a_limit_that_the_balloon_lowered(tmp_path: Path) -> None:
    report = report_of(refused(), tmp_path)
    rows = {row["id"]: row for row in report.results["findings"].tables["findings"]}
    evidence = rows["allocation-refused"]["evidence"]
    assert (evidence["refused"], evidence["tasks"], evidence["most_refused"]) == (3, 1, "postgres")
    assert (evidence["start_s"], evidence["end_s"]) == (10, 12)
    assert evidence["commit_limit_bytes"] == 1024 * MIB
    assert evidence["balloon_share"] == 0.5
    assert report.results["verdict"].scalars["is_balloon"] is True


@pytest.mark.parametrize(
    "built",
    [
        refused(committed=0.6),  # who asked for more than half of the limit at once
        refused(mode="0"),  # more than there is, whatever the balloon holds
        refused(times=0),
        refused(mib=100),
        refused(features=("deflate_on_oom",)),  # the balloon is in the total
    ],
    ids=["room", "heuristic", "none", "small", "counted in"],
)
def test_other_refusals_are_not_the_balloons(built: Built, tmp_path: Path) -> None:
    assert "allocation-refused" not in found(built, tmp_path)


def test_a_guest_that_kills_all_day_is_counted_and_not_listed(tmp_path: Path) -> None:
    built = grows(at_rest(seconds=1200), oom_kill=2)
    memory = report_of(built, tmp_path).results["memory"]
    assert memory.scalars["oom_kills"] == 2400
    assert [row["kills"] for row in memory.tables["kills"]] == [2] * 1000


@pytest.mark.parametrize(("refaults", "hit"), [(0, False), (500, True)])
def test_the_size_worker_that_waits_for_memory_is_no_guest_that_starves(
    refaults: int, hit: bool, tmp_path: Path
) -> None:
    built = at_rest(available_mib=7)
    grows(built, some=0.2, full=0.15, allocstall_normal=80, workingset_refault_file=refaults)
    built.target(0.1, 3500 * MIB_PAGES, 2048 * MIB_PAGES)
    for number in range(300):
        built.call("sleep", 1 + number * 0.25, 0.2, 0, 0, within="worker")
    assert ("held-under-pressure" in found(built, tmp_path)) == hit
