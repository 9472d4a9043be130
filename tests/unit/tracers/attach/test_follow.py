# SPDX-License-Identifier: Apache-2.0
"""The driver as sysfs shows it: what a device negotiates later, and one that goes while it is
attached to."""

from __future__ import annotations

import os
import select
from pathlib import Path
from typing import Any, NoReturn

import pytest

from balloontrace.errors import UserError
from balloontrace.tracers.attach import attaching, follow
from balloontrace.tracers.attach.follow import Follower
from balloontrace.tracers.attach.handover import Handover, detach
from balloontrace.tracers.machine import balloon, bpf_info, capabilities

DEFLATE_ON_OOM, STATS = 2, 1


class Sysfs:
    """Of a guest with the driver, whose device can come."""

    def __init__(self, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.driver, self._devices = root / "driver", root / "devices"
        monkeypatch.setattr(balloon, "DRIVER", str(self.driver))
        monkeypatch.setattr(balloon, "_VIRTIO_DEVICES", str(self._devices))
        self.driver.mkdir()

    def plug_in(self, *features: int) -> None:
        """A device that has negotiated so much with the driver."""
        device = self._devices / "virtio3"
        device.mkdir(parents=True, exist_ok=True)
        (device / "device").write_text(f"0x{balloon.VIRTIO_ID_BALLOON:04x}\n")
        bits = "".join("1" if bit in (*features, 32) else "0" for bit in range(64))
        (device / "features").write_text(f"{bits}\n")


class Control:
    """Where the phase stands that the programs read."""

    def enter_phase(self, name: str) -> None:
        """It is not read here."""


@pytest.fixture
def sysfs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Sysfs:
    """With the driver loaded."""
    return Sysfs(tmp_path, monkeypatch)


def following(told: list[dict[str, Any]]) -> Follower:
    """Of what is there, traced."""
    described = attaching.nothing().described
    described |= {"driver_identity": balloon.identity(), "tasks": {}}
    described["balloon"]["driver"] = {"symbols": ["fill_balloon"]}
    given = Handover(described, {}, [], [], [])
    control: Any = Control()
    return Follower(given, {}, control, told.append)


def states(told: list[dict[str, Any]]) -> list[str]:
    """What was told of the driver."""
    return [sample["driver"]["state"] for sample in told]


def test_what_is_negotiated_later_stands_in_the_headers_that_come_after_it(sysfs: Sysfs) -> None:
    told: list[dict[str, Any]] = []
    follower = following(told)
    assert follower.content["balloon"]["features"] == []
    for features in ((STATS,), (STATS, DEFLATE_ON_OOM)):
        sysfs.plug_in(*features)
        follower.check()
        assert follower.content["balloon"] == told[-1]["driver"]["balloon"]
        assert follower.content["balloon"]["driver"] == {"symbols": ["fill_balloon"]}
    assert states(told) == ["negotiated", "negotiated"]
    assert follower.content["balloon"]["device"] == "virtio3"
    assert follower.content["balloon"]["features"] == ["stats_vq", "deflate_on_oom", "version_1"]


def test_a_driver_that_goes_while_it_is_attached_to_is_not_attached(
    sysfs: Sysfs, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[dict[str, Any]] = []
    sysfs.driver.rmdir()
    follower = following(told)
    nothing = Handover(attaching.nothing().described, {}, [], [], [])
    monkeypatch.setattr(Follower, "_attach", lambda _: nothing)
    sysfs.driver.mkdir()
    follower.check()
    assert follower.is_there
    sysfs.driver.rmdir()
    _await_child(follower)
    follower.check()
    assert (follower.is_there, follower.is_traced, told) == (False, False, [])


@pytest.fixture
def loaded_again(sysfs: Sysfs, monkeypatch: pytest.MonkeyPatch) -> Follower:
    """Follows a driver that was not there, is attached to, and has other functions."""
    sysfs.driver.rmdir()
    follower = following([])
    described = attaching.nothing().described | {"calls": {"leak": ["leak_balloon.isra.0"]}}
    monkeypatch.setattr(
        Follower,
        "_attach",
        lambda _: Handover({**described, "driver_identity": balloon.identity()}, {}, [], [], []),
    )
    monkeypatch.setattr(follow, "balloon_counters", dict)
    sysfs.driver.mkdir()
    follower.check()
    _await_child(follower)
    follower.check()
    assert follower.is_traced
    return follower


def test_open_calls_are_those_of_the_driver_that_is_there(loaded_again: Follower) -> None:
    assert loaded_again.functions == {"leak": ["leak_balloon.isra.0"]}


def test_what_the_kernel_missed_before_the_driver_went_is_not_forgotten(
    loaded_again: Follower, sysfs: Sysfs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bpf_info, "missed_by_programs", lambda held: 3 * len(held))
    loaded_again._programs = [os.open(os.devnull, os.O_RDONLY)]
    assert loaded_again.kernel_missed() == 3
    sysfs.driver.rmdir()
    loaded_again.check()
    assert not loaded_again.is_there
    assert loaded_again.kernel_missed() == 3


def test_where_no_process_can_be_begun_it_is_tried_again(
    sysfs: Sysfs, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[dict[str, Any]] = []
    sysfs.driver.rmdir()
    follower = following(told)
    sysfs.driver.mkdir()
    with monkeypatch.context() as refusing:
        refusing.setattr(os, "fork", _refuse)
        for _ in range(3):
            follower.check()
    assert (follower.is_there, follower.is_traced, states(told)) == (True, False, ["untraceable"])
    described = attaching.nothing().described | {"driver_identity": balloon.identity()}
    monkeypatch.setattr(follow, "balloon_counters", dict)
    monkeypatch.setattr(Follower, "_attach", lambda _: Handover(described, {}, [], [], []))
    follower.check()
    _await_child(follower)
    follower.check()
    assert (follower.is_traced, states(told)) == (True, ["untraceable", "attached"])


def test_one_that_could_not_be_traced_goes_too(
    sysfs: Sysfs, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_: Follower) -> NoReturn:
        raise UserError("it has other functions")

    told: list[dict[str, Any]] = []
    sysfs.driver.rmdir()
    follower = following(told)
    monkeypatch.setattr(Follower, "_attach", refuse)
    monkeypatch.setattr(follow, "balloon_counters", dict)
    sysfs.driver.mkdir()
    follower.check()
    _await_child(follower)
    for _ in range(3):
        follower.check()
    assert (follower.is_there, states(told)) == (True, ["untraceable"])
    follower.tell_absent()  # as where another segment begins
    assert states(told) == ["untraceable", "absent", "untraceable"]
    assert told[2]["driver"]["why"] == "it has other functions"
    del told[1:]
    sysfs.driver.rmdir()
    follower.check()
    assert (follower.is_there, states(told)) == (False, ["untraceable", "gone"])


def test_all_are_closed_where_there_can_be_no_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> NoReturn:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr("_thread.start_new_thread", refuse)
    held = [os.open(os.devnull, os.O_RDONLY) for _ in range(10)]
    detach(held)
    for descriptor in held:
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(descriptor)


def test_what_is_needed_is_not_found_out_where_there_can_be_no_process(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(os, "fork", _refuse)
    assert capabilities.needed() == (*capabilities.RECORD, "sys_admin")


def _refuse() -> NoReturn:
    raise BlockingIOError(11, "Resource temporarily unavailable")


def _await_child(follower: Follower) -> None:
    assert follower._attaching
    select.select([follower._attaching[1]], [], [])
