# SPDX-License-Identifier: Apache-2.0
"""`balloontrace doctor` in real guests: tells what a recording has, and leaves nothing behind."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from balloontrace.lab.guest import Guest
from balloontrace.lab.loads import MEMORY_BYTES, MIB_PAGES, move_balloon
from balloontrace.lab.qemu import GuestConfig
from balloontrace.recording.reader import Recording
from balloontrace.tracers.load.untraceable import INSTEAD
from tests.guest.conftest import Recorder
from tests.guest.guests import Guests

Fetch = Callable[..., Recording]

FREED_S = 60.0
"""The kernel frees programs in its own time."""

NOBODY = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]


@pytest.fixture
def shrinking_total(kernel: str, guests: Guests) -> Guest:
    """A guest whose device does not offer deflate_on_oom."""
    return guests.get(GuestConfig(kernel, memory_bytes=MEMORY_BYTES, deflate_on_oom=False))


def _doctor(guest: Guest, status: int = 0, prefix: tuple[str, ...] = ()) -> dict[str, Any]:
    done = guest.run([*prefix, "balloontrace", "doctor", "--json"], check=False)
    assert done.returncode == status, done.stdout + done.stderr
    assert done.stderr == ""
    said: dict[str, Any] = json.loads(done.stdout)
    assert said["works"] is (status == 0)
    return said


def _attached(guest: Guest) -> list[str]:
    """Every kprobe of the guest, and every BPF program."""
    show = "cat /sys/kernel/debug/kprobes/list; bpftool prog show | grep -v cgroup || true"
    guest.run("mountpoint -q /sys/kernel/debug || mount -t debugfs none /sys/kernel/debug")
    return guest.run(show).stdout.splitlines()


@pytest.mark.micro
def test_seams_are_those_of_a_recording(stock: Guest, fetch: Fetch) -> None:
    said = _doctor(stock)
    recorder = Recorder(stock)
    assert recorder.stop()[0] == 0
    header = fetch(stock).header
    assert said["seams"] == header["seams"]
    assert any(seam["rung"] for seam in said["seams"].values())
    assert said["balloon"]["features"] == header["balloon"]["features"]
    assert said["why"] == ""


@pytest.mark.one_kernel
def test_nothing_stays_attached(stock: Guest) -> None:
    recorder = Recorder(stock)
    assert _attached(stock)  # it would be seen
    assert recorder.stop()[0] == 0
    _await_detached(stock)
    done = stock.run(["balloontrace", "doctor"])
    assert done.stdout.splitlines()[-1] == "record will work"
    _await_detached(stock)


def _await_detached(guest: Guest) -> None:
    deadline = time.monotonic() + FREED_S
    while left := _attached(guest):
        assert time.monotonic() < deadline, left
        time.sleep(0.1)


def _full_and_empty(guest: Guest) -> tuple[dict[str, Any], dict[str, Any]]:
    """What doctor says of a balloon of 100 MiB, and of an empty one."""
    move_balloon(guest, 100 * MIB_PAGES)
    full = _doctor(guest)["balloon"]
    move_balloon(guest, 0)
    return full, _doctor(guest)["balloon"]


@pytest.mark.one_kernel
def test_the_balloon_counts_as_used_with_deflate_on_oom(stock: Guest) -> None:
    full, empty = _full_and_empty(stock)
    assert full["accounting"] == "used"
    assert (full["size_bytes"], empty["size_bytes"]) == (100 << 20, 0)
    assert full["mem_total_bytes"] == empty["mem_total_bytes"]
    assert full["behaviour"] == "oom-notifier"


@pytest.mark.one_kernel
def test_the_total_shrinks_without_deflate_on_oom(shrinking_total: Guest) -> None:
    full, empty = _full_and_empty(shrinking_total)
    assert full["accounting"] == "total"
    assert full["size_bytes"] == 100 << 20
    assert full["mem_total_bytes"] + full["size_bytes"] == empty["mem_total_bytes"]
    assert full["behaviour"] == "none"


@pytest.mark.one_kernel
def test_a_driver_that_is_not_loaded(stock: Guest) -> None:
    stock.run("rmmod virtio_balloon")
    try:
        done = stock.run(["balloontrace", "doctor"], check=False)
        said = _doctor(stock, status=3)
    finally:
        stock.run("modprobe virtio_balloon")
    assert done.returncode == 3
    assert done.stdout.splitlines()[-1] == (
        "record will not work: the balloon's driver is not loaded; "
        "modprobe virtio_balloon, or record --wait until it is"
    )
    assert said["balloon"]["device"]
    assert said["balloon"]["driver"]["loaded"] is False
    assert said["balloon"]["features"] is said["balloon"]["behaviour"] is None
    assert said["seams"] == {}
    shipped = "not needed: the programs are shipped compiled, loaded in "
    assert said["tools"]["bcc"]["found"].startswith(shipped)


@pytest.mark.one_kernel
def test_without_root_it_says_what_it_saw(stock: Guest) -> None:
    said = _doctor(stock, status=3, prefix=tuple(NOBODY))
    assert said["why"] == (
        f"tracing the kernel needs root, or CAP_BPF and CAP_PERFMON; run it with sudo; or {INSTEAD}"
    )
    assert said["balloon"]["driver"]["bound"] is True
    assert "deflate_on_oom" in said["balloon"]["features"]
    assert said["balloon"]["behaviour"] == "oom-notifier"
    assert said["seams"] == {}


@pytest.mark.one_kernel
def test_without_bcc_it_works_all_the_same(stock: Guest) -> None:
    without = Path("/root/without-bcc")
    stock.run(f"mkdir -p {without}/bcc && touch {without}/bcc/__init__.py")
    shadow = f"PYTHONPATH={without}:/opt/balloontrace python3 -m balloontrace doctor --json"
    done = stock.run(shadow, check=False)
    said = json.loads(done.stdout)
    assert done.returncode == 0, said["why"]
    assert said["tools"]["bcc"]["ok"] is True
    assert said["tools"]["bcc"]["version"] is None
    assert said["tools"]["bcc"]["found"].startswith("not needed: ")
