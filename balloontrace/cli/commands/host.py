# SPDX-License-Identifier: Apache-2.0
"""`balloontrace host`: the host's view of a guest, to be laid beside its recording."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Optional

import typer

from balloontrace.cli import output
from balloontrace.cli.duration import seconds_in
from balloontrace.errors import EXIT_UNSUPPORTED, EXIT_USAGE, UserError

if TYPE_CHECKING:
    from balloontrace.host.source import Source
    from balloontrace.recording.host_lines import HostLog

app = typer.Typer(no_args_is_help=True, help="The host's view of a guest's balloon.")

_LEAST_INTERVAL_S, _MOST_INTERVAL_S = 0.05, 60.0


@app.command("record")
def record(
    qmp: Optional[Path] = typer.Option(
        None, "--qmp", metavar="SOCKET", help="A QEMU, by a monitor of its own (QMP)."
    ),
    libvirt: Optional[str] = typer.Option(
        None, "--libvirt", metavar="DOMAIN", help="A domain of libvirt, which is only read."
    ),
    firecracker: Optional[Path] = typer.Option(
        None, "--firecracker", metavar="SOCKET", help="A Firecracker, by its API."
    ),
    cloud_hypervisor: Optional[Path] = typer.Option(
        None, "--cloud-hypervisor", metavar="SOCKET", help="A cloud-hypervisor, by its API."
    ),
    pid: Optional[int] = typer.Option(
        None, "--pid", metavar="PID", help="The hypervisor's process, where it is not told."
    ),
    ssh: Optional[str] = typer.Option(
        None, "--ssh", metavar="GUEST", help="The guest, as ssh knows it: to compare its clock."
    ),
    poll_stats: Optional[int] = typer.Option(
        None,
        "--poll-stats",
        metavar="SECONDS",
        help="Have the guest asked for its statistics so often; put back at the end.",
    ),
    interval: str = typer.Option(
        "250ms", "--interval", help="From one sample to the next.", show_default=True
    ),
    duration: Optional[str] = typer.Option(
        None, "-d", "--duration", help="End after this long: 60s, 5m, 2h."
    ),
    path: Optional[Path] = typer.Option(
        None, "-o", "--output", metavar="FILE", help="The file to write; - is stdout."
    ),
    force: bool = typer.Option(False, "-f", "--force", help="Overwrite an existing file."),
) -> None:
    """Record what the host wants of a guest's balloon, is told, and gets, until Ctrl-C or -d.

    It reads only, but with --poll-stats. Lay it beside the guest's own recording with
    `balloontrace report FILE --host`.
    """
    from balloontrace.host import record as recording

    interval_s = _seconds(interval, "--interval")
    if not _LEAST_INTERVAL_S <= interval_s <= _MOST_INTERVAL_S:
        raise UserError("--interval is 50ms at least, and 60s at most", "", EXIT_USAGE)
    if poll_stats is not None and poll_stats < 1:
        raise UserError("--poll-stats takes whole seconds", "", EXIT_USAGE)
    duration_s = _seconds(duration, "-d") if duration else None
    if pid is not None and not Path(f"/proc/{pid}").is_dir():
        raise UserError(f"there is no process {pid}", "see --pid", EXIT_USAGE)
    where = path or Path(time.strftime("balloontrace-%Y%m%dT%H%M%SZ.host.jsonl", time.gmtime()))
    with contextlib.ExitStack() as around:
        source = _source(qmp, libvirt, firecracker, cloud_hypervisor, pid, around)
        if source.facts.pid is None:
            output.status("its process is not known (--pid): what it takes is not recorded")
        around.enter_context(_writing(where))
        log, is_new = _opened(where, force)
        around.enter_context(log)
        try:
            reason = recording.record(
                source, log, interval_s, duration_s, ssh, poll_stats, output.status
            )
        except UserError:  # it did not begin
            if is_new:
                where.unlink(missing_ok=True)
            raise
    output.status(f"{reason}; wrote {where}" if str(where) != "-" else reason)


def _seconds(text: str, option: str) -> float:
    seconds = seconds_in(text)
    if not seconds:
        raise UserError(f"{option} {text!r} is not a duration such as 60s or 5m", "", EXIT_USAGE)
    return seconds


def _source(
    qmp: Path | None,
    libvirt: str | None,
    firecracker: Path | None,
    cloud_hypervisor: Path | None,
    pid: int | None,
    around: contextlib.ExitStack,
) -> Source:
    """What was named, as long as `around` lasts. Raises UserError if it is not one thing, or does
    not answer."""
    named: dict[str, tuple[object, Callable[[], Source]]] = {
        "--qmp": (qmp, lambda: _qemu(str(qmp), pid, around)),
        "--libvirt": (libvirt, lambda: _libvirt(str(libvirt), pid)),
        "--firecracker": (firecracker, lambda: _firecracker(str(firecracker), pid)),
        "--cloud-hypervisor": (
            cloud_hypervisor,
            lambda: _cloud_hypervisor(str(cloud_hypervisor), pid),
        ),
    }
    given = [make for value, make in named.values() if value is not None]
    if len(given) != 1:
        raise UserError(f"name the guest by one of {', '.join(named)}", "", EXIT_USAGE)
    return given[0]()


def _qemu(path: str, pid: int | None, around: contextlib.ExitStack) -> Source:
    try:
        from balloontrace.host.qemu import Qemu, process_of
        from balloontrace.host.qmp import connect
    except ImportError as error:
        raise UserError(
            f"QEMU's monitor needs {error.name}, which is not installed",
            "pip install 'balloontrace[host]'",
            EXIT_UNSUPPORTED,
        ) from None
    monitor, listener = connect(path)
    around.callback(monitor.close)
    return Qemu(monitor, process_of(monitor, listener) if pid is None else pid)


def _libvirt(domain: str, pid: int | None) -> Source:
    from balloontrace.host.libvirt import Libvirt

    return Libvirt(domain, pid)


def _firecracker(path: str, pid: int | None) -> Source:
    from balloontrace.host.firecracker import Firecracker

    return Firecracker(path, pid)


def _cloud_hypervisor(path: str, pid: int | None) -> Source:
    from balloontrace.host.cloud_hypervisor import CloudHypervisor

    return CloudHypervisor(path, pid)


@contextlib.contextmanager
def _writing(path: Path) -> Iterator[None]:
    """Raises UserError in place of what goes wrong with a file; a closed pipe is no error."""
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror}") from None


def _opened(path: Path, force: bool) -> tuple[HostLog, bool]:
    """A log there, and whether its file is a new one. Raises UserError."""
    from balloontrace.recording.host_lines import HostLog
    from balloontrace.tracers.load.launch import opened

    if str(path) == "-":
        descriptor, is_new = os.dup(1), False
    else:
        descriptor, is_new = opened(str(path), force)
        if not is_new:
            os.ftruncate(descriptor, 0)
    return HostLog(os.fdopen(descriptor, "w", encoding="ascii")), is_new
