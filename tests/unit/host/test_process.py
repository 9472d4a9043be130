# SPDX-License-Identifier: Apache-2.0
"""What /proc says of a process, by this one."""

from __future__ import annotations

import ctypes
import mmap
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from balloontrace.host import process

MIB = 1 << 20


def test_memory_is_bytes() -> None:
    before = process.memory(os.getpid())
    assert {"rss_bytes", "locked_bytes", "swap_bytes"} <= before.keys()
    with mmap.mmap(-1, 64 * MIB) as area:
        for at in range(0, 64 * MIB, 4096):
            area[at] = 1
        grown = process.memory(os.getpid())["rss_bytes"] - before["rss_bytes"]
    assert 60 * MIB < grown < 80 * MIB


def test_the_share_of_what_is_shared_is_less() -> None:
    share = process.proportional(os.getpid())
    assert share
    assert 0 < share <= process.memory(os.getpid())["rss_bytes"] + MIB


@pytest.fixture
def ended() -> int:
    """A process that is no more."""
    with subprocess.Popen(["true"]) as child:
        return child.pid


def test_one_that_is_no_more(ended: int) -> None:
    assert process.memory(ended) == {}
    assert process.proportional(ended) is None
    assert process.vcpu_threads(ended) == ()
    assert process.processors(ended, [ended]) == {}
    assert process.has_vfio(ended) is None
    assert not process.has_threads(ended, [ended])


def test_one_that_ended_and_was_not_waited_for() -> None:
    child = subprocess.Popen(["true"])
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert process.memory(child.pid) == {}  # and not 0
    child.wait()


@pytest.fixture
def named() -> Iterator[dict[str, int]]:
    """Threads with the names that hypervisors give them: by name."""
    names = ["fc_vcpu 0", "vcpu1", "CPU 2/KVM", "CPU 3/TCG", "vcpus", "IO mon", "my CPU 4"]
    found: dict[str, int] = {}
    up, over = threading.Barrier(len(names) + 1), threading.Event()

    def live(name: str) -> None:
        ctypes.CDLL(None).prctl(15, name.encode(), 0, 0, 0)  # PR_SET_NAME
        found[name] = threading.get_native_id()
        up.wait()
        over.wait()

    threads = [threading.Thread(target=live, args=(name,)) for name in names]
    for thread in threads:
        thread.start()
    up.wait()
    yield found
    over.set()
    for thread in threads:
        thread.join()


def test_threads_of_processors_are_known_by_their_names(named: dict[str, int]) -> None:
    wanted = ("fc_vcpu 0", "vcpu1", "CPU 2/KVM", "CPU 3/TCG")
    assert process.vcpu_threads(os.getpid()) == tuple(sorted(named[name] for name in wanted))


def test_time_of_threads(named: dict[str, int]) -> None:
    told = process.processors(os.getpid(), named.values())
    assert told["threads"] == len(named)
    assert told["cpu_ns"] > 0
    started = process.processors(os.getpid(), [threading.get_native_id()])
    while (later := process.processors(os.getpid(), [threading.get_native_id()])) == started:
        pass
    assert later["cpu_ns"] > started["cpu_ns"]


def test_whose_threads_they_are(named: dict[str, int]) -> None:
    assert process.has_threads(os.getpid(), named.values())
    assert not process.has_threads(os.getppid(), named.values())


def test_a_device_that_is_passed_through(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert process.has_vfio(os.getpid()) is False
    descriptors = tmp_path / "7" / "fd"
    descriptors.mkdir(parents=True)
    (descriptors / "3").symlink_to("/dev/vfio/12")
    monkeypatch.setattr(process, "_PROC", tmp_path)
    assert process.has_vfio(7) is True


def test_who_listens_at_a_socket(tmp_path: Path) -> None:
    path = tmp_path / "socket"
    code = (
        "import socket, sys\n"
        "with socket.socket(socket.AF_UNIX) as s:\n"
        "    s.bind(sys.argv[1]); s.listen(); print('up', flush=True); sys.stdin.read()\n"
    )
    pipe = subprocess.PIPE
    with subprocess.Popen([sys.executable, "-c", code, path], stdin=pipe, stdout=pipe) as child:
        assert child.stdout
        assert child.stdout.readline() == b"up\n"
        assert process.listener(str(path)) == child.pid
        child.communicate()
    assert process.listener(str(path)) is None
    assert process.listener(str(tmp_path / "none")) is None
    ours, theirs = socket.socketpair()
    with ours, theirs:
        assert process.peer(ours) == os.getpid()
