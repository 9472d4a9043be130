# SPDX-License-Identifier: Apache-2.0
"""Triggers: what fires while it happens, from where on, how often, and what must not."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from balloontrace.analysis.report import report_of
from balloontrace.analysis.trace.trace import Trace, read_trace
from balloontrace.conditions.triggers import FINDINGS, MOST_KEPT, Moment, Progress, Triggers
from balloontrace.sums import SLOTS, Sum, longest_ns
from tests.unit.analysis.findings.test_findings import ping_pong, sleepy, slow
from tests.unit.builders import Built, shrinker_like, stock_like
from tests.unit.conditions.replay import moments

SECOND = 1_000_000_000
PAGES_OF_GIB = 262_144
DATA = Path(__file__).parents[2] / "data"
RECORDINGS = sorted(DATA.glob("**/*.btrace"))


class Guest:
    """A guest of 4 GiB as it is watched, with little memory left; `second` lets one pass, and says
    what fired then."""

    def __init__(self, size: int = 0, target: int = 0, **options: Any) -> None:
        self.size, self.target, self.attached = size, target, True
        self.t_ns = 1000 * SECOND
        self.sums: dict[str, Sum] = {}
        self.vmstat = {"pgmajfault": 0, "allocstall_normal": 0, "pswpin": 0, "oom_kill": 0}
        self.vmstat |= {"workingset_refault_file": 0, "workingset_refault_anon": 0}
        self.meminfo = {"MemTotal": 4 << 30, "MemAvailable": 100 << 20}
        self.psi = {"memory": {"some_us": 0, "full_us": 0}}
        self.triggers, self.progress = Triggers(**options), Progress()
        self.second()

    def calls(self, row: str, calls: int = 1, done: int = 0, each_s: float = 0.0) -> None:
        """Calls that have returned; each_s: how long each took."""
        before = self.sums.get(row, Sum(0, 0, 0, 0, [0] * SLOTS))
        each_ns, slots = round(each_s * SECOND), [*before.slots]
        slot = next(i for i in range(SLOTS) if each_ns <= (longest_ns(i) or each_ns))
        slots[slot] += calls if each_ns else 0
        totals = (before.calls + calls, 0, before.done + done, before.ns + calls * each_ns)
        self.sums[row] = Sum(*totals, slots)

    def fill(self, pages: int) -> None:
        self.size += pages
        self.calls("fill", -(-pages // 256), pages)

    def leak(self, cause: str, pages: int) -> None:
        self.size -= pages
        self.calls(f"leak {cause}", -(-pages // 256), pages)

    def given_to_oom(self, pages: int) -> None:
        self.calls("oom_notify")
        self.leak("oom", pages)

    def starve(self, faults: int = 100, stalls: int = 0, full_s: float = 0.5) -> None:
        """One second of it."""
        self.vmstat["pgmajfault"] += faults
        self.vmstat["allocstall_normal"] += stalls
        self.psi["memory"]["full_us"] += round(full_s * 1e6)

    def moment(self) -> Moment:
        sample: dict[str, Any] = {"vmstat": {**self.vmstat}, "meminfo": {**self.meminfo}}
        sample["psi"] = {"memory": {**self.psi["memory"]}}
        return Moment(self.t_ns, {**self.sums}, sample, self.size, self.target, self.attached)

    def second(self, passed_s: float = 1.0) -> list[str]:
        self.t_ns += round(passed_s * SECOND)
        moment = self.moment()
        self.progress.add(moment)
        return self.triggers.fired(moment)

    def seconds(self, number: int, each: Callable[[Guest], object] = lambda _: None) -> list[str]:
        """What fired in so many seconds, in each of which this happens."""
        fired = []
        for _ in range(number):
            each(self)
            fired += self.second()
        return fired


def no_op(guest: Guest, taken: int = 25_600, back: int = 25_600) -> None:
    guest.fill(taken)
    guest.leak("shrinker", back)


def retake(guest: Guest, pages: int = 512) -> None:
    """What the notifier gives is taken again within the second."""
    guest.given_to_oom(pages)
    guest.fill(pages)


def puff(guest: Guest, times: int = 5) -> None:
    guest.calls("sleep", times, each_s=0.204)


def wait(guest: Guest, acks: int = 1, each_s: float = 0.5) -> None:
    guest.calls("ack inflate", acks, 256, each_s)
    guest.calls("fill", acks, 256, each_s)


def starve(guest: Guest) -> None:
    guest.starve()


def kill(guest: Guest) -> None:
    guest.calls("oom_kill")


def leave(guest: Guest) -> None:
    guest.attached = False


def come(guest: Guest) -> None:
    guest.attached = True


BOUTS: dict[str, tuple[int, int, Callable[[Guest], None], int, Callable[[Guest], None] | None]] = {
    "busy-no-op": (0, 500_000, no_op, 10, None),
    "oom-ping-pong": (PAGES_OF_GIB, PAGES_OF_GIB, retake, 8, None),
    "out-of-puff": (100_000, 200_000, puff, 3, None),
    "slow-host-ack": (0, 0, wait, 5, None),
    "held-under-pressure": (PAGES_OF_GIB, PAGES_OF_GIB, starve, 14, None),
    "oom-kill": (PAGES_OF_GIB, PAGES_OF_GIB, kill, 1, None),
    "driver-gone": (0, 0, leave, 3, come),
}
"""Size, target, what happens each second, how many of these are enough, and what ends it."""


def test_every_trigger_is_tried() -> None:
    assert tuple(BOUTS) == FINDINGS


@pytest.mark.parametrize("name", BOUTS)
def test_each_fires_once_a_bout_and_again_after_a_calm(name: str) -> None:
    size, target, happens, seconds, ends = BOUTS[name]
    guest = Guest(size, target)
    assert guest.seconds(seconds, happens) == [name]
    assert guest.seconds(120, happens) == []
    if ends:
        ends(guest)
    assert guest.seconds(150) == []
    assert guest.seconds(seconds, happens) == [name]


@pytest.mark.parametrize("name", BOUTS)
def test_a_short_calm_does_not_end_a_bout(name: str) -> None:
    size, target, happens, seconds, ends = BOUTS[name]
    guest = Guest(size, target)
    assert guest.seconds(seconds, happens) == [name]
    if ends:
        ends(guest)
    guest.seconds(20)
    assert guest.seconds(seconds, happens) == []


@pytest.mark.parametrize("passed_s", [3600.0, -3600.0])
@pytest.mark.parametrize("name", [name for name in BOUTS if name != "oom-kill"])
def test_a_gap_in_time_begins_anew(name: str, passed_s: float) -> None:
    size, target, happens, seconds, _ = BOUTS[name]
    guest = Guest(size, target)
    until = 0
    while not guest.seconds(1, happens):
        until += 1
    guest = Guest(size, target)
    guest.seconds(until, happens)
    happens(guest)
    assert guest.second(passed_s) == []
    if name == "driver-gone":  # that one was there before is not known any more
        assert guest.seconds(seconds, happens) == []
    else:
        assert guest.seconds(min(until, 3), happens) == []
        assert guest.seconds(seconds, happens) == [name]


@pytest.mark.parametrize("name", BOUTS)
def test_only_what_is_wanted_fires(name: str) -> None:
    size, target, happens, seconds, _ = BOUTS[name]
    others = [other for other in FINDINGS if other != name]
    assert Guest(size, target, wanted=others).seconds(seconds, happens) == []
    assert Guest(size, target, wanted=[name]).seconds(seconds, happens) == [name]


def test_what_is_unknown_cannot_be_wanted() -> None:
    with pytest.raises(ValueError, match="no such trigger: oscillation"):
        Triggers(["out-of-puff", "oscillation"])


def test_a_clock_that_jumps_a_little_is_no_stall() -> None:
    guest = Guest(100_000, 200_000)
    puff(guest, 2)
    assert guest.second(4.9) == []
    guest = Guest(PAGES_OF_GIB, PAGES_OF_GIB)
    for _ in range(3):
        guest.starve(10_000, full_s=5)
        assert guest.second(4.9) == []


def busy(rounds: int, taken: int, back: int, before: int = 0) -> list[str]:
    """before: pages that went in, and stayed, in the first second."""
    guest = Guest(0, 10 * PAGES_OF_GIB)
    guest.fill(before)
    guest.second()
    return guest.seconds(rounds, lambda guest: no_op(guest, taken, back))


@pytest.mark.parametrize(
    ("rounds", "taken", "back", "fires"),
    [
        (10, 256, 256, True),
        (9, 256, 256, False),  # 2,304 pages: fewer than ten chunks
        (3, 25_600, 25_600, False),  # for 4 s
        (4, 25_600, 25_600, True),
        (10, 25_600, 12_900, True),
        (10, 25_600, 12_700, False),  # the balloon gains more than reclaim takes
        (10, 25_600, 0, False),
    ],
)
def test_busy_no_op_begins_at_its_thresholds(
    rounds: int, taken: int, back: int, fires: bool
) -> None:
    assert bool(busy(rounds, taken, back)) == fires


def test_a_no_op_at_the_end_of_a_good_inflation_is_none_yet() -> None:
    guest = Guest(0, 10 * PAGES_OF_GIB)
    guest.second()
    guest.seconds(5, lambda guest: guest.fill(40_000))
    assert guest.seconds(6, no_op) == []  # 153,600 pages of 353,600, but 200,000 stay


def test_a_no_op_after_the_target_was_reached_fires() -> None:
    guest = Guest(100_000, 100_000)
    assert guest.seconds(10, no_op) == ["busy-no-op"]


def test_reclaim_of_what_had_been_reached_between_two_looks_is_no_no_op() -> None:
    # 6.1-shrinker-reclaim: reached within the second; then reclaim takes, and nothing goes in.
    guest = Guest(0, 128_000)
    guest.fill(128_000)
    guest.leak("shrinker", 30_000)
    assert guest.second() == []
    assert guest.seconds(20, lambda guest: guest.leak("shrinker", 2000)) == []


def ponged(rounds: int, retaken: int, **changes: int) -> list[str]:
    """A chunk is given back each second, and the first so many are taken again in the next."""
    guest = Guest(PAGES_OF_GIB, PAGES_OF_GIB)
    fired = []
    for number in range(rounds):
        guest.given_to_oom(256)
        fired += guest.second()
        if number < retaken:
            guest.target += changes.get("target", 0)
            guest.calls("target", changes.get("targets", 0))
            guest.calls("bind", changes.get("binds", 0))
            guest.fill(256)
        fired += guest.second()
    return fired


@pytest.mark.parametrize(
    ("rounds", "retaken", "fires"), [(11, 9, False), (11, 10, True), (30, 0, False)]
)
def test_oom_ping_pong_begins_at_its_threshold(rounds: int, retaken: int, fires: bool) -> None:
    assert ponged(rounds, retaken) == ["oom-ping-pong"] * fires


@pytest.mark.parametrize(("first", "fires"), [(39, True), (40, False)])
def test_a_quarter_must_be_taken_again(first: int, fires: bool) -> None:
    guest = Guest(PAGES_OF_GIB, PAGES_OF_GIB)
    guest.seconds(first, lambda guest: guest.given_to_oom(256))
    fired: list[str] = []
    for _ in range(10):
        guest.fill(256)
        fired += guest.second()
    guest.given_to_oom(256)
    assert fired == []
    assert guest.second() == ["oom-ping-pong"] * fires


@pytest.mark.parametrize("changes", [{"target": 256}, {"targets": 2}, {"binds": 1}])
def test_what_is_taken_for_another_target_or_driver_is_no_ping_pong(
    changes: dict[str, int],
) -> None:
    assert ponged(30, 30, **changes) == []


def test_what_is_taken_when_the_need_is_over_is_no_ping_pong() -> None:
    guest = Guest(PAGES_OF_GIB, PAGES_OF_GIB)
    guest.seconds(20, lambda guest: guest.given_to_oom(256))
    assert guest.seconds(20, lambda guest: guest.fill(256)) == []
    guest.seconds(31)
    guest.given_to_oom(256)
    assert guest.second() == []  # another bout


@pytest.mark.parametrize(
    ("sleeps", "each_s", "fires"),
    [(4, 0.204, False), (5, 0.204, True), (9, 0.11, False), (7, 0.14, False)],
)
def test_out_of_puff_begins_at_its_threshold(sleeps: int, each_s: float, fires: bool) -> None:
    guest = Guest(100_000, 200_000)
    guest.calls("sleep", sleeps, each_s=each_s)
    assert guest.second() == ["out-of-puff"] * fires


def test_sleeps_after_which_inflation_goes_on_are_kswapd_being_late() -> None:
    def late(guest: Guest) -> None:
        puff(guest, 3)
        guest.fill(256)

    assert Guest(100_000, 200_000).seconds(30, late) == []


def test_a_worker_that_sleeps_while_the_notifier_gives_back_is_out_of_puff() -> None:
    def torn(guest: Guest) -> None:
        puff(guest)
        guest.fill(256)
        guest.given_to_oom(256)

    guest = Guest(100_000, 200_000)
    assert guest.seconds(1, torn) == []  # it may have got further meanwhile
    assert guest.seconds(2, torn) == ["out-of-puff"]


def test_sleeps_of_a_busy_no_op_are_not_out_of_puff() -> None:
    guest = Guest(0, 500_000)
    guest.fill(50_000)
    guest.leak("shrinker", 25_000)
    guest.second()

    def both(guest: Guest) -> None:
        no_op(guest, 2560, 2560)
        puff(guest)

    assert guest.seconds(10, both) == ["busy-no-op"]


@pytest.mark.parametrize(("size", "target"), [(200_000, 200_000), (200_000, 100_000)])
def test_a_worker_that_is_not_short_of_its_target_has_puff(size: int, target: int) -> None:
    assert Guest(size, target).seconds(5, puff) == []


def test_what_slept_before_the_target_was_reached_again_is_forgotten() -> None:
    guest = Guest(200_000, 200_000)
    guest.leak("oom", 1024)
    puff(guest, 4)
    guest.second()
    guest.fill(1024)
    guest.second()
    guest.leak("oom", 1024)
    puff(guest, 4)
    assert guest.seconds(3) == []


@pytest.mark.parametrize(
    ("acks", "each_s", "moving_s", "fires"),
    [
        (15, 0.14, 0.0, True),  # 15 times 134 ms at least: 2.01 s
        (14, 0.14, 0.0, False),  # 1.96 s
        (40, 0.099, 0.0, False),
        (2, 1.5, 0.0, False),  # a guest that was stopped meanwhile
        (4, 0.51, 6.0, True),  # 2.04 of 8.04 s
        (4, 0.51, 6.2, False),
    ],
)
def test_slow_host_begins_at_its_thresholds(
    acks: int, each_s: float, moving_s: float, fires: bool
) -> None:
    guest = Guest()
    guest.calls("ack deflate", 400, 102_400, 0.001)
    guest.calls("leak host", 1, 102_400, moving_s)
    guest.calls("ack inflate", acks, 256 * acks, each_s)
    guest.calls("fill", acks, 256 * acks, each_s)
    assert guest.second() == ["slow-host-ack"] * fires


def test_a_guest_that_had_memory_a_minute_ago_does_not_starve_yet() -> None:
    guest = Guest(PAGES_OF_GIB, PAGES_OF_GIB)
    guest.meminfo["MemAvailable"] = 2 << 30
    guest.seconds(70)
    guest.meminfo["MemAvailable"] = 100 << 20
    assert guest.seconds(60, starve) == []
    assert guest.seconds(2, starve) == ["held-under-pressure"]


def held(size: int, seconds: int, target: int | None = None, **starve: Any) -> list[str]:
    guest = Guest(size, size if target is None else target)
    return guest.seconds(seconds, lambda guest: guest.starve(**starve))


TENTH = 104_858  # pages of 4 GiB and one more


@pytest.mark.parametrize(
    ("size", "seconds", "starve", "fires"),
    [
        (2 * TENTH, 10, {}, True),
        (2 * TENTH, 9, {}, False),
        (TENTH - 2, 60, {}, False),
        (2 * TENTH, 60, {"faults": 20}, True),
        (2 * TENTH, 60, {"faults": 19}, False),
        (2 * TENTH, 60, {"faults": 19, "stalls": 10}, True),
        (2 * TENTH, 60, {"full_s": 0.1}, True),
        (2 * TENTH, 60, {"full_s": 0.099}, False),
    ],
)
def test_held_under_pressure_begins_at_its_thresholds(
    size: int, seconds: int, starve: dict[str, Any], fires: bool
) -> None:
    assert held(size, seconds, **starve) == ["held-under-pressure"] * fires


def test_a_balloon_that_shall_shrink_holds_nothing() -> None:
    assert held(2 * TENTH, 60, target=TENTH) == []


def test_a_balloon_that_moves_holds_nothing() -> None:
    def moving(guest: Guest) -> None:
        guest.starve()
        guest.leak("oom", 6000)

    assert Guest(4 * TENTH, 4 * TENTH).seconds(60, moving) == []


@pytest.mark.parametrize(("faults", "fires"), [(0, False), (1, True)])
def test_a_worker_that_stalls_for_pages_is_no_starvation(faults: int, fires: bool) -> None:
    def stalling(guest: Guest) -> None:
        guest.starve(faults=faults, stalls=50)
        puff(guest, 1)

    guest = Guest(2 * TENTH, 4 * TENTH, wanted=["held-under-pressure"])
    assert guest.seconds(60, stalling) == ["held-under-pressure"] * fires


@pytest.mark.parametrize("lacks", ["psi", "meminfo", "vmstat"])
def test_without_a_source_nothing_is_known_of_pressure(lacks: str) -> None:
    guest = Guest(2 * TENTH, 2 * TENTH)
    for _ in range(60):
        guest.starve()
        guest.t_ns += SECOND
        moment = guest.moment()
        del moment.sample[lacks]
        assert guest.triggers.fired(moment) == []


@pytest.mark.parametrize(
    ("features", "available_mib", "fires"),
    # MemTotal 4 GiB; with the balloon's 4 GiB beside it RAM is 8 GiB.
    [
        (["deflate_on_oom", "version_1"], 500, False),
        ([], 500, False),  # no driver yet, or none that tells
        (["version_1"], 500, True),
        ([], 400, True),
    ],
)
@pytest.mark.parametrize("later", [False, True])
def test_ram_is_what_the_features_say(
    features: list[str], available_mib: int, fires: bool, later: bool
) -> None:
    def starving(guest: Guest) -> None:
        guest.starve()
        guest.meminfo["MemAvailable"] = available_mib << 20

    other = ["version_1"] if "deflate_on_oom" in features else ["deflate_on_oom"]
    guest = Guest(4 * PAGES_OF_GIB, 4 * PAGES_OF_GIB, features=other if later else features)
    guest.triggers.negotiated(features)
    assert guest.seconds(15, starving) == ["held-under-pressure"] * fires


@pytest.mark.parametrize(("size", "fires"), [(10_592, True), (10_590, False), (0, False)])
def test_a_kill_fires_beside_a_balloon_of_a_hundredth_of_ram(size: int, fires: bool) -> None:
    # 1 % of 4 GiB and, as it may be, of what the balloon holds beside it.
    for counted in (False, True):
        guest = Guest(size, size)
        if counted:
            guest.vmstat["oom_kill"] += 1
        else:
            kill(guest)
        assert guest.second() == ["oom-kill"] * fires


@pytest.mark.parametrize("moved", [-PAGES_OF_GIB, PAGES_OF_GIB])
def test_a_kill_beside_an_empty_balloon_is_not_beside_it(moved: int) -> None:
    guest = Guest(max(0, -moved), PAGES_OF_GIB)
    guest.size += moved  # what it held was given back before, or went in after it
    kill(guest)
    assert guest.second() == []


def test_a_driver_that_comes_back_at_once_was_not_gone() -> None:
    guest = Guest()
    leave(guest)
    assert guest.second() == []
    come(guest)
    assert guest.seconds(5) == []


def test_a_driver_that_was_never_there_did_not_leave() -> None:
    guest = Guest()
    guest.triggers = Triggers()
    assert guest.seconds(60, leave) == []


def test_an_unbound_driver_is_gone_until_it_is_bound() -> None:
    guest = Guest()
    guest.calls("remove")
    guest.calls("bind", done=1)
    assert guest.seconds(5) == []
    guest.calls("remove")
    assert guest.seconds(3) == ["driver-gone"]
    guest.calls("bind", done=1)
    guest.seconds(70)
    guest.calls("remove")
    assert guest.seconds(3) == ["driver-gone"]


def test_programs_that_count_from_zero_again_move_nothing() -> None:
    guest = Guest(100_000, 200_000)
    guest.seconds(3, lambda guest: guest.fill(1000))
    leave(guest)
    guest.sums, guest.size = {}, 0
    assert guest.seconds(3) == ["driver-gone"]
    come(guest)
    assert guest.seconds(3, lambda guest: guest.fill(1000)) == []


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.integers(0, 100_000), min_size=1, max_size=30),
    st.lists(st.integers(1, 100_000), min_size=1, max_size=30),
    st.integers(0, 90),
    st.floats(0.2, 4.9),
)
def test_a_healthy_balloon_fires_nothing(
    up: list[int], down: list[int], rest: int, each_s: float
) -> None:
    guest = Guest(features=["deflate_on_oom"])
    fired: list[str] = []
    guest.target = sum(up)
    for pages in up:
        guest.fill(pages)
        guest.calls("ack inflate", -(-pages // 256), pages, 0.002)
        fired += guest.second(each_s)
    fired += guest.seconds(rest)
    guest.target = max(0, guest.size - sum(down))
    for pages in down:
        guest.leak("host", min(pages, guest.size - guest.target))
        fired += guest.second(each_s)
    assert fired == []
    assert guest.progress.no_progress_ns == 0
    assert guest.progress.progress_pages == sum(up) + min(sum(up), sum(down))


def test_what_is_kept_is_bounded() -> None:
    guest = Guest(0, 10 * PAGES_OF_GIB)
    most = 0
    for number in range(100_000):
        no_op(guest, 256, 256)
        guest.second(0.01 if number % 5000 < 2500 else 1.0)
        most = max(most, guest.triggers.kept)
    assert most == MOST_KEPT
    assert guest.triggers.kept <= 61


def test_progress_is_what_was_never_reached_before() -> None:
    guest = Guest(0, 1000)
    guest.fill(400)
    guest.second()
    no_op(guest, 100, 200)
    guest.second()
    guest.fill(150)  # 450: 50 further than ever
    guest.second()
    guest.second(2.0)  # at rest
    assert (guest.progress.progress_pages, guest.progress.no_progress_ns) == (450, SECOND)


def test_another_target_is_another_progress() -> None:
    guest = Guest(1000, 1000)
    guest.target = 200
    guest.leak("host", 500)
    guest.second()
    guest.target = 800
    guest.fill(100)
    guest.second()
    assert (guest.progress.progress_pages, guest.progress.no_progress_ns) == (600, 0)


def test_time_before_a_target_is_no_time_under_it() -> None:
    guest = Guest(1000, 1000)
    guest.target = 1500
    no_op(guest, 100, 100)
    guest.second()
    assert guest.progress.no_progress_ns == 0
    no_op(guest, 100, 100)
    guest.second()
    assert guest.progress.no_progress_ns == SECOND


def test_a_gap_is_neither_progress_nor_its_lack() -> None:
    guest = Guest(0, 1000)
    guest.fill(400)
    guest.second(3600)
    no_op(guest, 100, 200)
    guest.second(-60)
    assert (guest.progress.progress_pages, guest.progress.no_progress_ns) == (0, 0)


def fired_in(trace: Trace) -> set[str]:
    triggers = Triggers(features=trace.balloon.get("features"))
    return {name for moment in moments(trace) for name in triggers.fired(moment)}


def found_in(trace: Trace) -> set[str]:
    """The findings, as the triggers call them."""
    kills = ("killed-beside-balloon", "memcg-oom")
    rows = report_of(trace).results["findings"].tables["findings"]
    found = {"oom-kill" if row["id"] in kills else row["id"] for row in rows}
    return found & set(FINDINGS)


@pytest.mark.parametrize("path", RECORDINGS, ids=lambda path: path.stem)
def test_what_fires_in_a_recording_is_what_the_report_finds(path: Path) -> None:
    trace = read_trace(str(path))
    assert fired_in(trace) == found_in(trace)


def test_recordings_show_most_of_what_can_fire() -> None:
    shown = set().union(*(fired_in(read_trace(str(path))) for path in RECORDINGS))
    assert shown == {"out-of-puff", "held-under-pressure", "oom-kill", "driver-gone"}


@pytest.mark.parametrize(
    ("built", "found"),
    [
        (shrinker_like(), {"busy-no-op"}),
        (ping_pong(41, 20).ends(60), {"oom-ping-pong"}),
        (ping_pong(41, 0).ends(60), set()),
        (sleepy(6).ends(20), {"out-of-puff"}),
        (sleepy(4).ends(9), set()),
        (slow(6, 0.5), {"slow-host-ack"}),
        (stock_like(), set()),
    ],
    ids=["shrinker", "ping-pong", "given", "sleepy", "few-sleeps", "slow-host", "stock"],
)
def test_what_fires_in_a_constructed_recording_is_what_the_report_finds(
    built: Built, found: set[str], tmp_path: Path
) -> None:
    trace = read_trace(built.write(tmp_path / "r.btrace"))
    assert fired_in(trace) == found_in(trace) == found
