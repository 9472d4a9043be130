# SPDX-License-Identifier: Apache-2.0
"""Draws docs/live.svg: the screen of `live` during the founding experiment's busy no-op.

python -m tools.live_picture RECORDING [SECOND]: of a run of `lab run page-cache --driver shrinker`.
"""

from __future__ import annotations

import asyncio
import re
import sys
from pathlib import Path

from balloontrace.errors import EXIT_USAGE, UserError
from balloontrace.live.screen.app import LiveApp
from balloontrace.live.session import Session
from balloontrace.live.sources import GrowingFile
from tools.command import run

OUT = Path(__file__).parents[1] / "docs" / "live.svg"
SIZE = (100, 30)
SECOND = 60

_FONTS = re.compile(r"@font-face \{.*?\}\s*", re.S)
"""They would come from a network."""


async def picture(path: str, second: int) -> str:
    """The screen as it was at the end of that second."""
    session = Session(GrowingFile(path))
    app = LiveApp(session)
    async with app.run_test(size=SIZE) as pilot:
        while not session.over and (session.model.seconds or range(1))[-1] < second:
            await pilot.pause(0.01)
        app.show_second(second)
        await pilot.pause()
        return _FONTS.sub("", app.export_screenshot(title="balloontrace live"))


def main() -> int:
    """Draw it; returns the exit status. Raises UserError."""
    if len(sys.argv) < 2:
        raise UserError("name a recording", "make one with lab run page-cache", EXIT_USAGE)
    second = int(sys.argv[2]) if len(sys.argv) > 2 else SECOND
    OUT.write_text(asyncio.run(picture(sys.argv[1], second)))
    print(f"wrote {OUT}")
    return 0


if __name__ == "__main__":
    run("live-picture", main)
