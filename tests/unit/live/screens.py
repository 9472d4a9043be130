# SPDX-License-Identifier: Apache-2.0
"""What the screen of `live` shows of recordings in tests/data, as text: `make golden` writes it."""

from __future__ import annotations

import asyncio
from pathlib import Path

from balloontrace.live.screen.app import Lines, LiveApp
from balloontrace.live.session import Session
from balloontrace.live.sources import GrowingFile

DATA = Path(__file__).parents[2] / "data"
SIZES = ((80, 24), (200, 50))
SHOWN: dict[str, tuple[str, tuple[str, ...]]] = {
    "idle": ("6.1-stock-idle", ()),
    "busy": ("6.1-shrinker-reclaim", ()),
    "walked-back": ("6.1-shrinker-reclaim", ("space", "home", "right", "right", "tab")),
    "killed": ("6.1-stock-oom", ("tab", "tab")),
    "driver-gone": ("6.1-driver-reloaded", ("minus", "left", "left", "left", "left", "left")),
    "acks": ("7.2-tour", ("tab", "tab", "tab")),
    "help": ("micro-tour", ("question_mark",)),
}
"""Name -> the recording, and the keys that are pressed when all of it is read."""


def golden(name: str, size: tuple[int, int]) -> Path:
    """Where it is written down."""
    return DATA / "screens" / f"{name}-{size[0]}x{size[1]}.txt"


def screen(name: str, size: tuple[int, int]) -> str:
    """What is shown now."""
    recording, keys = SHOWN[name]
    return asyncio.run(_screen(recording, keys, size))


async def _screen(recording: str, keys: tuple[str, ...], size: tuple[int, int]) -> str:
    session = Session(GrowingFile(str(DATA / f"{recording}.btrace")))
    app = LiveApp(session)
    async with app.run_test(size=size) as pilot:
        while not session.over:
            await pilot.pause(0.01)
        await pilot.press(*keys)
        app.paint()
        return app.query_one(Lines).text + "\n"


def write() -> None:
    """Write all of it down."""
    for name in SHOWN:
        for size in SIZES:
            golden(name, size).write_text(screen(name, size))
