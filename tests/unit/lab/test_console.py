# SPDX-License-Identifier: Apache-2.0
"""What the console watcher makes of a guest's last words."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from balloontrace.lab.console import READY, Console


def followed(tmp_path: Path, *lines: str) -> Console:
    console = Console(tmp_path / "console.log")
    console.follow(f"{line}\n" for line in lines)
    return console


def test_ready_is_seen_and_the_log_is_complete(tmp_path: Path) -> None:
    console = followed(tmp_path, "booting", READY)
    assert console.wait_ready(0.0)
    assert (tmp_path / "console.log").read_text() == f"booting\n{READY}\n"


def test_a_panic_is_trouble_even_after_ready(tmp_path: Path) -> None:
    panic = "[ 3.1] Kernel panic - not syncing: Attempted to kill init!"
    console = followed(tmp_path, READY, panic, "more")
    assert not console.wait_ready(0.0)
    assert console.trouble == panic
    assert console.tail() == [READY, panic, "more"]


def test_the_end_of_qemu_wakes_a_waiter_at_once(tmp_path: Path) -> None:
    console = Console(tmp_path / "console.log")
    follower = threading.Timer(0.05, console.follow, args=(["qemu: no such device"],))
    follower.start()
    assert not console.wait_ready(30.0)
    follower.join()
    assert console.trouble == "QEMU ended"
    assert console.tail() == ["qemu: no such device"]


def test_silence_is_not_waited_for_forever(tmp_path: Path) -> None:
    console = Console(tmp_path / "console.log")
    assert not console.wait_ready(0.01)
    assert console.trouble == ""
    assert console.silent
    assert not followed(tmp_path, "[ 0.1] a word").silent
    assert not followed(tmp_path).silent  # QEMU ended


OOPS = (
    "[    1.171043] Oops: int3: 0000 [#1] PREEMPT SMP NOPTI",  # 6.12
    "[    1.171043] int3: 0000 [#1] PREEMPT SMP NOPTI",  # 6.1
    "qemu-system-x86_64: system/physmem.c:2678: iotlb_to_section: "  # 10.0.2
    "Assertion `section_index < d->map.sections_nb' failed.",
)


@pytest.mark.parametrize("oops", OOPS)
def test_the_emulators_oops_is_told_from_any_other(tmp_path: Path, oops: str) -> None:
    console = followed(tmp_path, "booting", oops, "[ 1.2] Kernel panic - not syncing: Fatal")
    assert not console.wait_ready(0.0)
    assert console.emulator_oops == console.trouble == oops
    others = "[ 1.2] Oops: 0000 [#1] PREEMPT SMP", "[ 1.3] RIP: 0010:int3_0000", "qemu: killed"
    for line in others:
        other = followed(tmp_path, line)
        assert other.emulator_oops == other.trouble.replace("QEMU ended", "") == ""


def test_a_timer_that_did_not_fire_may_be_the_emulators_and_is_waited_for(tmp_path: Path) -> None:
    line = "rcu: \tPossible timer handling issue on cpu=1 timer-softirq=8"
    stuck = followed(tmp_path, "rcu: INFO: rcu_preempt detected stalls on CPUs/tasks:", line)
    assert (stuck.emulator_oops, stuck.trouble) == (line, "QEMU ended")
    slow = followed(tmp_path, line, "balloontrace-lab: ready")
    assert slow.wait_ready(0)
