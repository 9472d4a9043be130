# SPDX-License-Identifier: Apache-2.0
"""Recording a source: what is written when, and what ends it."""

from __future__ import annotations

import contextlib
import io
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from balloontrace.errors import EXIT_UNSUPPORTED, UserError
from balloontrace.host import record as recording
from balloontrace.host.source import Facts, Reading, Statistics
from balloontrace.recording.host_lines import (
    ACTUAL,
    END,
    MEMORY,
    STATE,
    STATISTICS,
    TARGET,
    VCPUS,
    HostLines,
    HostLog,
    read_host,
)

MIB = 1 << 20


class FakeSource:
    """at: number of a reading -> what is to be done before it; after the last one it is over.
    interval_s: of the statistics, as the hypervisor has it."""

    def __init__(self, pid: int | None = None) -> None:
        self.facts = Facts("fake", "1", 512 * MIB, pid)
        self.at: dict[int, Callable[[], None]] = {}
        self.target: int | None = 0
        self.actual = 0
        self.state = "running"
        self.gone = False
        self.refuses = False
        self.interval_s = 7
        self.intervals: list[int] = []
        self.readings = 0
        self.asked: list[tuple[int, int]] = []

    def read(self, statistics: bool) -> Reading:
        asked_ns = time.monotonic_ns()
        self.at.get(self.readings, lambda: None)()
        self.readings += 1
        if self.gone:
            raise UserError("no answer")
        self.asked.append((asked_ns, time.monotonic_ns()))
        told = Statistics({"free": 5}, 1.23456, self.interval_s) if statistics else None
        return Reading(self.target, self.actual, told, self.state)

    @contextlib.contextmanager
    def polling(self, interval_s: int) -> Iterator[None]:
        before = self.interval_s
        self._set(interval_s)
        try:
            yield
        finally:
            self._set(before)

    def _set(self, interval_s: int) -> None:
        if self.refuses and self.intervals:
            raise UserError("no")
        self.interval_s = interval_s
        self.intervals.append(interval_s)


