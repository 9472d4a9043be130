# SPDX-License-Identifier: Apache-2.0
"""`live --plain` and `live --json`: a line for each second of the stream, as it is over."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable

from balloontrace.endings import heeded
from balloontrace.live.session import Session
from balloontrace.live.view import SILENT, View

WAIT_S = 0.25


def lines(session: Session, text_of: Callable[[View], str], write: Callable[[str], None]) -> int:
    """Write the text of each second until the stream is over, or a signal ends it; returns the exit
    status. write: is given lines without the last newline. Raises UserError."""
    before = {number: signal.signal(number, lambda *_: session.stop()) for number in heeded()}
    told, silent = -1, False
    try:
        while not session.over:
            session.pump(WAIT_S)
            seconds = session.model.seconds or range(0)
            for second in range(max(told + 1, seconds.start), seconds.stop):
                write(text_of(session.view(at=second)))
                told = second
            was_silent, silent = silent, session.model.state(time.monotonic())[0] == SILENT
            if silent and not was_silent:
                write(text_of(session.view()))
        if session.model.following.bytes:
            write(text_of(session.view()))
    finally:
        status = session.close()
        for number, handler in before.items():
            signal.signal(number, handler)
    return status
