# SPDX-License-Identifier: Apache-2.0
"""The screen of `live` in a real terminal (tmux): keys, what is on the screen, how it is left."""

from __future__ import annotations

import os
import pty
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.unit.builders import shrinker_like

LIMIT_S = 60.0
LIVE = shlex.join([sys.executable, "-m", "balloontrace", "live"])
ROOT = Path(__file__).parents[3]


class Terminal:
    """A terminal of that size in which a shell command runs."""

    def __init__(self, directory: Path, command: str, size: tuple[int, int]) -> None:
        self._socket = directory / "tmux"
        script = f"stty -g > before; {command}; echo $? > status; stty -g > after; exec sleep 1000"
        width, height = map(str, size)
        self._tmux(
            *("new-session", "-d", "-x", width, "-y", height, "-c", str(directory)),
            *("-e", f"PYTHONPATH={ROOT}", "-e", "COLUMNS=", "-e", "LINES=", script),
        )

    def _tmux(self, *arguments: str) -> str:
        command = ["tmux", "-f", "/dev/null", "-S", str(self._socket), *arguments]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        return done.stdout

    def press(self, *keys: str) -> None:
        """Press keys, as tmux names them."""
        self._tmux("send-keys", *keys)

    def shows(self, text: str) -> str:
        """Wait until the text is on the screen; returns all of it."""
        return self._await(lambda screen: text in screen)

    def shows_no(self, text: str) -> str:
        """Wait until it is not."""
        return self._await(lambda screen: text not in screen)

    def _await(self, wanted: Callable[[str], bool]) -> str:
        end_s = time.monotonic() + LIMIT_S
        while not wanted(screen := self._tmux("capture-pane", "-p")):
            assert time.monotonic() < end_s, screen
            time.sleep(0.05)
        return screen

    def coloured(self) -> str:
        """What is on the screen, with what makes its colours."""
        return self._tmux("capture-pane", "-p", "-e")

    def device(self) -> Path:
        """Where others write to it."""
        return Path(self._tmux("list-panes", "-F", "#{pane_tty}").strip())

    def process(self) -> int:
        """The process id of the program that runs in it."""
        (shell,) = self._tmux("list-panes", "-F", "#{pane_pid}").split()
        children = subprocess.run(
            ["pgrep", "-P", shell], capture_output=True, text=True, check=True
        )
        return int(children.stdout.split()[-1])

    def end(self) -> None:
        """Close it."""
        self._tmux("kill-server")


@pytest.fixture
def recording(tmp_path: Path) -> Path:
    return Path(shrinker_like().write(tmp_path / "guest.btrace"))


@pytest.fixture
def terminals(tmp_path: Path) -> Iterator[list[Terminal]]:
    opened: list[Terminal] = []
    yield opened
    for terminal in opened:
        terminal.end()


def left_as_it_was(directory: Path) -> bool:
    """Whether the terminal is as before, once the program has ended."""
    end_s = time.monotonic() + LIMIT_S
    while not (directory / "after").exists() or not (directory / "after").read_text():
        assert time.monotonic() < end_s
        time.sleep(0.05)
    return (directory / "before").read_text() == (directory / "after").read_text()


