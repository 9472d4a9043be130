# SPDX-License-Identifier: Apache-2.0
"""The Vagrant lab, run for real in a libvirt of its own, of which nothing may be left behind."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.guest.test_lab import host_events, ids_of, whole_report

pytestmark = [
    pytest.mark.xdist_group("vagrant"),
    pytest.mark.timeout(2400),  # the first test waits for the whole cycle
]

ROOT = Path(__file__).parents[2]
PRIVATE = str(ROOT / "vagrant" / "private-libvirt")
PAGES_PER_GIB = 1 << 18
DEADLINE_S = 120.0


def traces() -> dict[str, object]:
    """All that a libvirt may leave on a machine: processes, links, firewall, mounts, files."""
    files = ("/etc/libvirt", "/var/lib/libvirt", "/run/libvirt", "/var/log/libvirt")
    return {
        "processes": _processes(),
        "links": sorted(os.listdir("/sys/class/net")),
        "firewall": [_said(command) for command in ("iptables-save", "ip6tables-save")],
        "mounts": sorted(Path("/proc/self/mounts").read_text().splitlines()),
        "cgroups": sorted(os.listdir("/sys/fs/cgroup")),
        "files": sorted(_stamp(path) for top in files for path in Path(top).rglob("*")),
    }


def _processes() -> list[str]:
    """The names of those that belong to a libvirt, at any depth of PID namespaces.

    Guests of other tests, which run at the same time, are in this process's network namespace.
    """
    watched = ("libvirtd", "virtlogd", "dnsmasq", "vagrant")
    ours = Path("/proc/self/ns/net").readlink()
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # it has just ended
            name = (process / "comm").read_text().strip()
            private = (process / "ns" / "net").readlink() != ours
            if name in watched or (name == "qemu-system-x86" and private):
                found.append(name)
    return sorted(found)


def _said(command: str) -> list[str]:
    """The rules, without the counters."""
    path = f"{os.environ['PATH']}:/usr/sbin:/sbin"
    done = subprocess.run([command], capture_output=True, text=True, check=True, env={"PATH": path})
    return [line for line in done.stdout.splitlines() if line.startswith("-")]


def _stamp(path: Path) -> tuple[str, int]:
    return str(path), path.stat().st_mtime_ns if path.is_file() else 0


def _await(condition: Callable[[], bool], complaint: str) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < deadline, complaint
        time.sleep(0.1)


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """A Vagrant without a past, whose machines nobody else sees."""
    home = tmp_path_factory.mktemp("home")
    return {
        **os.environ,
        "VAGRANT_HOME": str(home / "boxes"),
        "VAGRANT_DOTFILE_PATH": str(home / "machines"),
        "VAGRANT_CHECKPOINT_DISABLE": "1",
        "VAGRANT_DEFAULT_PROVIDER": "libvirt",
    }


@pytest.fixture(scope="module")
def cycle(environment: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The directory of all outputs of one whole cycle."""
    out = tmp_path_factory.mktemp("cycle")
    before = traces()
    steps = (
        [str(ROOT / "vagrant" / "build-box"), "bookworm"],  # which may need the network
        [PRIVATE, str(ROOT / "tests" / "vagrant" / "cycle"), str(out)],
    )
    for command in steps:
        with (out / "log").open("w") as log:
            done = subprocess.run(command, env=environment, stdout=log, stderr=log, check=False)
        assert done.returncode == 0, (out / "log").read_text()[-3000:]
    yield out
    assert traces() == before


def test_the_machine_is_up_and_doctor_is_green(cycle: Path) -> None:
    assert "validated successfully" in (cycle / "validate").read_text()
    said = (cycle / "up").read_text()
    assert "record will work" in said
    doctor = json.loads((cycle / "doctor.json").read_text())
    assert doctor["works"] is True
    assert {"deflate_on_oom", "reporting"} <= set(doctor["balloon"]["features"])
    assert int((cycle / "disk").read_text()) > 7 * 1024  # MiB, of 8 GiB; the box has 6


def test_a_scenario_on_the_stock_driver(cycle: Path) -> None:
    report = whole_report(cycle / "page-cache-short-stock.btrace")
    inflate = report["episodes"][0]
    assert (inflate["outcome"], inflate["target_pages"]) == ("reached", PAGES_PER_GIB * 44 // 64)
    assert inflate["amplification"] <= 1.05
    assert ids_of(report) == set()
    run = host_events(cycle / "page-cache-short-stock.host.jsonl")[0]
    assert run["lab"]["provider"] == "vagrant"
    # The machine was up before the run: it stays.
    assert ",state,running" in (cycle / "status").read_text()
    assert (cycle / "driver").read_text().strip() == "shrinker"


def test_a_scenario_on_the_shrinker_driver(cycle: Path) -> None:
    report = whole_report(cycle / "page-cache-short-shrinker.btrace")
    assert report["guest"]["driver_behaviour"] == "shrinker"
    assert report["episodes"][0]["amplification"] > 1.05


def test_a_machine_of_another_size_is_left_alone(cycle: Path) -> None:
    said = (cycle / "other-size").read_text()
    assert "machine bookworm has 1G, 2 CPUs, deflate-on-oom on; wanted are 2G" in said
    assert "exit status 1" in said


def test_a_machine_that_was_made_for_a_run_goes_with_it(cycle: Path) -> None:
    assert (cycle / "page-cache-short-shrinker.console.log").read_text()
    assert "exit status" in (cycle / "interrupted").read_text()
    assert (cycle / "domains").read_text().split() == []


def test_nothing_is_left_of_a_run_that_was_killed(cycle: Path, environment: dict[str, str]) -> None:
    before = traces()
    up = subprocess.Popen(
        [PRIVATE, "vagrant", "up"], cwd=ROOT / "vagrant", start_new_session=True,
        env={**environment, "BALLOONTRACE_MEMORY": "512"}, stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        _await(lambda: "qemu-system-x86" in _processes(), "no guest was started")
    finally:
        up.send_signal(signal.SIGKILL)
        up.wait()
    _await(lambda: traces() == before, "something is left behind")
