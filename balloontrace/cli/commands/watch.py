# SPDX-License-Identifier: Apache-2.0
"""balloontrace watch: always on, metrics, the last minutes kept."""

from __future__ import annotations

import re
from typing import Optional

from balloontrace.cli.duration import seconds_in
from balloontrace.cli.verbs import Option, Verb
from balloontrace.errors import EXIT_USAGE, UserError

DIRECTORY = "/var/lib/balloontrace"
KEEP = "16M"
AFTER = "60s"
LISTEN = "127.0.0.1:9758"
NOWHERE = "none"

_UNITS = {"K": 1 << 10, "M": 1 << 20, "G": 1 << 30}
LEAST_KEPT = 1 << 20
"""Bytes: segments of less would be headers."""


def parse_keep(text: str, option: str = "--keep") -> tuple[int, float]:
    """(bytes, seconds) of what is to be kept, of '16M', '10m' or '0'. Raises UserError."""
    from balloontrace.watch.segments import MOST_BYTES

    if text == "0":
        return 0, float("inf")
    if match := re.fullmatch(r"(\d{1,6})([KMG])", text, re.ASCII):
        size = int(match[1]) * _UNITS[match[2]]
        if size >= LEAST_KEPT:
            return size, float("inf")
    elif seconds := seconds_in(text):
        return MOST_BYTES, seconds
    raise UserError(f"{option} {text!r} is no size from 1M on, no time, and not 0", "", EXIT_USAGE)


def parse_on(text: str) -> tuple[str, ...]:
    """The findings of 'busy-no-op,oom-kill', 'all' or 'none'. Raises UserError."""
    from balloontrace.conditions.triggers import FINDINGS

    if text in ("all", NOWHERE):
        return FINDINGS if text == "all" else ()
    names = tuple(text.split(","))
    if unknown := [name for name in names if name not in FINDINGS]:
        raise UserError(
            f"--on {unknown[0]!r} is nothing to watch for", f"one of {', '.join(FINDINGS)}",
            EXIT_USAGE,
        )  # fmt: skip
    return names


def run(
    *,
    listen: str,
    textfile: Optional[str],
    keep: str,
    directory: str,
    on: str,
    after: str,
    means: str,
    ready_file: Optional[str],
) -> None:
    """Become a watcher. Raises UserError."""
    from balloontrace.tracers.doctor.obstacles import require_traceable
    from balloontrace.tracers.load.untraceable import or_counters
    from balloontrace.watch import launch
    from balloontrace.watch.server import parse_address

    size, seconds = parse_keep(keep)
    after_s = seconds_in(after)
    if after_s is None:
        raise UserError(f"--after {after!r} is no time such as 60s", "", EXIT_USAGE)
    options = launch.Options(
        listen=None if listen == NOWHERE else parse_address(listen),
        textfile=textfile,
        keep_bytes=size,
        keep_s=seconds,
        directory=directory,
        on=parse_on(on),
        after_s=after_s,
        means=means,
        ready_file=ready_file,
    )
    try:
        require_traceable(wait=True)
    except UserError as error:
        raise or_counters(error) from None
    launch.watch(options)


def _text(field: str, metavar: str, help: str, default: Optional[str] = None) -> Option:
    names = (f"--{field}",)
    return Option(field, names, help, default=default, metavar=metavar, shows_default=bool(default))


VERB = Verb(
    "watch",
    "Watch this guest's balloon for months: metrics, and the last minutes kept.\n\n"
    "Begins before the device or its driver is there. When something goes wrong, a recording of "
    "what led to it and of the minute after is left in DIR; so does `kill -USR1`. Needs what "
    "`record` needs.",
    run,
    (
        _text("listen", "ADDR:PORT", "Where Prometheus finds /metrics; none: nowhere.", LISTEN),
        _text("textfile", "DIR", "Write them for node_exporter's textfile collector, too."),
        _text("keep", "N", "The last so many bytes (16M) or minutes (10m); 0: no events.", KEEP),
        Option(
            "directory",
            ("--dir",),
            "Where they are kept.",
            default=DIRECTORY,
            metavar="DIR",
            shows_default=True,
        ),
        _text("on", "FINDING,...", "What leaves a recording: all, none, or some.", "all"),
        _text("after", "TIME", "How long such a recording goes on.", AFTER),
        Option(
            "means",
            ("--means",),
            "Attach by this means only, see `record`.",
            default="",
            metavar="NAME",
        ),
        Option("ready_file", ("--ready-file",), hidden=True),
    ),
)
