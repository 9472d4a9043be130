# SPDX-License-Identifier: Apache-2.0
"""The program that shows the lines: keys, time, and what a terminal needs to be left as it was.

What comes is read a little at a time, so that a storm of events does not hold up a key. Once a
second a line that changed is painted again, and no other: over 9,600 baud that is legible; while
the terminal still has something to send, or takes nothing more, nothing is painted at all.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import select
import signal
import struct
import termios
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import zip_longest
from pathlib import Path
from typing import ClassVar

from rich.segment import Segment
from rich.style import Style
from textual.app import App, ComposeResult
from textual.binding import Binding, BindingType
from textual.geometry import Region
from textual.strip import Strip
from textual.widget import Widget
from textual.widgets import Input

from balloontrace.endings import heeded
from balloontrace.errors import UserError
from balloontrace.live.model import ZOOMS_S
from balloontrace.live.screen.layout import SORTS, TABLES, Shown, columns_for, lines
from balloontrace.live.screen.lines import BAD, DIM, GOOD, PLAIN, STRONG, TITLE, WARN, Line
from balloontrace.live.session import Session

PAINT_S, READ_S = 1.0, 0.1
"""From one time to the next."""
_READING_S = 0.05
"""So long at most at once what comes is read."""
_SETTLE_S = 0.1
"""So long painting waits for all that a widget changes which comes or goes."""

_STYLES = {
    PLAIN: Style(),
    STRONG: Style(bold=True),
    DIM: Style(dim=True),
    GOOD: Style(color="green"),
    WARN: Style(color="yellow", bold=True),
    BAD: Style(color="red", bold=True),
    TITLE: Style(underline=True),
}


class Lines(Widget, can_focus=True):
    """The lines; only those that differ from what is on the screen are painted."""

    DEFAULT_CSS = "Lines { width: 100%; height: 1fr; }"

    def __init__(self) -> None:
        super().__init__()
        self._lines: list[Line] = []

    def show(self, wanted: list[Line]) -> None:
        """Paint what changed."""
        before, self._lines = self._lines, wanted
        changed = [
            Region(columns.start, number, len(columns), 1)
            for number, (was, line) in enumerate(zip_longest(before, wanted, fillvalue=()))
            if (columns := changed_columns(was, line, self.size.width))
        ]
        if changed:
            self.refresh(*changed)

    @property
    def text(self) -> str:
        """What is shown, without styles."""
        return "\n".join("".join(each.text for each in line).rstrip() for line in self._lines)

    def render_line(self, y: int) -> Strip:
        """See Textual."""
        if y >= len(self._lines):
            return Strip.blank(self.size.width)
        line = self._lines[y]
        return Strip([Segment(each.text, _STYLES[each.style]) for each in line])


def changed_columns(before: Line, now: Line, width: int) -> range:
    """The columns of a line from the first that changed to the last."""
    was, cells = _cells(before), _cells(now)
    if len(was) != width or len(cells) != width:  # it was not there, or a character takes two
        return range(width if before != now else 0)
    differ = [column for column in range(width) if was[column] != cells[column]]
    return range(differ[0], differ[-1] + 1) if differ else range(0)


def _cells(line: Line) -> list[tuple[str, str]]:
    """Each character with its style."""
    return [(char, each.style) for each in line for char in each.text]


class LiveApp(App[int]):
    """One guest, as a session knows it. When that is over, what was seen stays until a key ends it.

    failure: why it could not go on.
    """

    CSS = """
        Screen { background: transparent; layers: lines name; }
        Lines { layer: lines; }
        Input { layer: name; dock: bottom; border: none; height: 1; }
    """
    ENABLE_COMMAND_PALETTE = False
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("space", "pause"),
        Binding("left", "walk(-1)"),
        Binding("right", "walk(1)"),
        Binding("pageup", "walk(-10)"),
        Binding("pagedown", "walk(10)"),
        Binding("home", "walk_to(0)"),
        Binding("end", "walk_to(-1)"),
        Binding("plus,equals_sign", "zoom(-1)"),
        Binding("minus", "zoom(1)"),
        Binding("tab", "table", priority=True),
        Binding("o", "sort"),
        Binding("s", "save"),
        Binding("question_mark", "help"),
        Binding("ctrl+l", "paint_all"),
        Binding("q", "quit_live"),
        Binding("ctrl+c", "quit_live", priority=True),
        Binding("escape", "leave", priority=True),
    ]

    def __init__(self, session: Session) -> None:
        super().__init__(ansi_color=True)
        self.failure: UserError | None = None
        self._session = session
        self._shown, self._zoom = Shown(), 0
        self._at: int | None = None
        self._quitting = False
        self._is_due = self._told_end = False
        self._unpainted = contextlib.ExitStack()

    def compose(self) -> ComposeResult:
        """See Textual."""
        yield Lines()

    def on_load(self) -> None:
        """See Textual. It would paint an empty screen three times before there is anything."""
        self._unpainted.enter_context(self.batch_update())

    def on_mount(self) -> None:
        """See Textual."""
        self.set_interval(READ_S, self._read)
        self.set_interval(PAINT_S, self.paint)
        self.query_one(Lines).focus()

    def on_resize(self) -> None:
        """See Textual."""
        self.call_after_refresh(self.paint)

    def _read(self) -> None:
        """Take what has come; a recorder of ours that is to end tells the rest first."""
        session, until_s = self._session, time.monotonic() + _READING_S
        if is_gone():  # and no SIGHUP said so, as with nohup
            self._quitting = True
            session.stop()
        try:
            read = -1
            while not session.over and read < session.model.following.bytes:
                read = session.model.following.bytes
                session.pump(0.0)
                if time.monotonic() >= until_s:
                    break
        except UserError as error:
            self.failure = error
        if self.failure or (self._quitting and session.over):
            self.exit(0)
        if session.over and not self._told_end:
            self._told_end = True
            self.set_timer(PAINT_S, self.action_paint_all)
        if self._is_due:
            self.paint()

    # ---- painting ----

    def paint(self) -> None:
        """Show what is known now, or what was known at the second that was walked to: at once, or
        as soon as the terminal has sent what was painted before."""
        shown = self.query_one(Lines)
        width, height = shown.size
        self._is_due = is_sending()
        if width and height and not self._is_due:
            at = self._at if self._shown.paused else None
            view = self._session.view(at, ZOOMS_S[self._zoom], columns_for(width))
            shown.show(lines(view, self._shown, width, height))
            self._unpainted.close()

    def show_second(self, second: int) -> None:
        """Show what was known at the end of a second, and stay there."""
        self._at = second
        self._change(replace(self._shown, paused=True, said=""))

    def _change(self, shown: Shown) -> None:
        self._shown = shown
        self.paint()

    # ---- keys ----

    def action_pause(self) -> None:
        """Stop, and go on at what is now."""
        paused, seen = not self._shown.paused, self._session.model.seconds
        self._at = seen[-1] if paused and seen else None
        self._change(replace(self._shown, paused=paused, said=""))

    def action_walk(self, seconds: int) -> None:
        """Back or forward; that pauses."""
        if seen := self._session.model.seconds:
            at = self._at if self._shown.paused and self._at is not None else seen[-1]
            self.show_second(min(max(at + seconds, seen[0]), seen[-1]))

    def action_walk_to(self, place: int) -> None:
        """To the first second that is kept, or the last."""
        if seen := self._session.model.seconds:
            self.show_second(seen[place])

    def action_zoom(self, step: int) -> None:
        """More time in the graph, or less."""
        self._zoom = min(max(self._zoom + step, 0), len(ZOOMS_S) - 1)
        self.paint()

    def action_table(self) -> None:
        """The next table."""
        place = (TABLES.index(self._shown.table) + 1) % len(TABLES)
        self._change(replace(self._shown, table=TABLES[place], sort=0, said=""))

    def action_sort(self) -> None:
        """Its rows by another column."""
        if by := SORTS.get(self._shown.table):
            place = (self._shown.sort + 1) % len(by)
            self._change(replace(self._shown, sort=place, said=f"sorted by {by[place]}"))

    def action_help(self) -> None:
        """What the keys do."""
        self._change(replace(self._shown, help=not self._shown.help))

    def action_paint_all(self) -> None:
        """Again, over what others have written to the terminal: ssh, say, that lost its guest."""
        self.query_one(Lines).refresh()

    def action_quit_live(self) -> None:
        """End it, as a recorder of ours does: in order. A second time: at once."""
        if self._quitting or self._session.over:
            self.exit(0)
        self._quitting = True
        self._session.stop()
        self._change(replace(self._shown, said="ending"))

    async def action_save(self) -> None:
        """Ask for a name."""
        if not self.query(Input):
            name = time.strftime("balloontrace-live-%Y%m%dT%H%M%SZ.btrace", time.gmtime())
            asked = Input(name, compact=True, select_on_focus=False)
            asked.cursor_blink = False
            self.delay_update(_SETTLE_S)
            await self.mount(asked)
            asked.focus()

    async def action_leave(self) -> None:
        """Save nothing; leave the help."""
        await self._ask_no_more()
        if self._shown.help:
            self._change(replace(self._shown, help=False))

    async def on_input_submitted(self, event: Input.Submitted) -> None:
        """A name was given."""
        await self._ask_no_more()
        if not event.value:
            self._change(replace(self._shown, said="nothing saved: no name"))
            return
        try:
            self._session.save(Path(event.value))
            said = f"saved as {event.value}"
        except UserError as error:
            said = str(error)
        self._change(replace(self._shown, said=said))

    async def _ask_no_more(self) -> None:
        self.delay_update(_SETTLE_S)
        await self.query(Input).remove()
        self.query_one(Lines).focus()


def is_sending(descriptor: int = 1) -> bool:
    """Whether the terminal has not yet sent what was written to it, or takes nothing more: who
    writes to such a one waits, and reads neither keys nor the stream meanwhile."""
    try:
        waiting = fcntl.ioctl(descriptor, termios.TIOCOUTQ, b"\0" * 4)
    except OSError:
        return False
    return bool(struct.unpack("i", waiting)[0]) or not select.select([], [descriptor], [], 0)[1]


def is_gone(descriptor: int = 1) -> bool:
    """Whether the terminal was closed: nobody sees what is shown, and no key can end it."""
    try:
        fcntl.ioctl(descriptor, termios.TIOCOUTQ, b"\0" * 4)
    except OSError as error:
        return error.errno == errno.EIO
    return False


def take_terminal() -> int:
    """Have keys read from the terminal where stdin is none; returns a descriptor of what it was.

    Raises UserError if there is no terminal.
    """
    stream = os.dup(0)
    try:
        terminal = os.open("/dev/tty", os.O_RDWR)
    except OSError as error:
        raise UserError(f"no terminal for the keys: {error.strerror}", "give --plain") from None
    os.dup2(terminal, 0)
    os.close(terminal)
    return stream


@contextlib.contextmanager
def _stderr_is_the_terminal() -> Iterator[None]:
    """Textual writes to stderr, which may be a file here."""
    kept = os.dup(2)
    os.dup2(1, 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)


def _await_first(session: Session, say: Callable[[str], None]) -> bool:
    """Leave the terminal as it is until something has come: ssh may ask for a password there, and a
    recorder that cannot run has nothing to show. Returns whether something came."""
    session.pump(PAINT_S)
    if not session.model.following.bytes and not session.over:
        say(f"waiting for the first block of {session.model.name}")
    while not session.model.following.bytes and not session.over:
        session.pump(READ_S)
    return session.model.following.bytes > 0


@contextlib.contextmanager
def _ended_by_signals(app: LiveApp, session: Session) -> Iterator[None]:
    """Each signal that is heeded ends it in order. The third one ends it at once: what is written
    to a terminal that takes nothing never ends."""
    received, endings = list[int](), heeded()

    def end(number: int, _: object) -> None:
        received.append(number)
        # With SIGHUP comes SIGCONT, at which Textual would begin again on a terminal that is gone.
        signal.signal(signal.SIGCONT, signal.SIG_DFL)
        if len(received) > 1:
            signal.signal(number, signal.SIG_DFL)
        if app.is_running:
            app.call_later(app.action_quit_live)
        else:
            session.stop()

    before = {number: signal.getsignal(number) for number in (*endings, signal.SIGCONT)}
    try:
        for number in endings:
            signal.signal(number, end)
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def run(session: Session, say: Callable[[str], None]) -> int:
    """Show it until it is ended; returns the exit status. Signals leave the terminal as it was,
    too. say: is told what people should know before there is a screen. Raises UserError if it
    cannot go on."""
    app = LiveApp(session)
    with _ended_by_signals(app, session):
        try:
            if _await_first(session, say):
                with _stderr_is_the_terminal():
                    app.run(mouse=False)
        finally:
            status = session.close()
    if app.failure:
        raise app.failure
    return status
