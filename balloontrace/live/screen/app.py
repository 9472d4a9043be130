# SPDX-License-Identifier: Apache-2.0
"""The program that shows the lines: keys, time, and what a terminal needs to be left as it was.

What comes is read a little at a time, so that a storm of events does not hold up a key. Once a
second a line that changed is painted again, and no other: over 9,600 baud that is legible; while
the terminal still has something to send, nothing is painted at all.
"""

from __future__ import annotations

import fcntl
import os
import signal
import struct
import termios
import time
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

from balloontrace.errors import UserError
from balloontrace.live.model import ZOOMS_S
from balloontrace.live.screen.layout import SORTS, TABLES, Shown, columns_for, lines
from balloontrace.live.screen.lines import BAD, DIM, GOOD, PLAIN, STRONG, TITLE, WARN, Line
from balloontrace.live.session import Session

PAINT_S, READ_S = 1.0, 0.1
"""From one time to the next."""
_READING_S = 0.05
"""So long at most at once what comes is read."""

_STYLES = {
    PLAIN: Style(),
    STRONG: Style(bold=True),
    DIM: Style(dim=True),
    GOOD: Style(color="green"),
    WARN: Style(color="yellow", bold=True),
    BAD: Style(color="red", bold=True),
    TITLE: Style(underline=True),
}

ENDINGS = (signal.SIGTERM, signal.SIGHUP)


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

    CSS = "Screen { background: transparent; } Input { dock: bottom; border: none; height: 1; }"
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

    def compose(self) -> ComposeResult:
        """See Textual."""
        yield Lines()

    def on_mount(self) -> None:
        """See Textual."""
        self.set_interval(READ_S, self._read)
        self.set_interval(PAINT_S, self._paint_if_idle)
        self.query_one(Lines).focus()

    def on_resize(self) -> None:
        """See Textual."""
        self.call_after_refresh(self.paint)

    def _read(self) -> None:
        """Take what has come; a recorder of ours that is to end tells the rest first."""
        session, until_s = self._session, time.monotonic() + _READING_S
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

    # ---- painting ----

    def _paint_if_idle(self) -> None:
        """Once a second; not onto a line that is still sending what was painted before."""
        if not _is_sending():
            self.paint()

    def paint(self) -> None:
        """Show what is known now, or what was known at the second that was walked to."""
        shown = self.query_one(Lines)
        width, height = shown.size
        if width and height:
            at = self._at if self._shown.paused else None
            view = self._session.view(at, ZOOMS_S[self._zoom], columns_for(width))
            shown.show(lines(view, self._shown, width, height))

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
        await self.query(Input).remove()
        self.query_one(Lines).focus()


def _is_sending() -> bool:
    """Whether the terminal has not yet sent what was written to it."""
    try:
        waiting = fcntl.ioctl(1, termios.TIOCOUTQ, b"\0" * 4)
    except OSError:
        return False
    return bool(struct.unpack("i", waiting)[0])


def take_terminal() -> int:
    """Have keys read from the terminal where stdin is the recording; returns a descriptor of that.

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


def run(session: Session) -> int:
    """Show it until it is ended; returns the exit status. SIGTERM and SIGHUP leave the terminal as
    it was, too. Raises UserError if it cannot go on."""
    app = LiveApp(session)

    def end(*_: object) -> None:
        app.call_later(app.action_quit_live)

    try:
        for number in ENDINGS:
            signal.signal(number, end)
        app.run(mouse=False)
    finally:
        status = session.close()
    if app.failure:
        raise app.failure
    return status
