# SPDX-License-Identifier: Apache-2.0
"""Balloons that are not virtio's, by what each leaves in sysfs, and what is said of them."""

from __future__ import annotations

from pathlib import Path

import pytest

from balloontrace.errors import EXIT_FAILURE, EXIT_UNSUPPORTED, UserError
from balloontrace.tracers.doctor.obstacles import obstacles
from balloontrace.tracers.load import launch
from balloontrace.tracers.load.untraceable import or_counters
from balloontrace.tracers.machine import balloon
from tests.unit.command_line import balloontrace


@pytest.fixture(autouse=True)
def devices(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The machine's virtio devices: none yet; and no other balloon."""
    monkeypatch.setattr(balloon, "_VIRTIO_DEVICES", str(tmp_path / "virtio"))
    others = {name: str(tmp_path / name) for name in balloon.OTHERS}
    monkeypatch.setattr(balloon, "OTHERS", others)
    return tmp_path


def plug(devices: Path, name: str, kind: int) -> None:
    (devices / "virtio" / name).mkdir(parents=True)
    (devices / "virtio" / name / "device").write_text(f"0x{kind:04x}\n")


@pytest.mark.parametrize("name", balloon.OTHERS)
def test_it_is_named(devices: Path, name: str) -> None:
    assert balloon.other() == ""
    (devices / name).mkdir()
    assert balloon.other() == name
    assert balloon.describe()["device"] == name
    assert str(dict(obstacles())["device"]).startswith(
        f"what takes memory here is {name}, which balloontrace does not trace"
    )


def test_virtio_mem_is_no_balloon(devices: Path) -> None:
    plug(devices, "virtio1", 24)
    assert balloon.device() == ""
    assert balloon.other() == "virtio_mem"
    plug(devices, "virtio3", 5)
    assert balloon.device().endswith("/virtio3")
    assert balloon.describe()["device"] == "virtio3"


def test_counters_without_a_balloon_are_worth_a_warning(
    devices: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    recorded: list[launch.Options] = []
    monkeypatch.setattr(launch, "record", recorded.append)
    balloontrace("record", "--counters")
    assert capsys.readouterr().err == "warning: no balloon is to be seen here\n"
    (devices / "hv_balloon").mkdir()
    balloontrace("record", "--counters")
    assert capsys.readouterr().err == ""
    assert [options.counters for options in recorded] == [True, True]


def test_counters_are_offered_where_there_is_a_balloon(devices: Path) -> None:
    refused = UserError("no BPF here", "boot another", EXIT_UNSUPPORTED)
    assert or_counters(refused) is refused
    plug(devices, "virtio1", 24)
    said = or_counters(refused)
    assert str(said).startswith("no BPF here; boot another; or record --counters")
    assert said.exit_code == EXIT_UNSUPPORTED
    mistaken = UserError("no such file", "", EXIT_FAILURE)
    assert or_counters(mistaken) is mistaken
