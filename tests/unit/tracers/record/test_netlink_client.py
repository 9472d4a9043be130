# SPDX-License-Identifier: Apache-2.0
"""The recorder's end of the netlink process, against real processes that misbehave."""

from __future__ import annotations

import os
import select
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from balloontrace.tracers.record import netlink_client
from balloontrace.tracers.record.netlink_client import NetlinkProcess

COUNTING = """\
import os, json
for line in open(0, closefd=False):
    os.write(0, b'{"t_ns": 1, "delays": %d}\\n' % len(json.loads(line)["watch"]))
"""
"""Answers each request with how many tasks it names."""


@pytest.fixture
def process(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> NetlinkProcess:
    """A netlink process that runs the test's code instead."""
    script = tmp_path / "python"
    code = request.param.replace("'", "'\\''")
    script.write_text(f"#!/bin/sh\nexec {sys.executable} -S -c '{code}'\n")
    script.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(script))
    monkeypatch.setattr(netlink_client, "LAST_ANSWER_S", 1.0)
    return NetlinkProcess(0)


def everything(process: NetlinkProcess) -> list[dict[str, Any]]:
    """What it says until it ends."""
    found = []
    deadline = time.monotonic() + 20
    while process.running:
        assert time.monotonic() < deadline
        select.select([process], [], [], 1)
        found += process.read()
    return found


def gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


@pytest.mark.parametrize(
    "process",
    [
        "import os; os.write(0, b'no json\\n')",
        "import os; os.write(0, b'[]\\n')",
        "import os\nwhile True: os.write(0, b'x' * 4096)",
        "import os; os.abort()",
    ],
    indirect=True,
    ids=["no json", "no object", "endless line", "crash"],
)
def test_a_netlink_process_gone_wrong_is_noted_once_and_reaped(process: NetlinkProcess) -> None:
    (last,) = everything(process)
    assert last["delays"] == "ended"
    assert gone(process.pid)
    process.request([1])
    assert process.read() == []
    assert process.finish([1]) == []
    assert process.fileno() == -1


@pytest.mark.parametrize(
    "process",
    ["import os, time\nfor c in b'{\"t_ns\": 1}\\n': os.write(0, bytes([c])); time.sleep(0.01)"],
    indirect=True,
)
def test_a_line_may_come_in_pieces(process: NetlinkProcess) -> None:
    assert everything(process)[0] == {"t_ns": 1}


@pytest.mark.parametrize("process", [COUNTING], indirect=True)
def test_finish_gets_the_last_answer_and_no_complaint(process: NetlinkProcess) -> None:
    process.request([5, 6])
    assert process.finish([7]) in (
        [{"t_ns": 1, "delays": 2}, {"t_ns": 1, "delays": 1}],
        [{"t_ns": 1, "delays": 1}],
    )
    assert gone(process.pid)


@pytest.mark.parametrize("process", [COUNTING], indirect=True)
def test_who_was_asked_for_just_before_is_not_asked_for_at_the_end(process: NetlinkProcess) -> None:
    process.request([5, 6])
    select.select([process], [], [], 20)
    assert process.finish([6, 5]) == [{"t_ns": 1, "delays": 2}]


@pytest.mark.parametrize("process", ["import time; time.sleep(60)"], indirect=True)
def test_silence_costs_no_more_than_the_last_answers_time(process: NetlinkProcess) -> None:
    began = time.monotonic()
    for _ in range(1000):  # more than a socket holds: it must not block
        process.request(list(range(1_000_000, 1_000_256)))
    assert process.read() == []
    assert time.monotonic() - began < 30  # it would be 60
    began = time.monotonic()
    assert process.finish([1]) == []
    assert 0.9 < time.monotonic() - began < 5
    assert gone(process.pid)
