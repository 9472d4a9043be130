# SPDX-License-Identifier: Apache-2.0
"""What systemd is told, on a socket as it gives them."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from balloontrace.watch.notify import Notify


@pytest.fixture(params=["a path", "an abstract name"])
def manager(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[socket.socket]:
    """The service manager's end."""
    name = str(tmp_path / "notify")
    abstract = request.param == "an abstract name"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as end:
        end.bind("\0" + name if abstract else name)
        end.setblocking(False)
        monkeypatch.setenv("NOTIFY_SOCKET", "@" + name if abstract else name)
        monkeypatch.setenv("WATCHDOG_USEC", "30000000")
        yield end


def test_it_says_that_it_is_ready_alive_and_at_its_end(manager: socket.socket) -> None:
    notify = Notify()
    assert notify.interval_s == 15.0
    for tell, said in (
        (notify.ready, b"READY=1"),
        (notify.alive, b"WATCHDOG=1"),
        (notify.stopping, b"STOPPING=1"),
    ):
        tell()
        assert manager.recv(100) == said


def test_who_does_not_wait_is_told_nothing(
    manager: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("WATCHDOG_USEC")
    notify = Notify()
    assert notify.interval_s is None
    notify.alive()
    with pytest.raises(BlockingIOError):
        manager.recv(100)


def test_without_a_service_manager_nothing_happens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    monkeypatch.setenv("WATCHDOG_USEC", "30000000")
    notify = Notify()
    assert notify.interval_s is None
    notify.ready()


def test_a_manager_that_is_gone_does_no_harm(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "none"))
    Notify().ready()
