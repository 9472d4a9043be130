# SPDX-License-Identifier: Apache-2.0
"""balloontrace record: trace this guest's balloon into a file."""

from __future__ import annotations

import os
import re
import time
from typing import TYPE_CHECKING, Any, Dict, List, NoReturn, Optional

from balloontrace.cli import output
from balloontrace.cli.duration import seconds_in
from balloontrace.cli.verbs import Option, Verb, Words
from balloontrace.errors import EXIT_USAGE, UserError

if TYPE_CHECKING:
    from balloontrace.tracers.load import launch


def parse_duration(text: str) -> float:
    """Seconds in '90', '90s', '1.5m', '2h' or '500ms'. Raises UserError."""
    seconds = seconds_in(text)
    if not seconds:
        raise UserError(f"{text!r} is not a duration such as 60s, 5m or 2h", "", EXIT_USAGE)
    return seconds


def parse_rungs(pairs: List[str]) -> Dict[str, int]:
    """{'fill': 2} of ['fill=2']: for a seam the only rung to try. Raises UserError."""
    from balloontrace.tracers.attach.seams import SEAMS

    rungs = {}
    known = {seam.name: len(seam.rungs) for seam in SEAMS}
    for pair in pairs:
        seam, _, number = pair.partition("=")
        if not number.isdigit() or not 1 <= int(number) <= known.get(seam, 0):
            raise UserError(f"--rung {pair!r} names no rung", "", EXIT_USAGE)
        rungs[seam] = int(number)
    return rungs


def default_path() -> str:
    """balloontrace-<host>-<utc>.btrace"""
    host = re.sub(r"[^\w.-]", "_", os.uname().nodename)
    return f"balloontrace-{host}-{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}.btrace"


def _is_there(command: str) -> bool:
    from shutil import which  # with all it has of archives

    return which(command) is not None


def run(
    *,
    argv: Optional[List[str]],
    path: Optional[str],
    duration: Optional[str],
    force: bool,
    ring_kib: int,
    ring: Optional[str],
    rung: List[str],
    **others: Any,
) -> None:
    """Become a recorder. others: of launch.Options, as they are. Raises UserError."""
    from balloontrace.tracers.doctor.obstacles import require_traceable
    from balloontrace.tracers.load import launch
    from balloontrace.tracers.load.untraceable import has_balloon, or_counters

    if argv and not _is_there(argv[0]):
        raise UserError(f"cannot run {argv[0]}: there is no such command")
    if ring_kib < 4 or ring_kib & (ring_kib - 1):
        raise UserError("--ring-kib must be a power of two, at least 4", "", EXIT_USAGE)
    options = launch.Options(
        path=path or default_path(),
        overwrite=force,
        duration_s=parse_duration(duration) if duration else None,
        command=tuple(argv or ()),
        ring_bytes=ring_kib * 1024,
        rungs=parse_rungs(rung),
        **others,
    )
    if options.counters:
        _refuse_with_counters(options, ring)
        if not has_balloon():
            output.status("warning: no balloon is to be seen here")
    else:
        try:
            require_traceable(wait=options.wait)
        except UserError as error:
            raise or_counters(error) from None
    if ring is None:
        launch.record(options)
    else:
        _keep_last(options, ring)


def _keep_last(options: launch.Options, ring: str) -> NoReturn:
    """Become a recorder of the last part. Raises UserError."""
    from balloontrace.cli.commands.watch import parse_keep
    from balloontrace.watch.launch import keep_last

    size, seconds = parse_keep(ring, "--ring")
    given = {"--minimal": options.minimal, "--strict": options.strict, "--sync": options.sync}
    if senseless := [name for name, value in given.items() if value]:
        raise UserError(f"{senseless[0]} does not go with --ring", "leave it out", EXIT_USAGE)
    if options.path == "-" or not size:
        raise UserError("--ring keeps something in a file", "name one with -o", EXIT_USAGE)
    keep_last(options, size, seconds)


def _refuse_with_counters(options: launch.Options, ring: Optional[str]) -> None:
    """Raises UserError for what is about events."""
    given = {
        "--minimal": options.minimal,
        "--strict": options.strict,
        "--wait": options.wait,
        "--means": options.means,
        "--rung": options.rungs,
        "--ring": ring,
    }
    if senseless := [name for name, value in given.items() if value]:
        raise UserError(
            f"{senseless[0]} is about tracing, and --counters traces nothing",
            "leave one of them out",
            EXIT_USAGE,
        )


def _flag(name: str, help: str, *, short: str = "", hidden: bool = False) -> Option:
    names = (short, f"--{name}") if short else (f"--{name}",)
    return Option(name, names, help, bool, False, hidden=hidden)


VERB = Verb(
    "record",
    "Trace this guest's balloon until Ctrl-C, -d, or COMMAND's end.\n\n"
    "Needs root and a virtio balloon; no compiler and no kernel headers. With --counters it needs "
    "neither, and knows what moved, but not why.",
    run,
    (
        Option("path", ("-o", "--output"), "The recording to write; - is stdout.", metavar="FILE"),
        Option("duration", ("-d", "--duration"), "End after this long: 60s, 5m, 2h."),
        _flag("force", "Overwrite an existing recording.", short="-f"),
        _flag("minimal", "Events only, no samplers."),
        _flag("counters", "Trace nothing: read the guest's counters. Needs neither root nor BPF."),
        Option(
            "ring",
            ("--ring",),
            "Keep only the last so many bytes (64M) or minutes (10m) before the end.",
            metavar="N",
        ),
        _flag("wait", "Begin before the device or its driver is there, and wait for them."),
        _flag("sync", "Bring it to the disk every second: for a guest that may die."),
        _flag("mark", "Take what `balloontrace mark TEXT` says meanwhile."),
        _flag("strict", "Exit with 4 if events were lost."),
        Option(
            "ring_kib",
            ("--ring-kib",),
            "Room for events not yet read: a power of two, 4 or more.",
            int,
            1024,
            metavar="N",
            shows_default=True,
        ),
        Option("ready_file", ("--ready-file",), hidden=True),
        Option(
            "means",
            ("--means",),
            "Attach by this means only: kprobe.multi, kprobe or fentry. With kprobe, the driver "
            "can be unloaded meanwhile.",
            default="",
            metavar="NAME",
        ),
        Option("rung", ("--rung",), metavar="SEAM=N", hidden=True, several=True),
        _flag("compiled", "", hidden=True),
    ),
    words=Words("argv", "[-- COMMAND...]", "Record until this command ends.", required=False),
    is_followed=True,
)