class Recorded:
    """A recording of such a source. said: its messages."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.said: list[str] = []

    def run(self, source: FakeSource, **options: Any) -> str:
        chosen = {"interval_s": 0.001, "duration_s": None, "ssh": None, "poll_s": None, **options}
        with HostLog(self.path.open("w", encoding="ascii")) as log:
            return recording.record(source, log, **chosen, say=self.said.append)

    def view(self) -> HostLines:
        return read_host(str(self.path))


@pytest.fixture
def recorded(tmp_path: Path) -> Recorded:
    return Recorded(tmp_path / "run.host.jsonl")


def gone(source: FakeSource) -> Callable[[], None]:
    return lambda: setattr(source, "gone", True)


def kill(number: signal.Signals) -> Callable[[], None]:
    return lambda: os.kill(os.getpid(), number)


def test_a_hypervisor_that_goes_away_ends_it_in_order(recorded: Recorded) -> None:
    source = FakeSource()
    source.at[5] = gone(source)
    assert recorded.run(source) == "the hypervisor does not answer any more"
    view = recorded.view()
    assert [line["state"] for line in view.of(STATE)] == ["running", "gone"]
    assert len(view.of(ACTUAL)) == 5
    assert len(view.of(END)) == 1
    assert view.damage == 0


def test_one_that_does_not_answer_at_the_begin(recorded: Recorded) -> None:
    source = FakeSource()
    source.gone = True
    with pytest.raises(UserError, match="no answer"):
        recorded.run(source, poll_s=2)
    assert source.intervals == [2, 7]


@pytest.mark.parametrize(
    ("number", "reason"),
    [
        (signal.SIGINT, "interrupted"),
        (signal.SIGTERM, "terminated"),
        (signal.SIGHUP, "terminal closed"),
    ],
)
def test_a_signal_ends_it(recorded: Recorded, number: signal.Signals, reason: str) -> None:
    outside = signal.signal(number, signal.default_int_handler)  # nohup may have it ignored
    try:
        source = FakeSource()
        source.at[3] = kill(number)
        assert recorded.run(source, poll_s=2) == reason
        assert recorded.view().of(END)[0]["reason"] == reason
        assert source.intervals == [2, 7]
        assert signal.getsignal(number) == signal.default_int_handler
    finally:
        signal.signal(number, outside)


def test_a_signal_ends_a_wait(recorded: Recorded) -> None:
    source = FakeSource()
    timer = threading.Timer(0.1, kill(signal.SIGTERM))
    timer.start()
    started = time.monotonic()
    assert recorded.run(source, interval_s=50.0) == "terminated"
    assert time.monotonic() - started < 10


def test_a_second_signal_ends_what_does_not_answer(recorded: Recorded) -> None:
    source = FakeSource()

    def hang() -> None:
        kill(signal.SIGTERM)()
        threading.Timer(0.1, kill(signal.SIGTERM)).start()
        threading.Event().wait(60)

    source.at[3] = hang
    with pytest.raises(KeyboardInterrupt):
        recorded.run(source, poll_s=2)
    assert source.intervals == [2, 7]


def test_who_began_it_with_nohup_closes_the_terminal(recorded: Recorded) -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        source = FakeSource()
        source.at[2], source.at[4] = kill(signal.SIGHUP), kill(signal.SIGTERM)
        assert recorded.run(source) == "terminated"
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_duration(recorded: Recorded) -> None:
    started = time.monotonic()
    assert recorded.run(FakeSource(), interval_s=0.01, duration_s=0.2) == "duration"
    assert 0.2 <= time.monotonic() - started < 5


def test_slow_answers_leave_samples_out(recorded: Recorded) -> None:
    source = FakeSource()
    source.at = dict.fromkeys(range(1, 100), lambda: time.sleep(0.05))
    recorded.run(source, interval_s=0.02, duration_s=0.5)
    assert source.readings < 12  # none is made up for


def test_a_target_is_written_when_it_changes(recorded: Recorded) -> None:
    source = FakeSource()
    source.at[3] = lambda: setattr(source, "target", MIB)
    source.at[6] = gone(source)
    recorded.run(source)
    first, second = recorded.view().of(TARGET)
    assert (first["bytes"], first["by"]) == (0, "seen")
    assert "after_ns" not in first  # it was there before
    assert second["bytes"] == MIB
    asked, answered = source.asked[2]  # the last one with the old target
    assert second["after_ns"] <= asked
    assert second["t_ns"] >= source.asked[3][1] > answered


def test_what_a_source_does_not_tell(recorded: Recorded) -> None:
    source = FakeSource()
    source.target = None
    recorded.run(source, duration_s=0.01)
    view = recorded.view()
    assert not view.tells(TARGET)
    assert not view.tells(MEMORY)
    assert not view.tells(VCPUS)
    assert view.tells(ACTUAL)
    assert view.tells(STATISTICS)
    assert "pid" not in view.begin


def test_the_process_s_memory(recorded: Recorded) -> None:
    source = FakeSource(os.getpid())
    source.at[4] = gone(source)
    recorded.run(source)
    view = recorded.view()
    memory = view.of(MEMORY)
    assert len(memory) == 4
    assert all(line["rss_bytes"] > MIB for line in memory)
    assert [number for number, line in enumerate(memory) if "pss_bytes" in line] == [0]
    assert view.begin["pid"] == os.getpid()
    assert view.begin["vfio"] is False


def test_statistics_are_asked_for_less_often(recorded: Recorded) -> None:
    source = FakeSource()
    source.at[10] = gone(source)
    recorded.run(source)
    told = recorded.view().of(STATISTICS)
    assert len(told) == 1
    assert told[0]["values"] == {"free": 5}
    assert told[0]["age_s"] == pytest.approx(1.235)
    assert told[0]["polling_interval_s"] == 7


def test_a_state_is_written_when_it_changes(recorded: Recorded) -> None:
    source = FakeSource()
    source.at[3] = lambda: setattr(source, "state", "paused")
    source.at[5] = lambda: setattr(source, "state", "running")
    source.at[7] = gone(source)
    recorded.run(source)
    states = [line["state"] for line in recorded.view().of(STATE)]
    assert states == ["running", "paused", "running", "gone"]


def test_an_interval_that_could_not_be_put_back_is_said(recorded: Recorded) -> None:
    source = FakeSource()
    source.refuses = True
    recorded.run(source, duration_s=0.01, poll_s=2)
    assert "could not be put back: no" in recorded.said[-1]


def test_of_what_is_gone_nothing_is_said(recorded: Recorded) -> None:
    source = FakeSource()
    source.refuses = True
    source.at[3] = gone(source)
    recorded.run(source, poll_s=2)
    assert not [said for said in recorded.said if "put back" in said]


class Closed(io.StringIO):
    """A file that takes so many writes."""

    def __init__(self, writes: int) -> None:
        super().__init__()
        self._left = writes

    def write(self, text: str) -> int:
        self._left -= 1
        if self._left < 0:
            raise BrokenPipeError
        return super().write(text)


def test_a_reader_that_went_away_is_the_end(recorded: Recorded) -> None:
    source = FakeSource()
    with pytest.raises(BrokenPipeError):
        recording.record(source, HostLog(Closed(20)), 0.001, 60, None, 2, recorded.said.append)
    assert source.intervals == [2, 7]


@pytest.fixture
def ssh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Puts a shell's script in place of ssh."""
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    program = tmp_path / "ssh"

    def does(script: str) -> None:
        program.write_text(f"#!/bin/sh\n{script}\n")
        program.chmod(0o755)

    return does


def test_the_hypervisor_is_asked_while_the_guest_lets_us_in(
    recorded: Recorded, ssh: Callable[[str], None]
) -> None:
    ssh('for command; do :; done\nsleep 2\neval "$command"')
    source = FakeSource()
    assert recorded.run(source, ssh="slow", interval_s=0.05, duration_s=2.5) == "duration"
    answers = [answered for _, answered in source.asked]
    assert answers[-1] - answers[0] > 2e9
    assert max(later - earlier for earlier, later in pairwise(answers)) < 1e9
    assert recorded.view().of("clock")


def test_a_host_without_ssh(recorded: Recorded, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    with pytest.raises(UserError, match="cannot run ssh: No such file") as caught:
        recorded.run(FakeSource(), ssh="guest")
    assert caught.value.exit_code == EXIT_UNSUPPORTED


def test_a_guest_that_ssh_does_not_reach(recorded: Recorded, ssh: Callable[[str], None]) -> None:
    ssh("exit 255")
    source = FakeSource()
    with pytest.raises(UserError, match="`ssh nobody python3` does not tell the guest's clocks"):
        recorded.run(source, ssh="nobody", poll_s=2)
    assert source.intervals == [2, 7]
