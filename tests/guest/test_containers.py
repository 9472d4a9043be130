# SPDX-License-Identifier: Apache-2.0
"""The one file in containers of podman, which have the guest's own root file system."""

from __future__ import annotations

from collections.abc import Callable
from signal import SIGINT
from typing import Any

import pytest

from balloontrace.lab.guest import Guest
from balloontrace.lab.loads import MEMORY_BYTES, MIB_PAGES, move_balloon
from balloontrace.lab.qemu import GuestConfig
from balloontrace.recording.reader import Recording
from tests.guest.conftest import balloon_counters, report_of
from tests.guest.guests import Guests

pytestmark = pytest.mark.one_kernel

Fetch = Callable[..., Recording]

PAGES = 300 * MIB_PAGES + 7
RUN = "exec podman --cgroup-manager=cgroupfs run --rm --network=none --volume=/root:/out"


@pytest.fixture
def host(kernel: str, guests: Guests) -> Guest:
    """A guest in which there is podman."""
    return guests.get(GuestConfig(kernel, userspace="podman", memory_bytes=MEMORY_BYTES))


def recorded_in(container: str, options: str, host: Guest, fetch: Fetch) -> dict[str, Any]:
    """The report of a recording made in a container, while the balloon moved in and out."""
    host.run("rm -f /root/contained.btrace /root/ready")
    record = f"balloontrace record {options} -o /out/contained.btrace --ready-file /out/ready"
    recorder = host.popen(["sh", "-c", f"{RUN} {container} --rootfs /:O {record}"])
    host.run(f"until [ -e /root/ready ]; do kill -0 {recorder.pid} || exit 1; sleep 0.2; done")
    before = balloon_counters(host)
    move_balloon(host, PAGES)
    move_balloon(host, 0)
    after = balloon_counters(host)
    recorder.send_signal(SIGINT)
    status, _, said = recorder.communicate()
    assert status == 0, said
    report = report_of(fetch(host, "/root/contained.btrace"))
    totals = report["totals"]
    assert report["complete"] is True
    assert totals["inflated_pages"] == PAGES == after[0] - before[0]
    assert totals["deflated_pages"] == PAGES == after[1] - before[1]
    return report


@pytest.mark.parametrize("container", ["--privileged", "--privileged --pid=host"])
def test_a_privileged_container_traces(container: str, host: Guest, fetch: Fetch) -> None:
    report = recorded_in(container, "", host, fetch)
    assert report["reconciliation"]["exact"] is True
    assert report["lost_events"] == 0
    assert [episode["outcome"] for episode in report["episodes"]] == ["reached", "reached"]


def test_any_other_container_reads_counters(host: Guest, fetch: Fetch) -> None:
    refused = host.run(f"{RUN} --rootfs /:O balloontrace record -o /dev/null", check=False)
    assert refused.returncode == 3
    assert "or record --counters" in refused.stderr
    report = recorded_in("", "--counters", host, fetch)
    assert report["counters"]["kswapd_cpu_s"] is None  # the kernel's threads are not to be seen
