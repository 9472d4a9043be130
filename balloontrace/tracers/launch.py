"""From the command line's process to loader and recorder.

The loader is forked first, so that it imports BCC and compiles while this process becomes the
recorder by exec and sheds what the command line needed.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple, NoReturn

from balloontrace.errors import EXIT_USAGE, UserError
from balloontrace.tracers import loader
from balloontrace.tracers.guest import require_traceable

RING_BYTES = 1 << 20
"""16,384 events. Under the shrinker's churn, bursts of 4,600 events in 200 ms were measured."""


class Options(NamedTuple):
    """What `record` was asked for. path: '-' is stdout; duration_s: None is until it is ended;
    rungs: seam -> number of the only rung to try, from 1; wait: begin without the driver;
    sync: what is recorded is on the disk a second later."""

    path: str
    overwrite: bool = False
    duration_s: float | None = None
    command: tuple[str, ...] = ()
    minimal: bool = False
    strict: bool = False
    ready_file: str | None = None
    ring_bytes: int = RING_BYTES
    rungs: Mapping[str, int] = {}
    wait: bool = False
    sync: bool = False


def record(options: Options) -> NoReturn:
    """Become a recorder. Raises UserError if that cannot be; does not return otherwise."""
    require_traceable(driver=not options.wait)
    output = _stdout() if options.path == "-" else _open(options.path, options.overwrite)
    if options.sync and options.path != "-":
        _sync_directory(options.path)
    child, channel = loader.start(options.ring_bytes, options.rungs)
    for descriptor in {output, channel.fileno()} - {1}:
        os.set_inheritable(descriptor, True)
    inner = {
        **options._asdict(),
        "output": output,
        "loader": child,
        "channel": channel.fileno(),
    }
    package_root = str(Path(__file__).parents[2])
    path = os.pathsep.join(filter(None, [package_root, os.environ.get("PYTHONPATH", "")]))
    # -S: without site, which would read every .pth file of the installation; -P: nothing from the
    # current directory.
    argv = [sys.executable, "-S", "-P", "-m", "balloontrace.tracers.recorder", json.dumps(inner)]
    environment = {**os.environ, "PYTHONPATH": path}
    os.execve(sys.executable, argv, environment)  # noqa: S606 - ourselves


def _stdout() -> int:
    """The descriptor of stdout. Raises UserError if it is a terminal."""
    if os.isatty(1):
        raise UserError(
            "a recording is not for a terminal", "redirect stdout, or use -o FILE", EXIT_USAGE
        )
    return 1


def _sync_directory(path: str) -> None:
    """A file whose name is not on the disk is lost with the power, whatever is in it."""
    directory = os.open(os.path.dirname(path) or ".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(directory)
    except OSError:  # a file system that has no such thing
        pass
    finally:
        os.close(directory)


def _open(path: str, overwrite: bool) -> int:
    """A descriptor of the recording to be, readable by its owner only. Raises UserError.

    An old recording is emptied by the recorder only when there is something to put in its place.
    """
    how = os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        return os.open(path, how if overwrite else how | os.O_EXCL, 0o600)
    except FileExistsError:
        raise UserError(f"{path} exists", "overwrite it with -f, or name another with -o") from None
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror}") from None
