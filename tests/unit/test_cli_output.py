# SPDX-License-Identifier: Apache-2.0
"""What is printed where: closed and full streams, terminals that lack characters, whoever reads."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import struct
import subprocess
import sys
import termios
from pathlib import Path

import pytest

from balloontrace.recording.writer import Writer
from tests.unit.builders import Built, shrinker_like, stock_like

NAME = "häß→".encode()


@pytest.fixture(scope="module")
def recording(tmp_path_factory: pytest.TempPathFactory) -> str:
    """One whose task has a name that few encodings have."""
    built = stock_like(40).leak(1.2, 0.1, 256, within="scan leak", tid=99, comm=NAME)
    return built.write(tmp_path_factory.mktemp("output") / "r.btrace")


def run(shell: str, path: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """`balloontrace` in a shell, as $B, with the recording as $R."""
    command = f"{sys.executable} -m balloontrace"
    inherited = {k: v for k, v in os.environ.items() if not k.startswith(("LC_", "LANG", "PYTHON"))}
    known = {**inherited, "B": command, "R": path, "LC_ALL": "C.UTF-8", **environment}
    return subprocess.run(
        ["sh", "-c", shell], env=known, capture_output=True, text=True, encoding="utf-8"
    )


@pytest.mark.parametrize(
    "command",
    ["report $R", "report --json $R", "compare $R $R", "export --format perfetto -o - $R"],
)
def test_a_stdout_that_is_full_or_closed_is_said_in_one_line(command: str, recording: str) -> None:
    full = run(f"$B {command} > /dev/full", recording)
    assert (full.returncode, full.stdout) == (1, "")
    (line,) = full.stderr.splitlines()
    assert line == "balloontrace: cannot write to stdout: No space left on device"
    closed = run(f"$B {command} >&-", recording)
    assert closed.returncode == 2
    (line,) = closed.stderr.splitlines()
    assert line.startswith("balloontrace: cannot write to stdout: it is closed; ")


def test_nothing_said_on_stderr_comes_on_stdout_instead(recording: str) -> None:
    done = run("$B report $R.not 2>&-", recording)
    assert (done.returncode, done.stdout) == (1, "")
    done = run("$B report $R.not 2> /dev/full", recording)
    assert (done.returncode, done.stdout) == (1, "")


def test_a_reader_that_has_seen_enough_is_no_error(recording: str) -> None:
    done = run("$B report -v $R | head -n 1", recording)
    assert done.stderr == ""
    assert len(done.stdout.splitlines()) == 1


@pytest.mark.parametrize(
    "environment",
    [{"LC_ALL": "C"}, {"LC_ALL": "POSIX"}, {"PYTHONIOENCODING": "ascii"}],
)
def test_a_terminal_without_other_characters_gets_none(
    environment: dict[str, str], recording: str
) -> None:
    for command in ("report", "report -v", "compare $R"):
        done = run(f"$B {command} $R", recording, **environment)
        assert (done.returncode, done.stderr) == (0, "")
        done.stdout.encode("ascii")
    assert "task h\\xe4\\xdf\\u2192" in run("$B report $R", recording, **environment).stdout


def test_an_encoding_that_lacks_a_name_escapes_it_and_draws_in_ascii(recording: str) -> None:
    done = run("$B report $R | iconv -f latin1 -t utf8", recording, PYTHONIOENCODING="latin-1")
    assert (done.returncode, done.stderr) == (0, "")
    assert "task häß\\u2192" in done.stdout
    assert "█" not in done.stdout


def test_a_terminal_that_has_all_characters_gets_them(recording: str) -> None:
    said = run("$B report $R", recording).stdout
    assert "task häß→" in said
    assert "█" in said


def test_a_recording_that_goes_on_is_not_called_killed(tmp_path: Path) -> None:
    built = shrinker_like(rounds=3)
    built.trailer = None
    copied = run("$B report $R", built.write(tmp_path / "copied.btrace")).stdout
    assert "TRUNCATED: the recorder was killed, or had not ended when this was copied" in copied
    recorder = subprocess.Popen(
        [sys.executable, "-c", "input()", "balloontrace.tracers.record.session"],
        stdin=subprocess.PIPE,
    )
    built.header["guest"]["boot_id"] = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    built.header["tasks"]["recorder"] = recorder.pid
    path = built.write(tmp_path / "going-on.btrace")
    assert "STILL RECORDING: what was written so far" in run("$B report $R", path).stdout
    recorder.communicate(b"\n")
    assert "TRUNCATED" in run("$B report $R", path).stdout


def lying(path: Path, **changed: object) -> str:
    """A recording whose header is not that of its events."""
    built = stock_like(20)
    built.header |= changed
    return built.write(path)


@pytest.mark.parametrize("field", [["x", "O"], ["x", "V2000000000"], ["x", "(9,9)O"]])
def test_events_that_cannot_be_so_are_refused_in_one_line(field: list[str], tmp_path: Path) -> None:
    record = [*Built().header["record"], field]
    done = run("$B report $R", lying(tmp_path / "r.btrace", record=record))
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert "does not describe its events" in line


def test_kinds_that_are_all_one_number_are_refused_in_one_line(tmp_path: Path) -> None:
    kinds = dict.fromkeys(Built().header["kinds"], 1)
    for command in ("report", "report --json", "export --format perfetto -o -", "compare $R"):
        done = run(f"$B {command} $R > /dev/null", lying(tmp_path / "r.btrace", kinds=kinds))
        assert done.returncode == 1
        (line,) = done.stderr.splitlines()
        assert line.endswith("does not describe its events: two kinds have one number")


def test_an_event_out_of_range_is_exported(tmp_path: Path) -> None:
    built = stock_like(4).call("leak", 2**33, 2**33, 2**32 - 2, 2**32 - 2, within="worker leak")
    built.call("target", 5, 0, 2**32 - 1, 7, flags="partial")
    path = built.write(tmp_path / "r.btrace")
    for form in ("--format perfetto", "--format csv --kind leak"):
        done = run(f"$B export {form} -o - $R > /dev/null", path)
        assert (done.returncode, "Traceback" in done.stderr) == (0, False), done.stderr


def test_a_file_of_frames_alone_is_read_and_said(tmp_path: Path) -> None:
    path = tmp_path / "r.btrace"
    with path.open("wb") as file:
        Writer(file.fileno()).sample({"t_ns": 1})
    done = run("$B report $R", str(path))
    assert (done.returncode, len(done.stderr.splitlines())) == (1, 1)


def test_a_recording_comes_from_a_pipe_as_well(recording: str, tmp_path: Path) -> None:
    said = run("$B report $R", recording).stdout.splitlines()
    where = next(place for place, line in enumerate(said) if line.startswith("recording "))
    for shell in ("$B report - < $R", "cat $R | $B report -", "cat $R | $B report /dev/stdin"):
        piped = run(shell, recording).stdout.splitlines()
        assert piped[where + 1 :] == said[where + 1 :]
    whole = run("$B export --format perfetto -o - $R | sha256sum", recording).stdout
    assert run("cat $R | $B export --format perfetto -o - - | sha256sum", recording).stdout == whole
    endless = run("cat /dev/zero | $B report -", recording)
    assert "- is not a balloontrace recording" in endless.stderr
    closed = run("$B report - <&-", recording)
    assert closed.stderr == "balloontrace: cannot read stdin: Bad file descriptor\n"


def on_terminal(lines: int, *arguments: str, **environment: str) -> str:
    """What the command line prints on a terminal of so many lines."""
    primary, secondary = pty.openpty()
    fcntl.ioctl(secondary, termios.TIOCSWINSZ, struct.pack("HHHH", lines, 120, 0, 0))
    known = {**os.environ, "TERM": "xterm", "LC_ALL": "C.UTF-8", **environment}
    for name in ("LINES", "COLUMNS", "NO_COLOR"):
        known.pop(name, None)
    command = [sys.executable, "-m", "balloontrace", *arguments]
    process = subprocess.Popen(command, stdin=secondary, stdout=secondary, stderr=2, env=known)
    os.close(secondary)
    said = b""
    with contextlib.suppress(OSError):  # the terminal's other end is closed
        while part := os.read(primary, 1 << 16):
            said += part
    os.close(primary)
    assert process.wait() == 0
    return said.decode()


def test_a_terminal_gets_its_width_colours_and_a_pager(recording: str) -> None:
    long = on_terminal(20, "report", recording, PAGER="sed s/^/page:/")
    assert all(line.startswith("page:") for line in long.splitlines())
    short = on_terminal(500, "report", recording, PAGER="sed s/^/page:/")
    assert "page:" not in short
    assert "\x1b[" in short
    plain = on_terminal(500, "report", recording, "--color", "never")
    assert "\x1b[" not in plain
    assert 100 < max(map(len, plain.splitlines())) <= 120


def test_the_shell_can_complete(recording: str) -> None:
    words = {"COMP_WORDS": "balloontrace re", "COMP_CWORD": "1"}
    script = Path(sys.executable).with_name("balloontrace")
    done = run(str(script), recording, _BALLOONTRACE_COMPLETE="complete_bash", **words)
    assert done.stdout.split() == ["record", "report"]
