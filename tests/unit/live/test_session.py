# SPDX-License-Identifier: Apache-2.0
"""Sources of `live`, how each ends, and what is saved of it."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest

from balloontrace.errors import UserError
from balloontrace.live.run import lines
from balloontrace.live.session import Session
from balloontrace.live.sources import GrowingFile, Pipe, Recorder
from tests.unit.live.test_model import FOUNDING

LIVE = [sys.executable, "-m", "balloontrace", "live"]
CAT = [sys.executable, "-c", "import sys; sys.stdout.buffer.write(open(sys.argv[1], 'rb').read())"]


def over(session: Session) -> Session:
    """One that was read until it was over."""
    while not session.over:
        session.pump(0.05)
    return session


def until(session: Session, condition: Callable[[], bool]) -> None:
    """Read on until something is so."""
    while not condition():
        session.pump(0.01)


def piped(*arguments: str, data: bytes) -> subprocess.CompletedProcess[bytes]:
    """`live` of what comes through a pipe."""
    return subprocess.run([*LIVE, *arguments, "-"], input=data, capture_output=True, check=False)


def test_a_stream_through_a_pipe_ends_with_its_trailer() -> None:
    done = piped("--json", data=FOUNDING.read_bytes())
    told = [json.loads(line) for line in done.stdout.splitlines()]
    assert (done.returncode, done.stderr) == (0, b"")
    assert [line["state"] for line in told] == ["tracing"] * (len(told) - 1) + ["ended"]
    times = [line["t_ns"] for line in told]
    assert times == sorted(times)


def test_a_stream_without_a_trailer_was_closed() -> None:
    done = piped("--plain", data=FOUNDING.read_bytes()[:-300])
    assert done.returncode == 1
    assert b"# the stream was closed before its end" in done.stdout


@pytest.mark.parametrize(
    ("data", "said"), [(b"", b"is empty"), (b"\x7fELF", b"is not a balloontrace recording")]
)
def test_what_is_no_recording_is_one_line(data: bytes, said: bytes) -> None:
    done = piped("--json", data=data)
    assert (done.returncode, done.stdout) == (1, b"")
    assert done.stderr.count(b"\n") == 1
    assert said in done.stderr


def test_without_a_terminal_lines_are_plain() -> None:
    done = piped(data=FOUNDING.read_bytes())
    assert done.returncode == 0
    assert b"gives back by: shrinker" in done.stdout


def test_a_reader_that_has_seen_enough_ends_it(tmp_path: Path) -> None:
    path = tmp_path / "growing.btrace"
    path.write_bytes(FOUNDING.read_bytes()[:-300])
    live = subprocess.Popen([*LIVE, "--json", path], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert live.stdout is not None
    assert json.loads(live.stdout.readline())
    live.stdout.close()
    with path.open("ab") as file:
        file.write(FOUNDING.read_bytes()[-300:])
    assert live.wait() == 1
    assert live.stderr is not None
    assert live.stderr.read() == b""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it_in_order(number: signal.Signals, tmp_path: Path) -> None:
    path = tmp_path / "growing.btrace"
    path.write_bytes(FOUNDING.read_bytes()[:-300])
    live = subprocess.Popen([*LIVE, "--json", path], stdout=subprocess.PIPE)
    assert live.stdout is not None
    first = live.stdout.readline()
    live.send_signal(number)
    rest = live.stdout.read()
    assert live.wait() == 0
    assert json.loads(first)["state"] == "tracing"
    assert json.loads(rest.splitlines()[-1])["said"] == "ended here"


def test_d_ends_it(tmp_path: Path) -> None:
    path = tmp_path / "growing.btrace"
    path.write_bytes(FOUNDING.read_bytes()[:-300])
    done = subprocess.run([*LIVE, "-d", "100ms", path], stdout=subprocess.PIPE, check=False)
    assert done.returncode == 0


def test_a_file_that_grows_is_followed(tmp_path: Path) -> None:
    path, data = tmp_path / "growing.btrace", FOUNDING.read_bytes()
    path.write_bytes(data[:9])
    session = Session(GrowingFile(str(path)))
    session.pump(0.0)
    with path.open("ab") as file:
        file.write(data[9:20_000])
        file.flush()
        until(session, lambda: session.model.following.bytes == 20_000)
        assert session.view().size_pages
        file.write(data[20_000:])
    over(session)
    assert session.close() == 0
    assert session.view().stream.said == "ended: interrupted"


@pytest.mark.parametrize("how", ["cut", "replaced", "gone"])
def test_a_file_that_will_not_grow_is_told(how: str, tmp_path: Path) -> None:
    path = tmp_path / "growing.btrace"
    path.write_bytes(FOUNDING.read_bytes()[:20_000])
    session = Session(GrowingFile(str(path)))
    until(session, lambda: session.model.following.bytes == 20_000)
    if how == "cut":
        os.truncate(path, 100)
    else:
        path.unlink()
        if how == "replaced":
            path.write_bytes(b"")
    over(session)
    said = {"cut": "the file was cut", "gone": "the file is gone"}
    assert session.view().stream.said == said.get(how, "another file took its place")
    assert session.close() == 1


def test_a_file_that_cannot_be_read_is_one_line(tmp_path: Path) -> None:
    for path in (tmp_path / "absent.btrace", tmp_path):
        with pytest.raises(UserError, match=r"cannot read|no regular file"):
            GrowingFile(str(path))


def pipe_of(data: bytes) -> tuple[Pipe, int]:
    """A pipe with so much in it, and the end to write to."""
    reader, writer = os.pipe()
    os.write(writer, data)
    return Pipe(reader, "stream"), writer


def test_silence_is_said_once_and_what_comes_then(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("balloontrace.live.model.SILENT_S", 0.2)
    data = FOUNDING.read_bytes()
    pipe, writer = pipe_of(data[:30_000])
    session, states = Session(pipe), list[str]()

    def write(state: str) -> None:
        states.append(state)
        if state == "silent":
            os.write(writer, data[30_000:])
            os.close(writer)

    assert lines(session, lambda view: view.stream.state, write) == 0
    assert states.count("silent") == 1
    assert states[-1] == "ended"
    assert states[states.index("silent") + 1] == "tracing"


def test_all_of_a_stream_can_be_saved_at_any_time(tmp_path: Path) -> None:
    data = FOUNDING.read_bytes()
    pipe, writer = pipe_of(data[:30_000])
    session = Session(pipe, keep=True)
    until(session, lambda: session.model.following.bytes == 30_000)
    session.save(tmp_path / "early.btrace")
    assert (tmp_path / "early.btrace").read_bytes() == data[:30_000]
    with pytest.raises(UserError, match="exists"):
        session.save(tmp_path / "early.btrace")
    os.write(writer, data[30_000:])
    os.close(writer)
    over(session)
    session.save(tmp_path / "all.btrace")
    assert (tmp_path / "all.btrace").read_bytes() == data
    assert session.view().stream.saved_as == str(tmp_path / "all.btrace")
    assert session.close() == 0


def test_what_is_saved_from_the_begin_is_there_at_the_end(tmp_path: Path) -> None:
    saved = tmp_path / "saved.btrace"
    done = piped("--json", "--save", str(saved), data=FOUNDING.read_bytes())
    assert done.returncode == 0
    assert saved.read_bytes() == FOUNDING.read_bytes()
    done = piped("--json", "--save", str(saved), data=b"")
    assert done.returncode == 1
    assert b"exists" in done.stderr
    assert saved.read_bytes() == FOUNDING.read_bytes()


def test_a_full_disk_ends_what_is_saved_and_not_what_is_seen(tmp_path: Path) -> None:
    data, saved = FOUNDING.read_bytes(), tmp_path / "saved.btrace"
    command = [sys.executable, "-m", "balloontrace", "live", "--plain", "--save", str(saved), "-"]
    most = len(data) // 2

    def limit() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))

    done = subprocess.run(command, input=data, capture_output=True, check=False, preexec_fn=limit)
    assert done.returncode == 1
    last = done.stderr.decode().splitlines()[-1]
    assert last.startswith(f"balloontrace: cannot go on writing {saved}: ")
    assert last.endswith("what came before is kept")
    assert b"Traceback" not in done.stderr
    assert saved.read_bytes() == data[:most]
    assert piped("--plain", data=data).stdout.splitlines()[-1] == done.stdout.splitlines()[-1]


def test_a_recording_is_not_saved_over_itself() -> None:
    with pytest.raises(UserError, match="is a recording already"):
        Session(GrowingFile(str(FOUNDING)), save_as=FOUNDING)


_FAILING = [sys.executable, "-c", "import sys; print('no balloon', file=sys.stderr); sys.exit(3)"]


def test_a_recorder_of_ours_that_cannot_record_gives_its_status() -> None:
    done = over(Session(Recorder([*CAT, str(FOUNDING)])))
    assert done.view().stream.state == "ended"
    assert done.close() == 0
    with tempfile.TemporaryFile() as said:
        session = over(Session(Recorder(_FAILING, said)))
        assert session.close() == 3
        said.seek(0)
        assert said.read() == b"no balloon\n"


_SLOW = """
import signal, sys
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
data = open(sys.argv[1], "rb").read()
sys.stdout.buffer.write(data[:-300]), sys.stdout.flush()
signal.sigwait([signal.SIGINT])
sys.stdout.buffer.write(data[-300:])
"""


def test_a_recorder_of_ours_tells_the_rest_when_it_is_stopped() -> None:
    recorder = Recorder([sys.executable, "-c", _SLOW, str(FOUNDING)])
    session = Session(recorder)
    size = FOUNDING.stat().st_size
    until(session, lambda: session.model.following.bytes == size - 300)
    session.stop()
    over(session)
    assert session.model.following.bytes == size
    assert session.close() == 0
    assert session.view().stream.state == "ended"
