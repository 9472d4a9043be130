# SPDX-License-Identifier: Apache-2.0
"""The host's view as a file: what is written is read, and a hostile one does no harm."""

from __future__ import annotations

import json
import threading
from pathlib import Path

import pytest

from balloontrace.errors import UserError
from balloontrace.recording.host_lines import (
    ACTUAL,
    CLOCK,
    MEMORY,
    STATISTICS,
    TARGET,
    HostLog,
    read_host,
)

BEGIN = b'{"event": "begin", "t_ns": 1, "format": 1, "tells": ["actual", 7]}\n'


def written(path: Path) -> HostLog:
    return HostLog(path.open("w", encoding="ascii"))


def test_what_is_written_is_read(tmp_path: Path) -> None:
    path = tmp_path / "run.host.jsonl"
    with written(path) as log:
        log.begin(hypervisor="qemu", memory_bytes=1 << 30, tells=["target"], pid=None)
        log.write(TARGET, 20, bytes=4096, by="set")
        log.write(TARGET, 10, bytes=0, by="seen", after_ns=None)
        log.write("workload", 30, state="touched", bytes=5)
    found = read_host(str(path))
    assert found.begin["memory_bytes"] == 1 << 30
    assert "pid" not in found.begin
    assert [line["t_ns"] for line in found.of(TARGET)] == [10, 20]
    assert "after_ns" not in found.of(TARGET)[0]
    assert found.of("workload")[0]["state"] == "touched"
    assert found.damage == 0


def test_what_a_source_cannot_tell_is_not_called_absent(tmp_path: Path) -> None:
    path = tmp_path / "run.host.jsonl"
    with written(path) as log:
        log.begin(tells=["actual"])
        log.write(MEMORY, rss_bytes=1)
    found = read_host(str(path))
    assert found.tells(ACTUAL)
    assert found.tells(MEMORY)  # it is there
    assert not found.tells(STATISTICS)


def test_lines_of_several_threads_are_whole(tmp_path: Path) -> None:
    path = tmp_path / "run.host.jsonl"
    with written(path) as log:
        log.begin()

        def many(name: str) -> None:
            for number in range(200):
                log.write(name, number, text="x" * 500)

        threads = [threading.Thread(target=many, args=(name,)) for name in "abcd"]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    found = read_host(str(path))
    assert found.damage == 0
    assert [len(found.of(name)) for name in "abcd"] == [200] * 4


def test_each_line_is_there_at_once(tmp_path: Path) -> None:
    path = tmp_path / "run.host.jsonl"
    with written(path) as log:
        log.begin()
        log.write(ACTUAL, 5, bytes=0)
        assert read_host(str(path)).of(ACTUAL) == [{"event": "actual", "t_ns": 5, "bytes": 0}]


def test_a_torn_last_line_is_damage(tmp_path: Path) -> None:
    path = tmp_path / "run.host.jsonl"
    path.write_bytes(BEGIN + b'{"event": "actual", "t_ns": 2, "bytes": 1}\n{"event": "actual", "t_')
    found = read_host(str(path))
    assert [line["bytes"] for line in found.of(ACTUAL)] == [1]
    assert found.damage == 2  # and what `tells` had that is no text
    assert found.begin["tells"] == ["actual"]


@pytest.mark.parametrize(
    "line",
    [
        b"[" * 100_000,
        b"[]",
        b"7",
        b'"event"',
        b"\xff\xfe",
        b"",
        b'{"event": 7, "t_ns": 1}',
        b'{"event": "actual"}',
        b'{"event": "actual", "t_ns": -1}',
        b'{"event": "actual", "t_ns": true}',
        b'{"event": "actual", "t_ns": 1e3}',
        b'{"event": "actual", "t_ns": ' + b"9" * 5000 + b"}",
        b'{"event": "actual", "t_ns": 9223372036854775808}',
    ],
    ids=range(13),
)
def test_what_is_no_line_is_counted(tmp_path: Path, line: bytes) -> None:
    path = tmp_path / "run.host.jsonl"
    path.write_bytes(BEGIN + line + b'\n{"event": "actual", "t_ns": 2, "bytes": 1}\n')
    found = read_host(str(path))
    assert [told["bytes"] for told in found.of(ACTUAL)] == [1]
    assert found.damage == 2


@pytest.mark.parametrize(
    ("event", "fields"),
    [
        (ACTUAL, {"bytes": "many"}),
        (ACTUAL, {"bytes": -4096}),
        (ACTUAL, {"bytes": 1 << 64}),
        (TARGET, {"by": ["set"]}),
        (CLOCK, {"guest_monotonic_ns": 1.5}),
        (MEMORY, {"rss_bytes": {}}),
        (STATISTICS, {"values": [1]}),
        (STATISTICS, {"age_s": float("inf")}),
    ],
)
def test_a_value_that_does_not_fit_is_left_out(
    tmp_path: Path, event: str, fields: dict[str, object]
) -> None:
    path = tmp_path / "run.host.jsonl"
    path.write_bytes(BEGIN + json.dumps({"event": event, "t_ns": 2, **fields}).encode())
    found = read_host(str(path))
    assert found.of(event) == [{"event": event, "t_ns": 2}]
    assert found.damage == 2


def test_a_key_of_a_later_version_passes(tmp_path: Path) -> None:
    path = tmp_path / "run.host.jsonl"
    path.write_bytes(BEGIN + b'{"event": "actual", "t_ns": 2, "bytes": 1, "mood": "good"}\n')
    assert read_host(str(path)).of(ACTUAL)[0]["mood"] == "good"


@pytest.mark.parametrize("content", [b"", b"\x00\x01BTRACE", b"{}\n", b'{"event": "end"}\n'])
def test_what_is_no_such_file(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "run.host.jsonl"
    path.write_bytes(content)
    with pytest.raises(UserError, match="does not begin as the host's view"):
        read_host(str(path))


@pytest.mark.parametrize("version", [b"2", b'"1"', b"null"])
def test_another_format(tmp_path: Path, version: bytes) -> None:
    path = tmp_path / "run.host.jsonl"
    path.write_bytes(b'{"event": "begin", "t_ns": 1, "format": ' + version + b"}\n")
    with pytest.raises(UserError, match="this version reads up to 1"):
        read_host(str(path))


def test_what_cannot_be_opened(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="No such file"):
        read_host(str(tmp_path / "none"))
    with pytest.raises(UserError, match="Is a directory"):
        read_host(str(tmp_path))


def test_no_more_is_read_than_is_reasonable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("balloontrace.recording.host_lines._MOST_BYTES", 200)
    path = tmp_path / "run.host.jsonl"
    path.write_bytes(BEGIN * 10)
    with pytest.raises(UserError, match="cut it"):
        read_host(str(path))
