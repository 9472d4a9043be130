# SPDX-License-Identifier: Apache-2.0
"""A driver that is unloaded, loaded and bound again while a recording goes on."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from balloontrace.lab.guest import Guest
from balloontrace.lab.loads import (
    MEMORY_BYTES,
    MIB_PAGES,
    SUSPEND_SEAMS,
    load,
    move_balloon,
    report,
    suspend,
    unload,
)
from balloontrace.lab.qemu import GuestConfig
from balloontrace.recording.reader import Recording
from tests.guest.conftest import Recorder, report_of
from tests.guest.guests import Guests

Fetch = Callable[..., Recording]

ASLEEP_S = 3.0


def _states(recording: Recording) -> list[str]:
    return [sample["driver"]["state"] for sample in recording.samples if "driver" in sample]


def _ended(recorder: Recorder, fetch: Fetch) -> tuple[Recording, dict[str, Any]]:
    """End a recording; returns it and its report."""
    assert recorder.stop()[0] == 0
    recording = fetch(recorder.guest)
    return recording, report_of(recording)


def _pages(report: dict[str, Any]) -> tuple[int, int]:
    return report["totals"]["inflated_pages"], report["totals"]["deflated_pages"]


@pytest.mark.oldest_and_newest
def test_a_driver_that_is_loaded_again_is_traced_again(stock: Guest, fetch: Fetch) -> None:
    move_balloon(stock, 30 * MIB_PAGES)
    recorder = Recorder(stock, "--means", "kprobe")  # the other means keep the module loaded
    unload(stock)
    recorder.await_state("gone")
    load(stock)
    move_balloon(stock, 30 * MIB_PAGES)  # what the host still wants
    recorder.await_state("attached")
    move_balloon(stock, 5 * MIB_PAGES)
    recording, report = _ended(recorder, fetch)
    assert _states(recording) == ["gone", "attached"]
    assert report["reconciliation"]["agrees"] is True
    inflated, deflated = _pages(report)
    assert inflated <= 30 * MIB_PAGES  # the rest was taken before the probes were there again
    assert deflated == (30 + 25) * MIB_PAGES
    (gap,) = report["driver"]["gaps"]
    least, most = gap["inflated_pages"]
    assert least <= 30 * MIB_PAGES - inflated <= most
    move_balloon(stock, 0)


@pytest.mark.oldest_and_newest
def test_a_suspended_guest_empties_and_refills_its_balloon(
    kernel: str, fetch: Fetch, guests: Guests
) -> None:
    # A guest of its own: not every emulated machine survives its sleep.
    with guests.own(GuestConfig(kernel, memory_bytes=MEMORY_BYTES)) as guest:
        recorder = Recorder(guest)
        suspend(guest, ASLEEP_S)
        _, report = _ended(recorder, fetch)
    events = {seam["seam"]: seam["events"] for seam in report["seams"]}
    assert [events[seam] for seam in SUSPEND_SEAMS] == [1, 1]
    # By the guest's real-time clock, which counts seconds.
    assert ASLEEP_S - 1.5 <= report["driver"]["suspended_s"] < ASLEEP_S + 30
    assert {cause["cause"]: cause["pages"] for cause in report["causes"]} == {
        "freeze": 10 * MIB_PAGES
    }
    assert _pages(report) == (20 * MIB_PAGES, 10 * MIB_PAGES)
    assert report["reconciliation"]["exact"] is True


@pytest.mark.one_kernel
def test_a_recording_can_wait_for_the_driver(stock: Guest, fetch: Fetch) -> None:
    move_balloon(stock, 0)
    unload(stock)
    recorder = Recorder(stock, "--wait")
    load(stock)
    recorder.await_state("attached")
    move_balloon(stock, 12 * MIB_PAGES)
    recording, report = _ended(recorder, fetch)
    assert _states(recording) == ["absent", "attached"]
    assert _pages(report) == (12 * MIB_PAGES, 0)
    assert report["reconciliation"]["agrees"] is True
    assert report["reconciliation"]["exact"] is True
    move_balloon(stock, 0)


@pytest.mark.one_kernel
def test_a_device_that_is_plugged_in_later_is_waited_for_and_traced(
    kernel: str, fetch: Fetch, guests: Guests
) -> None:
    config = GuestConfig(kernel, "none", memory_bytes=MEMORY_BYTES, reporting=True)
    with guests.own(config) as guest:
        guest.run(
            "modprobe virtio_balloon; cd /sys/bus/pci/devices; "
            'echo 1 > "$(dirname "$(grep -l 0x1002 */device)")/remove"'
        )
        refused = guest.run("balloontrace record -o /root/no -d 1s", check=False)
        recorder = Recorder(guest, "--wait")
        guest.run("echo 1 > /sys/bus/pci/rescan")
        recorder.await_state("negotiated")
        move_balloon(guest, 12 * MIB_PAGES)
        report(guest)
        recording, said = _ended(recorder, fetch)
    assert refused.returncode == 3
    assert "no virtio balloon device" in refused.stderr
    assert recording.header["balloon"]["device"] is None
    assert recording.header["balloon"]["features"] == []
    assert "reporting" in said["guest"]["features"]
    assert said["free_pages"]["reporting"]["pages"] > 0
    assert _pages(said) == (12 * MIB_PAGES, 0)
    assert said["reconciliation"]["exact"] is True