@pytest.mark.parametrize("size", [(80, 24), (200, 50)])
def test_a_file_that_grows(
    tmp_path: Path, recording: Path, terminals: list[Terminal], size: tuple[int, int]
) -> None:
    data = recording.read_bytes()
    growing = tmp_path / "growing.btrace"
    growing.write_bytes(data[: len(data) // 2])
    terminal = Terminal(tmp_path, f"{LIVE} growing.btrace", size)
    terminals.append(terminal)
    terminal.shows("tracing")
    terminal.press("Space")
    terminal.shows("PAUSED")
    terminal.press("Home")
    terminal.shows("walked back")
    terminal.press("Space")
    with growing.open("ab") as file:
        file.write(data[len(data) // 2 :])
    terminal.shows("ended: command")
    screen = terminal.shows("busy-no-op")
    assert "equals vmstat" in screen
    assert max(map(len, screen.splitlines())) <= size[0]
    terminal.press("Tab")
    terminal.shows("who reclaims")
    terminal.press("q")
    assert left_as_it_was(tmp_path)
    assert (tmp_path / "status").read_text() == "0\n"


def test_keys_while_the_recording_comes_through_stdin(
    tmp_path: Path, recording: Path, terminals: list[Terminal]
) -> None:
    terminal = Terminal(tmp_path, f"cat guest.btrace | {LIVE} -", (80, 24))
    terminals.append(terminal)
    terminal.shows("ended: command")
    terminal.press("s")
    terminal.shows("balloontrace-live-")
    terminal.press("C-u")
    terminal.shows_no("balloontrace-live-")
    terminal.press(*"saved.btrace", "Enter")
    terminal.shows("saved as saved.btrace")
    terminal.press("q")
    assert left_as_it_was(tmp_path)
    assert (tmp_path / "saved.btrace").read_bytes() == recording.read_bytes()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_a_signal_leaves_the_terminal_as_it_was(
    tmp_path: Path, recording: Path, terminals: list[Terminal], number: signal.Signals
) -> None:
    terminal = Terminal(tmp_path, f"{LIVE} guest.btrace", (80, 24))
    terminals.append(terminal)
    terminal.shows("ended: command")
    os.kill(terminal.process(), number)
    assert left_as_it_was(tmp_path)
    assert (tmp_path / "status").read_text() == "0\n"


def test_with_nohup_a_closed_terminal_is_no_signal_to_end(
    tmp_path: Path, recording: Path, terminals: list[Terminal]
) -> None:
    data = recording.read_bytes()
    growing = tmp_path / "growing.btrace"
    growing.write_bytes(data[: len(data) // 2])
    terminal = Terminal(tmp_path, f"trap '' HUP; {LIVE} growing.btrace", (80, 24))
    terminals.append(terminal)
    terminal.shows("tracing")
    os.kill(terminal.process(), signal.SIGHUP)
    with growing.open("ab") as file:
        file.write(data[len(data) // 2 :])
    terminal.shows("ended: command")
    terminal.press("q")
    assert left_as_it_was(tmp_path)


def test_without_colours(tmp_path: Path, recording: Path, terminals: list[Terminal]) -> None:
    terminal = Terminal(tmp_path, f"NO_COLOR=1 {LIVE} guest.btrace", (80, 24))
    terminals.append(terminal)
    terminal.shows("busy-no-op")
    assert not any(f"\x1b[{code}m" in terminal.coloured() for code in range(30, 38))


def test_neither_stdin_nor_stderr_has_to_be_the_terminal(
    tmp_path: Path, recording: Path, terminals: list[Terminal]
) -> None:
    terminal = Terminal(tmp_path, f"{LIVE} guest.btrace < /dev/null 2> said", (80, 24))
    terminals.append(terminal)
    terminal.shows("ended: command")
    terminal.press("q")
    assert left_as_it_was(tmp_path)
    assert (tmp_path / "status").read_text() == "0\n"
    assert (tmp_path / "said").read_text() == ""


def test_until_the_first_block_others_can_ask_for_a_password(
    tmp_path: Path, recording: Path, terminals: list[Terminal]
) -> None:
    ssh = "(read secret < /dev/tty; echo $secret > typed; cat guest.btrace)"
    terminal = Terminal(tmp_path, f"{ssh} | {LIVE} -", (80, 24))
    terminals.append(terminal)
    terminal.shows("waiting for the first block of stdin")
    terminal.press("qqq", "Enter")
    terminal.shows("ended: command")
    assert (tmp_path / "typed").read_text() == "qqq\n"
    terminal.press("q")
    assert left_as_it_was(tmp_path)


def test_what_never_begins_is_ended_by_a_key(tmp_path: Path, terminals: list[Terminal]) -> None:
    (tmp_path / "empty.btrace").touch()
    terminal = Terminal(tmp_path, f"{LIVE} empty.btrace", (80, 24))
    terminals.append(terminal)
    terminal.shows("waiting for the first block of empty.btrace")
    terminal.press("C-c")
    assert left_as_it_was(tmp_path)
    assert (tmp_path / "status").read_text() == "0\n"


def test_what_others_write_over_it_can_be_painted_over(
    tmp_path: Path, recording: Path, terminals: list[Terminal]
) -> None:
    terminal = Terminal(tmp_path, f"{LIVE} guest.btrace", (80, 24))
    terminals.append(terminal)
    terminal.shows("ended: command")
    terminal.device().write_text("\x1b[10;1Hssh: lost")
    terminal.shows("ssh: lost")
    terminal.press("C-l")
    terminal.shows_no("ssh: lost")


@pytest.mark.parametrize("heeds", [True, False], ids=["", "nohup"])
def test_a_terminal_that_is_gone_ends_it(recording: Path, heeds: bool) -> None:
    child, terminal = pty.fork()
    if not child:
        signal.signal(signal.SIGHUP, signal.SIG_DFL if heeds else signal.SIG_IGN)
        command = [sys.executable, "-m", "balloontrace", "live", str(recording)]
        os.execv(sys.executable, command)
    shown = b""
    while b"ended: command" not in shown:
        shown += os.read(terminal, 4096)
    os.close(terminal)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
