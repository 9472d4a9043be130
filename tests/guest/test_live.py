# SPDX-License-Identifier: Apache-2.0
"""`balloontrace live` on real guests: over ssh, within one, and while it goes wrong."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from balloontrace.lab.guest import Guest
from balloontrace.lab.loads import MEMORY_BYTES, MIB_PAGES, move_balloon
from balloontrace.lab.qemu import GuestConfig
from balloontrace.lab.remote import RemoteProcess
from balloontrace.live.session import Session
from balloontrace.live.sources import Pipe
from balloontrace.live.view import CLOSED, SILENT, View
from balloontrace.recording.reader import read_recording
from tests.guest.conftest import balloon_counters, report_of
from tests.guest.guests import Guests

pytestmark = pytest.mark.one_kernel

QUARTER = MEMORY_BYTES // 4096 // 4
READS_FOR_EVER = "while :; do cat /root/cache > /dev/null; done"


def pumped(session: Session, until: Callable[[View], bool], within_s: float = 120.0) -> View:
    """Read on until a view is so."""
    end_s = time.monotonic() + within_s
    while not until(view := session.view()):
        assert time.monotonic() < end_s, view
        session.pump(0.2)
    return view


@contextmanager
def streamed(guest: Guest) -> Iterator[tuple[Session, RemoteProcess]]:
    """A recorder in the guest, and what looks at its stream here."""
    recorder = guest.popen("balloontrace record -o -")
    session = Session(Pipe(recorder.stdout.fileno(), "guest"))
    try:
        pumped(session, lambda view: view.driver == "attached")
        yield session, recorder
    finally:
        session.close()
        if recorder.poll() is None:
            recorder.kill_group()


def test_the_last_line_is_what_the_guest_counts(stock: Guest, tmp_path: Path) -> None:
    move_balloon(stock, 0)
    saved = tmp_path / "saved.btrace"
    before = balloon_counters(stock)
    recorder = stock.popen("balloontrace record -o -")
    live = subprocess.Popen(
        [sys.executable, "-m", "balloontrace", "live", "--json", "--save", saved, "-"],
        stdin=recorder.stdout, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert live.stdout is not None
    lines = [json.loads(live.stdout.readline())]
    move_balloon(stock, QUARTER + 7)
    move_balloon(stock, 40 * MIB_PAGES)
    recorder.send_signal(signal.SIGINT)
    lines += map(json.loads, live.stdout)
    after = balloon_counters(stock)
    assert (live.wait(), recorder.communicate()[0]) == (0, 0)

    last, report = lines[-1], report_of(read_recording(str(saved)))
    # A machine that has too much to do may let the guest wait for 5 s.
    assert {line["state"] for line in lines[:-1]} <= {"tracing", "silent"}
    assert (last["state"], last["said"], last["agrees"]) == ("ended", "ended: interrupted", True)
    assert last["inflated_pages"] == after[0] - before[0] == report["totals"]["inflated_pages"]
    assert last["deflated_pages"] == after[1] - before[1] == report["totals"]["deflated_pages"]
    assert last["size_pages"] == last["target_pages"] == stock.balloon.actual_pages()
    assert last["churn_ratio"] == report["totals"]["churn_ratio"] == 0
    assert last["losses"]["events"] == report["lost_events"] == 0
    assert report["complete"] is True
    assert all(line["memory"]["available"] for line in lines)


def test_the_one_file_shows_the_guest_that_it_is_in(kernel: str, guests: Guests) -> None:
    bare = guests.get(GuestConfig(kernel, userspace="debian-11", memory_bytes=MEMORY_BYTES))
    move_balloon(bare, 0)
    before = balloon_counters(bare)
    live = bare.popen("balloontrace live --json")
    first: dict[str, Any] = json.loads(live.stdout.readline())
    move_balloon(bare, QUARTER)
    live.send_signal(signal.SIGINT)
    status, out, said = live.communicate()
    last = json.loads(out.splitlines()[-1])
    assert status == 0, said
    assert first["driver"] == "attached"
    assert last["said"] == "ended: interrupted"
    assert last["inflated_pages"] == balloon_counters(bare)[0] - before[0] == QUARTER
    assert last["size_pages"] == QUARTER
    move_balloon(bare, 0)  # the guest is shared
    assert bare.run("pgrep -fc 'balloontrace|session' || true").stdout.strip() in ("0", "1")


def test_a_busy_no_op_is_shown_while_it_happens(shrinker: Guest) -> None:
    move_balloon(shrinker, 0)
    shrinker.run("truncate -s 700M /root/cache")
    with streamed(shrinker) as (session, recorder):
        reader = shrinker.popen(["sh", "-c", READS_FOR_EVER])
        shrinker.balloon.set_target_pages(700 * MIB_PAGES)
        view = pumped(session, lambda view: any(one.firing for one in view.findings))
        assert [one.id for one in view.findings if one.firing] == ["busy-no-op"]
        assert view.stream.state == "tracing"
        assert (view.progress.by_cause or {})["shrinker"] > 0
        assert view.progress.churn_ratio
        assert {task.cause for task in view.tasks} == {"shrinker"}

        recorder.send_signal(signal.SIGSTOP)  # as a guest that is stopped
        view = pumped(session, lambda view: view.stream.state != "tracing")
        assert view.stream.state == SILENT
        assert view.stream.said.startswith("no block for 5 s")
        recorder.send_signal(signal.SIGKILL)
        view = pumped(session, lambda view: view.stream.state != SILENT)
        assert view.stream.state == CLOSED
        assert session.close() == 1
        reader.kill_group()
        reader.communicate()
    shrinker.run("rm /root/cache")
    move_balloon(shrinker, 0)
