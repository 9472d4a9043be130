# SPDX-License-Identifier: Apache-2.0
"""`balloontrace host record` on real QEMUs: with a guest of the lab, and with none but firmware."""

from __future__ import annotations

import contextlib
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from balloontrace.host.qmp import Monitor, connect
from balloontrace.lab import hog
from balloontrace.lab.guest import Guest
from balloontrace.lab.host import tool
from balloontrace.lab.qemu import GuestConfig
from balloontrace.live.host import HostFile
from balloontrace.live.session import Session
from balloontrace.live.sources import Pipe
from balloontrace.live.view import SILENT, View
from balloontrace.recording.host_lines import (
    ACTUAL,
    CLOCK,
    END,
    MEMORY,
    STATE,
    STATISTICS,
    TARGET,
    VCPUS,
    HostLines,
    read_host,
)
from tests.guest.guests import Guests
from tests.guest.test_live import pumped

pytestmark = pytest.mark.one_kernel

MIB = 1 << 20
PAGE = 4096
MEMORY_BYTES = 512 * MIB
DEADLINE_S = 120.0


class HostRecorder:
    """`balloontrace host record`, begun. said: what it had to say, once it has ended."""

    def __init__(self, out: Path, *arguments: str | Path, **environment: str) -> None:
        self._out = out
        self.said = ""
        argv = [sys.executable, "-m", "balloontrace", "host", "record", "-o", str(out)]
        self._process = subprocess.Popen(
            [*argv, *map(str, arguments)], stderr=subprocess.PIPE, text=True,
            env={**os.environ, **environment},
        )  # fmt: skip

    def view(self) -> HostLines:
        """What is there by now."""
        return read_host(str(self._out))

    def wait_for(self, found: Callable[[HostLines], bool]) -> None:
        """Wait until the file has it."""
        deadline = time.monotonic() + DEADLINE_S
        while not (self._out.exists() and self._out.stat().st_size and found(self.view())):
            assert self._process.poll() is None, self._process.communicate()
            assert time.monotonic() < deadline, self._out.read_text()[-2000:]
            time.sleep(0.05)

    def end(self, number: signal.Signals | None = signal.SIGTERM) -> HostLines:
        """End it, or wait for its end; what it wrote."""
        if number is not None:
            self._process.send_signal(number)
        self.said = self._process.communicate(timeout=DEADLINE_S)[1]
        assert self._process.returncode == 0, self.said
        assert "Traceback" not in self.said
        assert not {"ERROR", "Task", "Error"} & set(self.said.split()), self.said
        view = self.view()
        assert view.damage == 0
        return view

    def kill(self) -> None:
        """End it, if it still runs."""
        self._process.kill()
        self._process.communicate()


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., HostRecorder]]:
    """Starts recorders, none of which outlives the test."""
    with contextlib.ExitStack() as around:

        def begin(*arguments: str | Path, **environment: str) -> HostRecorder:
            recorder = HostRecorder(tmp_path / "run.host.jsonl", *arguments, **environment)
            around.callback(recorder.kill)
            return recorder

        yield begin


@pytest.fixture
def ssh_path(tmp_path: Path) -> Callable[[Guest], str]:
    """A PATH on which `ssh` reaches the guest, by whatever name, as a user's configuration does."""

    def make(guest: Guest) -> str:
        *options, _port, _number, where = guest._ssh_argv()
        script = tmp_path / "bin" / "ssh"
        script.parent.mkdir()
        words = shlex.join([*options, _port, _number, where])
        script.write_text(f'#!/bin/sh\nfor last; do :; done\nexec {words} "$last"\n')
        script.chmod(0o755)
        return f"{script.parent}:{os.environ['PATH']}"

    return make


def _is_told(size: int, view: HostLines) -> bool:
    told: bool = view.of(ACTUAL)[-1]["bytes"] == size
    return told


