# SPDX-License-Identifier: Apache-2.0
"""balloontrace live: what one guest's balloon does right now."""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
import tempfile
from pathlib import Path
from typing import IO, TYPE_CHECKING, List, Optional, Union

from balloontrace.cli import output
from balloontrace.cli.duration import seconds_in
from balloontrace.cli.verbs import Option, Verb, Words
from balloontrace.destination import refuse_file
from balloontrace.errors import EXIT_USAGE, UserError

if TYPE_CHECKING:
    from balloontrace.live.host import HostFile
    from balloontrace.live.session import Session
    from balloontrace.live.sources import GrowingFile, Pipe

STDIN = "-"
_SCREEN = "balloontrace.live.screen"
"""Not imported by its name: the one file for guests has none."""


def run(
    *,
    source: Optional[List[str]],
    plain: bool,
    json: bool,
    save: Optional[str],
    duration: Optional[str],
    host: Optional[str],
) -> int:
    """Look at a guest until the stream ends, -d, or Ctrl-C. Raises UserError."""
    from balloontrace.live.session import Session

    if plain and json:
        raise UserError("--plain and --json do not go together", "leave one out", EXIT_USAGE)
    if len(source or ()) > 1:
        raise UserError("live looks at one guest", "name one file, or -", EXIT_USAGE)
    seconds = seconds_in(duration) if duration else None
    if duration and not seconds:
        raise UserError(f"{duration!r} is not a duration such as 60s, 5m or 2h", "", EXIT_USAGE)
    if save:
        refuse_file(Path(save), replace=False)  # before a recorder of ours has begun
    beside = _host((source or [""])[0], host)
    screen = not plain and not json and _has_screen()
    stderr = tempfile.TemporaryFile() if screen else None  # noqa: SIM115 - ends with us
    opened = _opened((source or [""])[0], stderr, screen)
    saved = Path(save) if save else None
    session = Session(opened, saved, keep=screen, duration_s=seconds, host=beside)
    status = _show(session, stderr) if screen else _print(session, json)
    if session.failure:
        output.status(f"balloontrace: {session.failure}")
    return status


def _opened(name: str, stderr: Optional[IO[bytes]], screen: bool) -> Union[Pipe, GrowingFile]:
    """The source of this name; '': a recorder of ours, which says what it says there. screen: that
    has keys read from the terminal, whatever stdin is."""
    from balloontrace.live import sources

    if name == STDIN and os.isatty(0):
        raise UserError("stdin is a terminal", "pipe a recording into it", EXIT_USAGE)
    stdin = 0
    if screen and not os.isatty(0):
        stdin = importlib.import_module(_SCREEN).take_terminal()
    if name == STDIN:
        return sources.Pipe(stdin, "stdin")
    return sources.GrowingFile(name) if name else sources.Recorder(_recorder(), stderr)


def _host(name: str, host: Optional[str]) -> Optional[HostFile]:
    """What the host says, in the file that was named, or in that which is named as the recording
    is; such a one that cannot be used is said. Raises UserError."""
    from balloontrace.live.host import HostFile
    from balloontrace.recording.host_lines import named_as

    if host:
        return HostFile(host)
    named = named_as(Path(name))
    if named is None:
        return None
    try:
        return HostFile(str(named)).looked_at()
    except UserError as error:
        output.status(f"warning: {named} is left out: {error}")
        return None


def _has_screen() -> bool:
    """Whether stdout is a terminal, and Textual is there for it, which needs all three streams; if
    only Textual lacks, say so."""
    if not (sys.stdin and sys.stdout and sys.stderr) or not sys.stdout.isatty():
        return False
    if all(importlib.util.find_spec(name) for name in ("textual", _SCREEN)):
        return True
    output.status("the screen needs pip install 'balloontrace[live]'; as --plain meanwhile")
    return False


def _recorder() -> List[str]:
    """What starts a recorder of this very program, into its stdout."""
    from balloontrace.tracers.machine import interpreter

    bundled = interpreter.is_bundled()
    module = "balloontrace.cli.bundled" if bundled else "balloontrace.cli.entry"
    return [sys.executable, "-c", interpreter.program(module, "main"), "record", "-o", "-"]


def _print(session: Session, json: bool) -> int:
    from balloontrace.live import json_lines, run
    from balloontrace.live.plain import Lines

    return run.lines(session, json_lines.line if json else Lines().of, output.result)


def _show(session: Session, stderr: Optional[IO[bytes]]) -> int:
    """The screen; what a recorder of ours has said is said behind it."""
    status: int = importlib.import_module(_SCREEN).run(session, output.status)
    if stderr is not None:
        stderr.seek(0)
        for line in stderr.read().decode("utf-8", "replace").splitlines():
            output.status(line)
    return status


def _flag(name: str, help: str) -> Option:
    return Option(name, (f"--{name}",), help, bool, False)


VERB = Verb(
    "live",
    "Show what one guest's balloon does right now.\n\n"
    "Of this guest, which needs what `record` needs; of a stream (-), as that of `ssh GUEST "
    "balloontrace record -o -`; or of a FILE that grows. A screen on a terminal, else a line a "
    "second.",
    run,
    (
        _flag("plain", "A line a second, for logs and slow lines."),
        _flag("json", "A JSON object a second, each on a line of its own."),
        Option("save", ("--save",), "Keep the stream as a recording.", metavar="FILE"),
        Option(
            "host",
            ("--host",),
            "What the host says, beside it: a file that host record writes. One that is named as "
            "FILE is, but for .host.jsonl, is used by itself.",
            metavar="FILE",
        ),
        Option("duration", ("-d", "--duration"), "End after this long: 60s, 5m, 2h."),
    ),
    words=Words("source", "[FILE|-]", "A recording that grows; - is stdin.", required=False),
)
