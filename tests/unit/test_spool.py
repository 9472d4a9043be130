# SPDX-License-Identifier: Apache-2.0
"""A stream whose reader is slow: nothing waits for it, and what it misses is counted."""

from __future__ import annotations

import fcntl
import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from balloontrace.analysis.report import build
from balloontrace.analysis.text.report import report_text
from balloontrace.errors import UserError
from balloontrace.recording import spool
from balloontrace.recording.reader import Recording, read_recording
from balloontrace.recording.spool import Spool
from balloontrace.recording.writer import ITEM_BYTES, Writer
from tests.unit.builders import stock_like

MOST = 200_000
BLOCK_EVENTS = 1000


class Pipe:
    """A pipe, and a reader that begins late."""

    def __init__(self) -> None:
        self.reader, self.writer = os.pipe()
        self._read = bytearray()
        self._reading = threading.Thread(target=self._read_all)

    def begin_to_read(self) -> None:
        """Read from now on, in the background."""
        self._reading.start()

    def content(self) -> bytes:
        """All that was written, which is the end of it."""
        os.close(self.writer)
        self.writer = -1
        self._reading.join()
        return bytes(self._read)

    def _read_all(self) -> None:
        while data := os.read(self.reader, 1 << 16):
            self._read += data


@pytest.fixture
def pipe() -> Iterator[Pipe]:
    made = Pipe()
    yield made
    for descriptor in (made.reader, made.writer):
        if descriptor >= 0:
            os.close(descriptor)


def _events() -> bytes:
    """Such as cannot be compressed."""
    return os.urandom(BLOCK_EVENTS * ITEM_BYTES)


def _recording(data: bytes, tmp_path: Path) -> Recording:
    path = tmp_path / "stream.btrace"
    path.write_bytes(data)
    return read_recording(str(path))


def test_a_reader_that_does_not_read_holds_nothing_up(pipe: Pipe, tmp_path: Path) -> None:
    writer = Writer(pipe.writer, spool=Spool(pipe.writer, MOST))
    writer.header({})
    for _ in range(20):
        writer.events(_events())
    assert 0 < writer.left_out < 20 * BLOCK_EVENTS
    writer.trailer({"reason": "the end"})
    pipe.begin_to_read()
    writer.end()
    found = _recording(pipe.content(), tmp_path)
    assert sum(map(len, found.events)) == 20 * BLOCK_EVENTS * ITEM_BYTES - (
        writer.left_out * ITEM_BYTES
    )
    assert found.missing_blocks == writer.left_out // BLOCK_EVENTS
    assert found.trailer == {"reason": "the end"}
    assert not found.damage


def test_a_sample_that_others_refer_to_is_written_again(pipe: Pipe, tmp_path: Path) -> None:
    writer = Writer(pipe.writer, spool=Spool(pipe.writer, MOST))
    writer.header({})
    while not writer.left_out:
        writer.events(_events())
    names = {os.urandom(200).hex(): 1 for _ in range(1000)}
    writer.sample({"t_ns": 1, "vmstat": names})
    pipe.begin_to_read()
    writer.end()
    for t_ns in (2, 3):
        writer.sample({"t_ns": t_ns, "vmstat": names})
    writer.end()
    found = _recording(pipe.content(), tmp_path)
    assert [sample["t_ns"] for sample in found.samples] == [2, 3]
    assert not found.damage


def test_the_pipe_stays_as_it_is_for_who_shares_it(pipe: Pipe) -> None:
    Writer(pipe.writer, spool=Spool(pipe.writer)).header({})
    assert not fcntl.fcntl(pipe.writer, fcntl.F_GETFL) & os.O_NONBLOCK


def test_a_reader_that_is_gone_is_said(pipe: Pipe) -> None:
    writer = Writer(pipe.writer, spool=Spool(pipe.writer))
    os.close(pipe.reader)
    pipe.reader = -1
    with pytest.raises(UserError, match="Broken pipe"):
        writer.header({})


def test_a_reader_that_never_reads_is_given_up(pipe: Pipe, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spool, "STALLED_S", 0.01)
    writer = Writer(pipe.writer, spool=Spool(pipe.writer))
    writer.events(_events())
    writer.events(_events())
    with pytest.raises(UserError, match="takes no more"):
        writer.end()


def test_the_report_says_that_the_reader_was_too_slow(tmp_path: Path) -> None:
    built = stock_like()
    assert built.trailer is not None
    built.trailer["left_out"] = 1234
    text = report_text(build(built.write(tmp_path / "guest.btrace")))
    assert "too slow for 1,234 events" in " ".join(text.split())
