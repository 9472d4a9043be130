# SPDX-License-Identifier: Apache-2.0
"""The watcher sleeps no longer than until its outlets have something to do."""

from __future__ import annotations

import os
import resource
import select
import socket
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from balloontrace.watch import session
from balloontrace.watch.server import DEADLINE_S, Server
from tests.unit.watch.readings import everything


class Wakeups:
    """What is waited for is of no interest here."""

    def watch(self, *_: object) -> None:
        """Nothing."""


def outlets(**options: Any) -> session._Outlets:
    """Of a watcher at rest."""
    watcher: Any = SimpleNamespace(reading=everything, reading_ns=0)
    wakeups: Any = Wakeups()
    pressure: Any = SimpleNamespace(is_told=False)
    return session._Outlets(
        watcher, {"listen": None, "textfile": None, **options}, wakeups, pressure
    )


def test_the_textfile_is_written_in_time_although_the_guest_rests(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    there = outlets(textfile=str(tmp_path))
    (page,) = tmp_path.iterdir()
    page.unlink()
    rests_s = time.monotonic() + 30.0
    assert 0 < session._patience(rests_s, there) <= session.TEXTFILE_S
    there.serve()
    assert not page.exists()
    monkeypatch.setattr(session, "TEXTFILE_S", 0.0)
    assert session._patience(rests_s, there) <= 0
    there.serve()
    assert page.exists()


def test_where_nothing_is_due_it_sleeps_until_it_looks_again() -> None:
    assert session._patience(time.monotonic() + 30.0, outlets()) > 29.0


def test_where_there_is_no_descriptor_for_a_client_it_does_not_spin() -> None:
    there = outlets(listen=("127.0.0.1", 0))
    server = there.server
    assert server

    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    with socket.create_connection(("127.0.0.1", server.port)):
        assert select.select([server], [], [], 10.0)[0]
        free = os.dup(server.fileno())
        os.close(free)
        resource.setrlimit(resource.RLIMIT_NOFILE, (free, before[1]))
        try:
            there.serve()
            assert not select.select([server], [], [], 0.0)[0]
            assert server.due_s < float("inf")
            server.expire(server.due_s)
            assert select.select([server], [], [], 10.0)[0]
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, before)
    server.close()


def test_a_client_that_takes_its_time_is_hung_up_on_in_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    server = Server(("127.0.0.1", 0), lambda: b"")
    assert server.due_s == float("inf")
    with socket.create_connection(("127.0.0.1", server.port)):
        while server.due_s == float("inf"):
            server.serve()
        assert server.due_s <= time.monotonic() + DEADLINE_S
        server.expire(server.due_s)
        assert server.due_s == float("inf")
    server.close()
