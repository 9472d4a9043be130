# SPDX-License-Identifier: Apache-2.0
"""The screen of `live` by its keys, and what it shows in terminals of any size."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest
from textual.pilot import Pilot

from balloontrace.live.model import Model
from balloontrace.live.screen import app as screen
from balloontrace.live.screen.app import Lines, LiveApp, changed_columns, is_sending
from balloontrace.live.screen.graph import LABEL
from balloontrace.live.screen.layout import HELP, KEYS, Shown, columns_for, lines
from balloontrace.live.screen.lines import BAD, STRONG, Part, width_of
from balloontrace.live.session import Session
from balloontrace.live.sources import GrowingFile, Pipe, Recorder
from tests.unit.builders import Built, shrinker_like, stock_like, vmstat
from tests.unit.live import screens

SIZES = ((80, 24), (200, 50), (120, 30), (60, 16), (40, 8), (39, 7), (10, 2))


def model_of(built: Built, tmp_path: Path, share: float = 1.0) -> Model:
    """What is known when that much of a recording has come."""
    data = Path(built.write(tmp_path / "guest.btrace")).read_bytes()
    model = Model("guest")
    if share:
        model.feed(data[: int(len(data) * share)], 0.0)
    if share == 1.0:
        model.close()
    return model


def text_of(model: Model, width: int, height: int, shown: Shown | None = None) -> str:
    """The screen as text."""
    view = model.view(1.0, columns=columns_for(width))
    made = lines(view, shown or Shown(), width, height)
    assert len(made) == height
    assert {width_of(line) for line in made} == {width}
    return "\n".join("".join(part.text for part in line) for line in made)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_every_line_fills_the_terminal_whatever_its_size(
    tmp_path: Path, size: tuple[int, int], share: float
) -> None:
    model = model_of(shrinker_like(), tmp_path, share)
    for table in ("causes", "tasks", "calls", "acks"):
        assert text_of(model, *size, Shown(table=table))
    assert text_of(model, *size, Shown(help=True))


def test_what_is_not_known_is_not_0(tmp_path: Path) -> None:
    text = text_of(model_of(stock_like(), tmp_path, 0.0), 80, 24)
    assert "balloon not known" in text
    assert "target not known" in text
    assert "not compared yet" in text
    assert "waiting for the first block" in text
    assert " 0 " not in text.replace(" 0 events/s ", " ")
    assert "no known pathology" not in text


def test_a_guest_that_is_silent_is_told_of(tmp_path: Path) -> None:
    model = model_of(stock_like(), tmp_path, 0.5)
    made = lines(model.view(9.0, columns=columns_for(80)), Shown(), 80, 24)
    assert "no block for 9 s" in "".join(each.text for each in made[1])


def test_a_wide_terminal_has_wider_seconds(tmp_path: Path) -> None:
    built = Built().target(0.5, 25600, 0).fill(1.0, 0.1, 25600)
    for second in range(1, 30):
        built.sample(second + 0.9, vmstat(25600))
    model = model_of(built.ends(30.0), tmp_path)
    for width, cells in ((80, 1), (200, 3)):
        bottom = next(
            line
            for line in text_of(model, width, 24).splitlines()
            if line.startswith(" " * 14 + "0 ")
        )
        assert bottom[LABEL:].count("█") == 29 * cells


def test_who_reclaims_is_named_once(tmp_path: Path) -> None:
    built = Built().target(0.5, 25600, 0).fill(1.0, 0.1, 25600)
    built.header["tasks"] = {"kswapd": [77]}
    built.leak(2.0, 0.1, 256, within="scan", tid=77, comm=b"kswapd0")
    built.leak(3.0, 0.1, 256, within="scan worker", tid=99, comm=b"kworker/0:1")
    built.leak(4.0, 0.1, 256, within="scan", tid=98, comm=b"cat")
    text = text_of(model_of(built.ends(20.0), tmp_path), 80, 24, Shown(table="tasks"))
    names = [line[:22].rstrip() for line in text.splitlines() if "shrinker  " in line]
    assert sorted(names) == ["cat task", "inflation", "kswapd"]


def test_a_busy_no_op_is_seen(tmp_path: Path) -> None:
    text = text_of(model_of(shrinker_like(), tmp_path), 80, 24)
    assert "busy-no-op" in text
    assert "shrinker" in text


def test_a_name_is_neither_markup_nor_a_command_to_the_terminal(tmp_path: Path) -> None:
    built = Built().target(0.5, 25600, 0).fill(1.0, 0.1, 25600)
    who = {"tid": 99, "comm": b"[red]\x1b[2J"}
    for n in range(10):
        built.call("scan", 2.0 + n, 0.5, 256, 256, **who)
        built.leak(2.1 + n, 0.1, 256, **{**who, "within": "scan leak"})
    text = text_of(model_of(built.ends(20.0), tmp_path), 80, 24, Shown(table="tasks"))
    assert "\x1b" not in text
    assert "[red]\\x1b" in text


def test_losses_stand_where_trust_is_told(tmp_path: Path) -> None:
    built = stock_like()
    assert built.trailer is not None
    built.trailer["counters"] = {"fill": {"entered": 407, "written": 400, "lost": 7}}
    built.trailer["lost_events"] = 7
    assert "7 lost" in text_of(model_of(built, tmp_path), 80, 24)


# ---- by keys ----


@pytest.mark.parametrize("size", screens.SIZES)
@pytest.mark.parametrize("name", screens.SHOWN)
def test_screens_are_as_they_were(name: str, size: tuple[int, int]) -> None:
    now, before = screens.screen(name, size), screens.golden(name, size).read_text()
    assert now == before, "if that is meant: make golden"


def test_the_help_fits_into_80_columns() -> None:
    assert max(map(len, (*HELP, KEYS))) < 80


Steps = Callable[[LiveApp, Pilot[int]], Coroutine[Any, Any, None]]


def driven(app: LiveApp, steps: Steps, size: tuple[int, int] = (80, 24)) -> None:
    """Run the program in a terminal of that size while keys are pressed."""

    async def run() -> None:
        async with app.run_test(size=size) as pilot:
            await pilot.pause()
            await steps(app, pilot)

    asyncio.run(run())


def shown_by(app: LiveApp) -> str:
    """What it shows now."""
    app.paint()
    return app.query_one(Lines).text


async def all_read(app: LiveApp, session: Session, pilot: Pilot[int]) -> None:
    """Wait until a file has been read."""
    while not session.over:
        await pilot.pause(0.01)


def session_of(built: Built, tmp_path: Path) -> Session:
    """A recording that is whole."""
    return Session(GrowingFile(built.write(tmp_path / "guest.btrace")))


def test_a_pause_can_be_walked_backwards(tmp_path: Path) -> None:
    session = session_of(shrinker_like(), tmp_path)

    async def steps(app: LiveApp, pilot: Pilot[int]) -> None:
        await all_read(app, session, pilot)
        last = shown_by(app)
        await pilot.press("space")
        assert "PAUSED" in shown_by(app)
        await pilot.press("home")
        first = shown_by(app)
        assert "walked back" in first
        assert "busy-no-op" not in first
        await pilot.press("right", "right", "left", "pagedown", "pageup", "end", "space")
        assert shown_by(app) == last

    driven(LiveApp(session), steps)


def test_tables_and_their_order(tmp_path: Path) -> None:
    session = session_of(shrinker_like(), tmp_path)

    async def steps(app: LiveApp, pilot: Pilot[int]) -> None:
        await all_read(app, session, pilot)
        assert "cause " in shown_by(app)
        await pilot.press("tab")
        assert "who reclaims" in shown_by(app)
        await pilot.press("o")
        assert "sorted by last minute" in shown_by(app)
        await pilot.press("tab")
        assert "last minute" in shown_by(app)
        await pilot.press("tab", "tab")
        assert "cause " in shown_by(app)

    driven(LiveApp(session), steps)


def test_zoom_and_help(tmp_path: Path) -> None:
    session = session_of(shrinker_like(4000), tmp_path)

    async def steps(app: LiveApp, pilot: Pilot[int]) -> None:
        await all_read(app, session, pilot)
        before = shown_by(app)
        await pilot.press("minus")
        assert shown_by(app) != before
        await pilot.press("plus")
        assert shown_by(app) == before
        await pilot.press("question_mark")
        assert "quit" in shown_by(app)
        assert "busy-no-op" not in shown_by(app)
        await pilot.press("escape")
        assert shown_by(app) == before

    driven(LiveApp(session), steps)


@pytest.mark.parametrize("key", ["q", "ctrl+c"])
def test_it_ends(tmp_path: Path, key: str) -> None:
    session = session_of(stock_like(), tmp_path)
    app = LiveApp(session)

    async def steps(app: LiveApp, pilot: Pilot[int]) -> None:
        await all_read(app, session, pilot)
        await pilot.press(key)

    driven(app, steps)
    assert app.return_value == 0


class Stream:
    """A recording that comes through a pipe, piece by piece."""

    def __init__(self, built: Built, tmp_path: Path) -> None:
        self._data = Path(built.write(tmp_path / "guest.btrace")).read_bytes()
        reader, self._writer = os.pipe()
        self.session = Session(Pipe(reader, "stdin"), keep=True)
        self.sent = 0

    async def send(self, share: float, pilot: Pilot[int]) -> None:
        """Send so much of all, and wait until it was read; all of it: then it is closed."""
        until = int(len(self._data) * share)
        while self.sent < until:
            self.sent += os.write(
                self._writer, self._data[self.sent : min(until, self.sent + 4096)]
            )
            while self.session.model.following.bytes < self.sent:
                await pilot.pause(0.01)
        if share == 1.0:
            os.close(self._writer)
            await all_read(LiveApp(self.session), self.session, pilot)


def test_what_comes_is_read_while_it_is_paused(tmp_path: Path) -> None:
    stream = Stream(shrinker_like(), tmp_path)

    async def steps(app: LiveApp, pilot: Pilot[int]) -> None:
        await stream.send(0.5, pilot)
        await pilot.press("space")
        paused = shown_by(app).splitlines()
        await stream.send(1.0, pilot)
        changed = zip(paused, shown_by(app).splitlines(), strict=True)
        # What a pause leaves as it is goes on below where the trust stands.
        assert [before for before, now in changed if before != now] in ([], [paused[1]])
        await pilot.press("space")
        assert "ended" in shown_by(app)

    driven(LiveApp(stream.session), steps)


def test_what_came_can_be_saved_to_the_byte(tmp_path: Path) -> None:
    stream = Stream(shrinker_like(), tmp_path)
    taken = tmp_path / "taken.btrace"
    taken.write_bytes(b"kept")

    async def named(pilot: Pilot[int], app: LiveApp, path: Path) -> None:
        await pilot.press("s")
        app.query_one("Input").value = str(path)  # type: ignore[attr-defined]
        await pilot.press("enter")
        await pilot.pause()

    async def steps(app: LiveApp, pilot: Pilot[int]) -> None:
        await stream.send(0.5, pilot)
        await named(pilot, app, taken)
        assert "exists" in shown_by(app)
        await pilot.press("s", "escape")
        await stream.send(1.0, pilot)
        await named(pilot, app, tmp_path / "new.btrace")
        assert "saved as" in shown_by(app)

    driven(LiveApp(stream.session), steps, (200, 50))
    assert taken.read_bytes() == b"kept"
    assert (tmp_path / "new.btrace").read_bytes() == (tmp_path / "guest.btrace").read_bytes()


def test_onto_a_line_that_is_busy_nothing_is_painted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = session_of(shrinker_like(), tmp_path)
    busy = [False]
    monkeypatch.setattr(screen, "is_sending", lambda: busy[0])
    monkeypatch.setattr(screen, "PAINT_S", 1000.0)

    async def steps(app: LiveApp, pilot: Pilot[int]) -> None:
        await all_read(app, session, pilot)
        before = shown_by(app)
        busy[0] = True
        await pilot.press("tab")
        assert shown_by(app) == before
        busy[0] = False
        while "who reclaims" not in app.query_one(Lines).text:
            await pilot.pause(0.01)

    driven(LiveApp(session), steps)


def test_a_terminal_that_takes_nothing_more_is_busy() -> None:
    reader, terminal = os.openpty()
    assert not is_sending(terminal)
    os.set_blocking(terminal, False)
    # The kernel takes on what was written some time later, and there is room again, for a while.
    while not is_sending(terminal):
        with contextlib.suppress(BlockingIOError):
            while True:
                os.write(terminal, b"." * 4096)
    os.close(reader)
    os.close(terminal)


def test_a_recorder_that_fails_leaves_no_screen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(LiveApp, "run", lambda *_, **__: pytest.fail("there is nothing to show"))
    failing = Recorder([sys.executable, "-c", "raise SystemExit(3)"])
    assert screen.run(Session(failing), lambda _: None) == 3


def test_of_a_line_only_what_changed_is_painted() -> None:
    before = (Part("size "), Part("10", STRONG), Part(" MiB"))
    assert changed_columns(before, before, 11) == range(0)
    assert changed_columns(before, (Part("size "), Part("12", STRONG), Part(" MiB")), 11) == range(
        6, 7
    )
    assert changed_columns(before, (Part("size "), Part("10", BAD), Part(" MiB")), 11) == range(
        5, 7
    )
    assert changed_columns((), before, 11) == range(11)
    assert changed_columns((Part("名" * 5 + " "),), before, 11) == range(11)
