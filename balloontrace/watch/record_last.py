# SPDX-License-Identifier: Apache-2.0
"""`record --ring`: a recording of the last minutes before its end, however long it takes.

Its segments lie beside it while it runs, and are joined at the end; what a recorder that was killed
leaves are the segments, each a recording, of which the next one to the same file makes one beside
its own. A process image of its own (tracers/record/session.py).
"""

from __future__ import annotations

import os
import time

from balloontrace.conditions.triggers import Triggers
from balloontrace.endings import ENDINGS
from balloontrace.errors import UserError
from balloontrace.tracers.machine import capabilities
from balloontrace.tracers.machine.c_modules import signal, socket
from balloontrace.tracers.record import session
from balloontrace.tracers.record.command import Command, CommandError
from balloontrace.tracers.record.recorder import Wakeups, loop
from balloontrace.watch.dumps import Dumps
from balloontrace.watch.segments import Keep, Segments
from balloontrace.watch.watcher import Kept, Watcher

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from balloontrace.tracers.record.marks import Marks


def record(options: dict[str, Any]) -> int:
    """Record as `options` says (launch.keep_last); returns the exit code. Raises UserError."""
    wakeups = Wakeups()
    signal.pthread_sigmask(signal.SIG_UNBLOCK, ENDINGS)  # which launch.py has blocked
    keep = Keep(options["keep_bytes"], options["keep_s"])
    segments = Segments(options["directory"], keep)
    kept = Kept(segments, Dumps(options["directory"], keep.size), after_s=0.0)
    kept.take_over(session.say)
    channel = socket.socket(fileno=options["channel"])
    handover = session.await_handover(wakeups, channel, options["loader"])
    old_score = session.protect(traces=True)
    marks: Marks | None = None
    if options["mark"]:
        from balloontrace.tracers.record.marks import Marks

        marks = Marks()
    try:
        watcher = Watcher(handover, options, kept, Triggers(()), marks, session.say)
        wakeups.watch(handover.maps["events"], edges=True)
        return _record(options, wakeups, watcher, segments, old_score)
    finally:
        if marks:
            marks.close()


def _record(
    options: dict[str, Any],
    wakeups: Wakeups,
    watcher: Watcher,
    segments: Segments,
    old_score: int,
) -> int:
    """Record from when it is attached; returns the exit code. Raises UserError."""
    path, duration_s = options["path"], options["duration_s"]
    end_s = time.monotonic() + duration_s if duration_s else None
    needed = capabilities.needed()
    session.announce(f"tracing the balloon, its last part into {path}", options["ready_file"])
    argv = options["command"]
    command: Command | None = None
    failure: CommandError | None = None
    try:
        if argv:
            command = Command(argv, old_score, options["output"])
        session.drop_privileges(needed, kill=command is not None)
        reason = loop(watcher, wakeups, command, end_s)
    except CommandError as error:
        reason, failure = "failed", error
    finally:
        ended = command.finish() if command else None
    watcher.finish(reason, ended)
    segments.join(path, {"watch": watcher.not_fired})
    segments.delete()
    size = os.stat(path).st_size
    session.say(f"{reason}: {size / 1024:,.0f} KiB")
    session.say(f"wrote {path}; next: balloontrace report {path}")
    watcher.detach()
    if failure:
        raise failure
    return 0


def main() -> int:
    """Entry point of the process image."""
    options = session.given_options()
    try:
        return record(options)
    except UserError as error:
        session.end_loader(options["loader"])
        session.leave_nothing(options)
        session.say(f"balloontrace: {error}")
        return error.exit_code
