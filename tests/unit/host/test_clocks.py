# SPDX-License-Identifier: Apache-2.0
"""Pairs of clocks, by a process that runs what a guest would run, and by guests that do not."""

from __future__ import annotations

import stat
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import IO

import pytest

from balloontrace.host.clocks import IN_GUEST, ROUNDS, Clocks, OverSsh
from balloontrace.recording.host_lines import CLOCK, HostLines, HostLog, read_host

BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


class Guest:
    """A process in place of one in a guest. asked: how often."""

    def __init__(self, program: str = IN_GUEST) -> None:
        pipe = subprocess.PIPE
        argv = [sys.executable, "-u", "-c", program]
        self.process = subprocess.Popen(argv, stdin=pipe, stdout=pipe)

    @property
    def stdin(self) -> IO[bytes]:
        assert self.process.stdin
        return self.process.stdin

    @property
    def stdout(self) -> IO[bytes]:
        assert self.process.stdout
        return self.process.stdout

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()


def view(path: Path) -> HostLines:
    return read_host(str(path))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "run.host.jsonl"


@pytest.fixture
def log(path: Path) -> HostLog:
    log = HostLog(path.open("w", encoding="ascii"))
    log.begin()
    return log


def test_a_pair_at_the_begin_and_one_at_the_end(path: Path, log: HostLog) -> None:
    with log, Clocks(Guest(), log) as clocks:
        assert clocks.await_first(20)
        assert clocks.boot_id == BOOT_ID.read_text().strip()
    pairs = view(path).of(CLOCK)
    assert len(pairs) == 2
    for pair in pairs:  # it is one clock: the error is as large as is said
        assert abs(pair["guest_monotonic_ns"] - pair["t_ns"]) <= pair["error_ns"]
        assert abs(pair["guest_utc_ns"] - pair["utc_ns"]) <= pair["error_ns"] + 1_000_000
        assert pair["boot_id"] == clocks.boot_id
        assert pair["by"] == "ssh"


def test_pairs_are_repeated(path: Path, log: HostLog) -> None:
    with log, Clocks(Guest(), log, every_s=0.01) as clocks:
        assert clocks.await_first(20)
        while len(view(path).of(CLOCK)) < 4:
            assert clocks._thread.is_alive()
    # The last of them may have been taken just before the end: then there is no other.
    assert len(view(path).of(CLOCK)) >= 4


SLOW_BUT_ONCE = f"""
import sys, time
print("{"a" * 36}", flush=True)
for number, line in enumerate(sys.stdin):
    time.sleep(0 if number % {ROUNDS} == 4 else 0.03)
    print(time.monotonic_ns(), time.time_ns(), flush=True)
"""


def test_the_quickest_of_the_rounds_counts(path: Path, log: HostLog) -> None:
    with log, Clocks(Guest(SLOW_BUT_ONCE), log) as clocks:
        assert clocks.await_first(20)
        first = view(path).of(CLOCK)[0]
    assert first["error_ns"] < 15_000_000


@pytest.mark.parametrize(
    "program",
    [
        "",
        "print()",
        "print('x' * 10_000_000)",
        "print('a' * 36)",
        f"print('{'a' * 36}'); print(-1, 5)",
        f"print('{'a' * 36}'); print('9' * 5000)",
        f"print('{'a' * 36}'); print('now', 'then')",
        f"print('{'a' * 36}'); print('\\u0661 \\u0662')",
        "import os; os.write(1, b'\\xff' * 36 + b'\\n')",
    ],
    ids=range(9),
)
def test_a_guest_that_answers_otherwise(path: Path, log: HostLog, program: str) -> None:
    with log, Clocks(Guest(program), log) as clocks:
        assert not clocks.await_first(20)
    found = view(path)
    assert found.of(CLOCK) == []
    assert found.damage == 0


ENDLESS = f"""
import os
print("{"a" * 36}", flush=True)
while True:
    os.write(1, b"7" * 65536)
"""


def test_a_line_without_an_end(path: Path, log: HostLog) -> None:
    started = time.monotonic()
    with log, Clocks(Guest(ENDLESS), log) as clocks:
        assert not clocks.await_first(20)
    assert time.monotonic() - started < 15


def test_a_guest_that_no_longer_answers_holds_up_nobody(
    path: Path, log: HostLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("balloontrace.host.clocks._SETTLE_S", 0.2)
    guest = Guest(f"print('{'a' * 36}', flush=True); import time; time.sleep(1000)")
    started = time.monotonic()
    with log, Clocks(guest, log) as clocks:
        assert not clocks.await_first(0.01)
    assert time.monotonic() - started < 10
    assert guest.process.returncode is not None
    assert not [thread for thread in threading.enumerate() if thread.name == "clocks"]


SSH = """#!/bin/sh
printf '%s\\n' "$@" > {asked}
for last; do :; done
exec sh -c "$last"
"""


def test_over_ssh(
    path: Path, log: HostLog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "ssh"
    program.write_text(SSH.format(asked=tmp_path / "asked"))
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    with log, Clocks(OverSsh("-oProxyCommand=x"), log) as clocks:
        assert clocks.await_first(20)
    asked = (tmp_path / "asked").read_text().splitlines()
    assert asked[asked.index("--") + 1] == "-oProxyCommand=x"  # a name, never an option
    assert len(view(path).of(CLOCK)) == 2
