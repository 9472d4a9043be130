# SPDX-License-Identifier: Apache-2.0
"""From the command line's process to loader and recorder.

The loader is forked first, so that it imports BCC and compiles while this process becomes the
recorder by exec and sheds what the command line needed.
"""

from __future__ import annotations

import marshal
import os
import signal
import sys
from collections.abc import Mapping
from typing import Any, NamedTuple, NoReturn

from balloontrace.endings import ENDINGS
from balloontrace.errors import EXIT_USAGE, UserError
from balloontrace.tracers.attach.forced import Forced
from balloontrace.tracers.load import ahead
from balloontrace.tracers.load.ahead import hold_standard_streams
from balloontrace.tracers.machine import interpreter

RING_BYTES = 1 << 20
"""16,384 events. Under the shrinker's churn, bursts of 4,600 events in 200 ms were measured."""

_SESSION = "balloontrace.tracers.record.session"


class Options(NamedTuple):
    """What `record` was asked for.

    path: '-' is stdout; duration_s: None is until it is ended; rungs, means, compiled: see
    attach/forced.py; wait: begin without the driver; counters: trace nothing, read the guest's
    counters; sync: what is recorded is on the disk a second later; mark: take marks
    (record/marks.py).
    """

    path: str
    overwrite: bool = False
    duration_s: float | None = None
    command: tuple[str, ...] = ()
    minimal: bool = False
    strict: bool = False
    ready_file: str | None = None
    ring_bytes: int = RING_BYTES
    rungs: Mapping[str, int] = {}
    means: str = ""
    wait: bool = False
    sync: bool = False
    mark: bool = False
    compiled: bool = False
    counters: bool = False


def record(options: Options) -> NoReturn:
    """Become a recorder. Raises UserError if that cannot be; does not return otherwise."""
    hold_standard_streams()
    created = False
    if options.path == "-":
        output = _stdout()
    else:
        output, created = opened(options.path, options.overwrite)
    if options.sync and options.path != "-":
        _sync_directory(options.path)
    session = {**options._asdict(), "output": output, "created": created}
    if options.counters:
        from balloontrace.tracers.load import description

        session["content"] = description.of_counters(os.getpid())
    else:
        forced = Forced(options.rungs, options.means, options.compiled)
        session |= started(options.ring_bytes, forced, silent=False)
    if output != 1:
        os.set_inheritable(output, True)
    become(_SESSION, session)


def started(ring_bytes: int, forced: Forced, silent: bool) -> dict[str, Any]:
    """Start the loader; returns what its recorder is told of it: `loader`, its process id;
    `channel`, the socket on which it answers; `silent`, see ahead.start."""
    pid, channel = ahead.start(ring_bytes, forced, silent=silent)
    os.set_inheritable(channel.fileno(), True)
    return {"loader": pid, "channel": channel.detach(), "silent": silent}


def become(module: str, session: Mapping[str, Any]) -> NoReturn:
    """Turn into the process image whose `main` is in a module, and tell it of its session."""
    root = ""
    if interpreter.is_bundled():
        from balloontrace.tracers.load import running_copy  # while the loader is at work

        root = running_copy.make()
    program = interpreter.program(module, "main", root)
    # -S: without site, which would read every .pth file of the installation; not -m, which loads
    # `runpy` and what that needs.
    argv = [sys.executable, "-S", "-c", program, str(_held(marshal.dumps(dict(session))))]
    # They wait until the recorder can heed them.
    signal.pthread_sigmask(signal.SIG_BLOCK, ENDINGS)
    os.execv(sys.executable, argv)  # noqa: S606 - ourselves


def _held(data: bytes) -> int:
    """The descriptor, which outlives exec, of a file in memory with `data`."""
    held = os.memfd_create("options", 0)
    os.write(held, data)
    return held


def _stdout() -> int:
    """The descriptor of stdout. Raises UserError if it is a terminal."""
    if os.isatty(1):
        raise UserError(
            "a recording is not for a terminal", "redirect stdout, or use -o FILE", EXIT_USAGE
        )
    return 1


def _sync_directory(path: str) -> None:
    """A file whose name is not on the disk is lost with the power, whatever is in it."""
    try:
        directory = os.open(
            os.path.dirname(path) or ".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
        )
    except OSError:  # one that may be written to and not read
        return
    try:
        os.fsync(directory)
    except OSError:  # a file system that has no such thing
        pass
    finally:
        os.close(directory)


def opened(path: str, overwrite: bool) -> tuple[int, bool]:
    """A descriptor of the recording to be, and whether its file is a new one, readable by its owner
    only. Raises UserError.

    An old recording is emptied by the recorder only when there is something to put in its place.
    """
    how = os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        return os.open(path, how | os.O_CREAT | os.O_EXCL, 0o600), True
    except FileExistsError:
        if not overwrite:
            raise UserError(
                f"{path} exists", "overwrite it with -f, or name another with -o"
            ) from None
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror}") from None
    try:
        return os.open(path, how), False
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror}") from None
