# SPDX-License-Identifier: Apache-2.0
"""From the command line's process to the watcher (as tracers/load/launch.py to the recorder)."""

from __future__ import annotations

import os
import signal
from typing import NamedTuple, NoReturn

from balloontrace.tracers.attach.forced import Forced
from balloontrace.tracers.load import launch
from balloontrace.tracers.load.ahead import hold_standard_streams

_WATCHER, _RECORDER = "balloontrace.watch.session", "balloontrace.watch.record_last"

_SILENT_RING_BYTES = 4096
"""No event is ever written to it."""


class Options(NamedTuple):
    """What `watch` was asked for.

    listen: (address, port) for the metrics, None: nowhere; textfile: a directory of node_exporter;
    keep_bytes, keep_s: how much of the last minutes is kept in `directory`, 0 bytes: nothing; on:
    the findings of which a recording is kept; after_s: for how long it goes on after that; the
    others: see launch.Options.
    """

    listen: tuple[str, int] | None
    textfile: str | None
    keep_bytes: int
    keep_s: float
    directory: str
    on: tuple[str, ...]
    after_s: float
    means: str = ""
    ready_file: str | None = None


def watch(options: Options) -> NoReturn:
    """Become a watcher. Raises UserError if that cannot be; does not return otherwise."""
    hold_standard_streams()
    silent = not options.keep_bytes
    ring_bytes = _SILENT_RING_BYTES if silent else launch.RING_BYTES
    started = launch.started(ring_bytes, Forced(means=options.means), silent)
    # Who asks for a recording before the watcher can hear it must not end it.
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])
    launch.become(_WATCHER, {**options._asdict(), **started, "rungs": {}})


def keep_last(options: launch.Options, keep_bytes: int, keep_s: float) -> NoReturn:
    """Become a recorder that keeps the last part only. Raises UserError if that cannot be."""
    hold_standard_streams()
    output, created = launch.opened(options.path, options.overwrite)
    forced = Forced(options.rungs, options.means, options.compiled)
    session = {**options._asdict(), **launch.started(options.ring_bytes, forced, silent=False)}
    session |= {"keep_bytes": keep_bytes, "keep_s": keep_s, "created": created, "output": output}
    os.set_inheritable(output, True)
    launch.become(_RECORDER, {**session, "directory": f"{options.path}.segments"})
