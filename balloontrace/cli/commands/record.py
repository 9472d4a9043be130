# SPDX-License-Identifier: Apache-2.0
"""balloontrace record: trace this guest's balloon into a file."""

from __future__ import annotations

import re
import shutil
import socket
import time
from typing import Dict, List, Optional

import typer

from balloontrace.cli.duration import seconds_in
from balloontrace.errors import UserError


def parse_duration(text: str) -> float:
    """Seconds in '90', '90s', '1.5m', '2h' or '500ms'. Raises typer.BadParameter."""
    seconds = seconds_in(text)
    if not seconds:
        raise typer.BadParameter(f"{text!r} is not a duration such as 60s, 5m or 2h")
    return seconds


def parse_rungs(pairs: List[str]) -> Dict[str, int]:
    """{'fill': 2} of ['fill=2']: for a seam the only rung to try. Raises typer.BadParameter."""
    from balloontrace.tracers.attach.seams import SEAMS

    rungs = {}
    known = {seam.name: len(seam.rungs) for seam in SEAMS}
    for pair in pairs:
        seam, _, number = pair.partition("=")
        if not number.isdigit() or not 1 <= int(number) <= known.get(seam, 0):
            raise typer.BadParameter(f"{pair!r} names no rung", param_hint="--rung")
        rungs[seam] = int(number)
    return rungs


def default_path() -> str:
    """balloontrace-<host>-<utc>.btrace"""
    host = re.sub(r"[^\w.-]", "_", socket.gethostname())
    return f"balloontrace-{host}-{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}.btrace"


def command(
    argv: Optional[List[str]] = typer.Argument(
        None, metavar="[-- COMMAND...]", help="Record until this command ends."
    ),
    path: Optional[str] = typer.Option(
        None, "-o", "--output", help="The recording to write; - is stdout.", show_default=False
    ),
    duration: Optional[str] = typer.Option(
        None, "-d", "--duration", help="End after this long: 60s, 5m, 2h.", show_default=False
    ),
    force: bool = typer.Option(False, "-f", "--force", help="Overwrite an existing recording."),
    minimal: bool = typer.Option(False, "--minimal", help="Events only, no samplers."),
    wait: bool = typer.Option(
        False, "--wait", help="Begin before the device or its driver is there, and wait for them."
    ),
    sync: bool = typer.Option(
        False, "--sync", help="Bring it to the disk every second: for a guest that may die."
    ),
    mark: bool = typer.Option(
        False, "--mark", help="Take what `balloontrace mark TEXT` says meanwhile."
    ),
    strict: bool = typer.Option(False, "--strict", help="Exit with 4 if events were lost."),
    ring_kib: int = typer.Option(
        1024,
        "--ring-kib",
        metavar="N",
        help="Room for events not yet read: a power of two, 4 or more.",
    ),
    ready_file: Optional[str] = typer.Option(None, "--ready-file", hidden=True),
    means: str = typer.Option(
        "",
        "--means",
        metavar="NAME",
        help="Attach by this means only: kprobe.multi, kprobe or fentry. With kprobe, the driver "
        "can be unloaded meanwhile.",
    ),
    rung: List[str] = typer.Option([], "--rung", metavar="SEAM=N", hidden=True),
    compiled: bool = typer.Option(False, "--compiled", hidden=True),
) -> None:
    """Trace this guest's balloon until Ctrl-C, -d, or COMMAND's end.

    Needs root and a virtio balloon; no compiler and no kernel headers.
    """
    from balloontrace.tracers.doctor.requirements import require_traceable
    from balloontrace.tracers.load import launch

    if argv and not shutil.which(argv[0]):
        raise UserError(f"cannot run {argv[0]}: there is no such command")
    if ring_kib < 4 or ring_kib & (ring_kib - 1):
        raise typer.BadParameter("--ring-kib must be a power of two, at least 4")
    require_traceable(wait=wait)
    launch.record(
        launch.Options(
            path=path or default_path(),
            overwrite=force,
            duration_s=parse_duration(duration) if duration else None,
            command=tuple(argv or ()),
            minimal=minimal,
            strict=strict,
            ready_file=ready_file,
            ring_bytes=ring_kib * 1024,
            rungs=parse_rungs(rung),
            means=means,
            wait=wait,
            sync=sync,
            mark=mark,
            compiled=compiled,
        )
    )