def test_a_guest_and_its_host(
    kernel: str,
    guests: Guests,
    start: Callable[..., HostRecorder],
    ssh_path: Callable[[Guest], str],
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    monitor = tmp_path_factory.mktemp("monitor") / "qmp"
    guest = guests.get(GuestConfig(kernel, memory_bytes=MEMORY_BYTES, monitor=str(monitor)))
    guest.run(["python3", "-c", hog.take(256 * MIB)])  # what it touched the host has to back
    assert guest.balloon.polling_interval_s() == 0
    options = ("--qmp", monitor, "--ssh", "guest", "--poll-stats", "1", "--interval", "100ms")
    recorder = start(*options, PATH=ssh_path(guest))
    recorder.wait_for(lambda view: any("age_s" in line for line in view.of(STATISTICS)))
    assert guest.balloon.polling_interval_s() == 1

    sets: list[tuple[int, int, int]] = []
    for pages in (200 * MIB // PAGE, 0):
        before = time.monotonic_ns()
        guest.balloon.set_target_pages(pages)
        sets.append((before, time.monotonic_ns(), pages * PAGE))
        recorder.wait_for(partial(_is_told, pages * PAGE))
        if pages:  # while it inflated it may not have answered
            recorder.wait_for(lambda view: view.of(STATISTICS)[-1]["age_s"] < 3)
            stopped = time.monotonic_ns()
            guest.monitor.execute("stop")
            recorder.wait_for(lambda view: view.of(STATISTICS)[-1]["age_s"] > 5)
            guest.monitor.execute("cont")
            continued = time.monotonic_ns()
    view = recorder.end()

    begin = view.begin
    assert (begin["hypervisor"], begin["pid"]) == ("qemu", guest.host_pid())
    assert begin["memory_bytes"] == MEMORY_BYTES
    assert begin["vfio"] is False
    assert {TARGET, ACTUAL, STATISTICS, STATE, MEMORY, VCPUS, CLOCK} <= set(begin["tells"])
    assert view.of(END)[0]["reason"] == "terminated"

    first, *seen = view.of(TARGET)
    assert first["bytes"] == 0
    assert [line["bytes"] for line in seen] == [size for _, _, size in sets]
    for line, (before, after, _) in zip(seen, sets, strict=True):
        assert line["after_ns"] <= after  # it was set in between, as told
        assert before <= line["t_ns"]

    assert {line["bytes"] for line in view.of(ACTUAL)} >= {0, 200 * MIB}
    resident = [line["rss_bytes"] for line in view.of(MEMORY)]
    assert max(resident) - min(resident) > 150 * MIB
    assert any("pss_bytes" in line for line in view.of(MEMORY))

    states = [line["state"] for line in view.of(STATE)]
    assert states == ["running", "paused", "running"]
    ran = [line for line in view.of(VCPUS) if stopped + 10**9 < line["t_ns"] < continued]
    assert ran[-1]["threads"] >= 1
    assert ran[-1]["cpu_ns"] - ran[0]["cpu_ns"] < 10**9  # it stood still
    assert ran[-1]["cpu_ns"] > view.of(VCPUS)[0]["cpu_ns"]

    assert view.of(STATISTICS)[-1]["values"]["stat-total-memory"] < MEMORY_BYTES
    assert guest.balloon.polling_interval_s() == 0

    boot_id = guest.run("cat /proc/sys/kernel/random/boot_id").stdout.strip()
    pairs = view.of(CLOCK)
    assert len(pairs) >= 2  # at the begin, and at the end, and each minute
    assert {line["boot_id"] for line in pairs} == {boot_id}
    asked = time.monotonic_ns()
    there = guest.monotonic_ns()
    offset = pairs[-1]["guest_monotonic_ns"] - pairs[-1]["t_ns"]
    assert asked + offset - 10**9 < there < time.monotonic_ns() + offset + 10**9
    assert all(0 < line["error_ns"] < 10**9 for line in pairs)


def test_live_shows_both_sides(
    kernel: str,
    guests: Guests,
    start: Callable[..., HostRecorder],
    ssh_path: Callable[[Guest], str],
    tmp_path: Path,
) -> None:
    monitor, pages = tmp_path / "qmp", 200 * MIB // PAGE
    guest = guests.get(GuestConfig(kernel, memory_bytes=MEMORY_BYTES, monitor=str(monitor)))
    guest.run(["python3", "-c", hog.take(256 * MIB)])  # what it touched the host has to back
    options = ("--qmp", monitor, "--ssh", "guest", "--interval", "100ms")
    recorder = start(*options, PATH=ssh_path(guest))
    recorder.wait_for(lambda view: bool(view.of(CLOCK)))
    in_guest = guest.popen("balloontrace record -o -")
    beside = HostFile(str(tmp_path / "run.host.jsonl"))
    session = Session(Pipe(in_guest.stdout.fileno(), "guest"), host=beside)
    pumped(session, lambda view: view.driver == "attached")

    guest.balloon.set_target_pages(pages)
    view = pumped(session, lambda view: view.host is not None and view.host.actual_pages == pages)
    assert view.host is not None
    assert (view.host.hypervisor, view.host.state) == ("qemu", "running")
    view = pumped(session, lambda view: view.size_pages == pages)
    assert view.host is not None
    assert view.target_pages == view.host.target_pages == pages
    assert (view.host.gained_bytes or 0) > 150 * MIB

    def is_told_of_a_second(_: View) -> bool:
        last = session.view((session.model.seconds or (0,))[-1])
        told = last.host.actual_pages if last.host else None
        return last.size_pages == told == pages

    pumped(session, is_told_of_a_second)

    guest.monitor.execute("stop")
    view = pumped(session, lambda view: view.stream.state == SILENT)
    assert view.host is not None
    assert (view.host.state, view.host.said) == ("paused", "")
    guest.monitor.execute("cont")
    pumped(session, lambda view: view.host is not None and view.host.state == "running")

    guest.balloon.set_target_pages(0)
    pumped(session, lambda view: view.size_pages == 0)
    in_guest.send_signal(signal.SIGINT)
    pumped(session, lambda view: view.stream.state == "ended")
    assert session.close() == in_guest.communicate()[0] == 0
    recorder.end()


class Bare:
    """A QEMU without a guest's kernel: firmware at most."""

    def __init__(self, directory: Path, *options: str) -> None:
        ours, theirs = directory / "ours", directory / "theirs"
        self.socket = theirs
        argv = [tool("qemu-system-x86_64"), "-accel", "tcg", "-m", "256M", "-nodefaults"]
        argv += ["-display", "none", *options]
        for path in (ours, theirs):
            argv += ["-qmp", f"unix:{path},server=on,wait=off"]
        self.process = subprocess.Popen(argv)
        deadline = time.monotonic() + DEADLINE_S
        while not theirs.exists():
            assert self.process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.01)
        self.monitor: Monitor = connect(str(ours))[0]

    def end(self) -> None:
        self.monitor.close()
        self.process.kill()
        self.process.wait()


@pytest.fixture
def bare(tmp_path: Path) -> Iterator[Callable[..., Bare]]:
    """Starts such QEMUs, none of which outlives the test."""
    with contextlib.ExitStack() as around:

        def begin(*options: str) -> Bare:
            qemu = Bare(tmp_path, *options)
            around.callback(qemu.end)
            return qemu

        yield begin


BALLOON = ("-device", "virtio-balloon-pci")
BEHIND_A_PORT = (
    *("-device", "pcie-root-port,id=rp,chassis=1"),
    *("-device", "virtio-balloon-pci,bus=rp"),
)


@pytest.mark.parametrize(
    ("machine", "devices"), [("q35", BALLOON), ("q35", BEHIND_A_PORT), ("pc", BALLOON)]
)
def test_a_target_for_a_guest_without_a_driver(
    bare: Callable[..., Bare],
    start: Callable[..., HostRecorder],
    machine: str,
    devices: tuple[str, ...],
) -> None:
    qemu = bare("-machine", machine, *devices)
    recorder = start("--qmp", qemu.socket, "--interval", "50ms")
    recorder.wait_for(lambda view: bool(view.of(TARGET)))  # the firmware has mapped the device
    qemu.monitor.execute("balloon", value=192 * MIB)
    recorder.wait_for(lambda view: len(view.of(TARGET)) == 2)
    view = recorder.end()
    assert [line["bytes"] for line in view.of(TARGET)] == [0, 64 * MIB]
    assert {line["bytes"] for line in view.of(ACTUAL)} == {0}
    assert view.begin["pid"] == qemu.process.pid


def test_a_device_that_is_not_mapped_tells_no_target(
    bare: Callable[..., Bare], start: Callable[..., HostRecorder]
) -> None:
    qemu = bare("-machine", "q35", *BALLOON, "-S")
    qemu.monitor.execute("balloon", value=192 * MIB)
    recorder = start("--qmp", qemu.socket, "--interval", "50ms")
    recorder.wait_for(lambda view: len(view.of(ACTUAL)) > 3)
    view = recorder.end(signal.SIGINT)
    assert not view.tells(TARGET)
    assert [line["state"] for line in view.of(STATE)] == ["prelaunch"]
    assert view.of(END)[0]["reason"] == "interrupted"


def test_a_hypervisor_that_ends(
    bare: Callable[..., Bare], start: Callable[..., HostRecorder]
) -> None:
    qemu = bare("-machine", "q35", *BALLOON)
    recorder = start("--qmp", qemu.socket, "--interval", "50ms", "--poll-stats", "1")
    recorder.wait_for(lambda view: len(view.of(ACTUAL)) > 3)
    qemu.process.kill()
    view = recorder.end(None)
    assert view.of(STATE)[-1]["state"] == "gone"
    assert "does not answer any more" in view.of(END)[0]["reason"]
    assert "put back" not in recorder.said


def refused(*arguments: Any) -> str:
    argv = [sys.executable, "-m", "balloontrace", "host", "record", *map(str, arguments)]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1, done.stderr
    return done.stderr


def test_a_monitor_that_another_has(bare: Callable[..., Bare], tmp_path: Path) -> None:
    bare("-machine", "q35", *BALLOON)
    said = refused("--qmp", tmp_path / "ours", "-o", tmp_path / "out")
    assert "a monitor takes one client at a time" in said
    assert not (tmp_path / "out").exists()


def test_a_qemu_without_a_balloon(bare: Callable[..., Bare], tmp_path: Path) -> None:
    qemu = bare("-machine", "q35")
    said = refused("--qmp", qemu.socket, "-o", tmp_path / "out")
    assert "balloon" in said
    assert not (tmp_path / "out").exists()
