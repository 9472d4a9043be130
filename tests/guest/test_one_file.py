# SPDX-License-Identifier: Apache-2.0
"""The one file of `balloontrace bundle` in guests whose userspace has a Python, and no more."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from balloontrace.lab.guest import Guest
from balloontrace.lab.loads import MEMORY_BYTES, MIB_PAGES, move_balloon
from balloontrace.lab.qemu import GuestConfig
from balloontrace.recording.reader import Recording
from tests.guest.conftest import Recorder, balloon_counters, report_of
from tests.guest.guests import Guests

Fetch = Callable[..., Recording]

OF_THE_WHOLE_PACKAGE = ("bcc", "typer", "pyroute2")
INSTALLED = (
    "import importlib.util, sys; print([n for n in sys.argv[1:] if importlib.util.find_spec(n)])"
)


# Debian 11's modprobe does not see that micro's drivers are built in.
@pytest.fixture(params=[pytest.param("bare", marks=pytest.mark.micro), "debian-11"])
def bare(request: pytest.FixtureRequest, kernel: str, guests: Guests) -> Guest:
    """A guest with that userspace: its ``balloontrace`` is the one file."""
    guest = guests.get(GuestConfig(kernel, userspace=request.param, memory_bytes=MEMORY_BYTES))
    move_balloon(guest, 0)  # another test may have had it
    return guest


def test_it_counts_to_the_page_from_its_first_start(bare: Guest, fetch: Fetch) -> None:
    assert bare.run(["python3", "-c", INSTALLED, *OF_THE_WHOLE_PACKAGE]).stdout == "[]\n"
    before = balloon_counters(bare)
    recorder = Recorder(bare)
    move_balloon(bare, 300 * MIB_PAGES + 7)  # no multiple of the driver's chunk of 256
    move_balloon(bare, 0)
    status, _, said = recorder.stop()
    after = balloon_counters(bare)

    recording = fetch(bare)
    report = report_of(recording)
    assert status == 0, said
    assert recording.header["code"] == "shipped"
    assert report["complete"] is True
    assert report["lost_events"] == 0
    totals = report["totals"]
    assert totals["inflated_pages"] == 300 * MIB_PAGES + 7 == after[0] - before[0]
    assert totals["deflated_pages"] == 300 * MIB_PAGES + 7 == after[1] - before[1]
    assert report["reconciliation"]["exact"] is True
    assert [episode["outcome"] for episode in report["episodes"]] == ["reached", "reached"]
    assert report["delays"]["tasks"], report["delays"]  # by the pyroute2 that is in it


@pytest.mark.one_kernel
def test_its_doctor_says_that_it_will(bare: Guest) -> None:
    said = json.loads(bare.run(["balloontrace", "doctor", "--json"]).stdout)
    assert said["works"] is True, said
    assert said["why"] == ""
