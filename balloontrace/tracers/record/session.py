# SPDX-License-Identifier: Apache-2.0
"""What happens around a recording: the loader, protection, privileges, the command, the end.

Runs as a process image of its own (see load/launch.py), which the command line turns into by exec:
Typer and BCC are gone by then. Standard library only, and of that what is small: what this process
imports, a small guest pays for (tests/unit/test_house.py).
"""

from __future__ import annotations

import marshal
import os
import select
import stat
import sys
import time

from balloontrace.endings import ENDINGS
from balloontrace.errors import EXIT_EVENTS_LOST, UserError
from balloontrace.recording.writer import Writer
from balloontrace.tracers.attach.handover import receive
from balloontrace.tracers.machine import (
    capabilities,
    interpreter,
    namespaces,
    overcommit,
    system_calls,
)
from balloontrace.tracers.machine.c_modules import signal, socket
from balloontrace.tracers.record import accounting
from balloontrace.tracers.record.command import Command, CommandError
from balloontrace.tracers.record.recorder import Recorder, Wakeups, loop

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from balloontrace.tracers.attach.handover import Handover
    from balloontrace.tracers.record.counters import CounterRecorder
    from balloontrace.tracers.record.marks import Marks
    from balloontrace.tracers.record.netlink_client import NetlinkProcess

LAST_VICTIM = -999
"""oom_score_adj: killed after everything else, but not never (-1000), for a kernel that finds
nobody to kill panics."""


def await_handover(wakeups: Wakeups, channel: socket.socket, child: int) -> Handover:
    """The loader's handover. Raises UserError if it fails or the user loses patience."""
    wakeups.watch(channel.fileno())
    while True:
        if reason := wakeups.wait(3600.0):
            os.kill(child, signal.SIGKILL)
            raise UserError(f"{reason} before the probes were attached; nothing was recorded")
        if select.select([channel], [], [], 0)[0]:
            break
    wakeups.forget(channel.fileno())
    try:
        return receive(channel)
    finally:
        channel.close()
        os.waitpid(child, 0)


def protect(traces: bool) -> int:
    """Stay in memory and be the OOM killer's last choice; returns the old oom_score_adj.

    Who traces has the privileges, and is told which are lacking; who does not may have none.
    """
    if overcommit.is_refused():
        overcommit.keep_heap()
    with open("/proc/self/oom_score_adj", encoding="ascii") as adj:
        before = int(adj.read())
    try:
        system_calls.set_oom_score_adj(LAST_VICTIM)
    except OSError as error:
        if traces:
            say(f"warning: cannot become the last OOM victim: {error.strerror}")
    # Locked under a limit, memory cannot grow beyond it, and the recorder would end.
    if (system_calls.lift_locked_memory_limit() or traces) and not system_calls.lock_memory():
        say("warning: cannot lock the recorder's memory (ulimit -l?)")
    return before


def drop_privileges(needed: tuple[str, ...], kill: bool) -> None:
    """Keep what recording needs (capabilities.needed), which was found before the command began.
    kill: a command is to be ended, whose user may be another."""
    try:
        capabilities.keep_only(*needed, *(["kill"] if kill else []))
    except OSError as error:
        say(f"warning: cannot give up privileges: {error.strerror}")


def record(options: dict[str, Any]) -> int:
    """Record as `options` says (launch.Options); returns the exit code. Raises UserError."""
    marks: Marks | None = None
    try:
        wakeups = Wakeups()
        signal.pthread_sigmask(signal.SIG_UNBLOCK, ENDINGS)  # which launch.py has blocked
        if _wants_netlink(options):  # imported while the loader is at work
            import balloontrace.tracers.record.netlink_client  # noqa: F401
        try:
            handover = None if options["counters"] else _handover(options, wakeups)
        except UserError as error:
            from balloontrace.tracers.load.untraceable import or_counters

            raise or_counters(error) from None
        if options["mark"]:
            from balloontrace.tracers.record.marks import Marks

            marks = Marks()
        return _record(options, wakeups, handover, marks)
    finally:
        if marks:
            marks.close()


def _handover(options: dict[str, Any], wakeups: Wakeups) -> Handover:
    """Wait for the loader."""
    channel = socket.socket(fileno=options["channel"])
    return await_handover(wakeups, channel, options["loader"])


def _record(
    options: dict[str, Any], wakeups: Wakeups, handover: Handover | None, marks: Marks | None
) -> int:
    """Record; returns the exit code. handover: None, nothing is traced."""
    old_score = protect(traces=handover is not None)
    path, output = options["path"], options["output"]
    if stat.S_ISREG(os.fstat(output).st_mode) and path != "-":
        os.ftruncate(output, 0)
    recorder: Recorder | CounterRecorder
    writer = _writer(output, path, wakeups)
    if handover:
        recorder = _tracing(options, writer, wakeups, handover, marks, old_score)
    else:
        from balloontrace.tracers.record.counters import CounterRecorder

        recorder = CounterRecorder(options["content"], writer, options, marks)
    end_s = time.monotonic() + options["duration_s"] if options["duration_s"] else None
    doing = "tracing the balloon" if handover else "reading the guest's counters"
    needed = capabilities.needed() if handover else ()
    announce(f"{doing} into {path}", options["ready_file"])
    command: Command | None = None
    failure: Exception | None = None
    try:
        if options["command"]:
            command = Command(options["command"], old_score, output)
        drop_privileges(needed, kill=command is not None)
        reason = loop(recorder, wakeups, command, end_s)
    except CommandError as error:
        reason, failure = "failed", error
    except UserError:  # the recording cannot be written any more
        raise
    except Exception as error:  # whatever it is, it is not worth a recording
        reason, failure = "failed", error
    finally:
        ended = command.finish() if command else None
    trailer = recorder.finish(reason, ended)
    for line in accounting.summary(trailer, recorder.bytes_written, path):
        say(line)
    writer.end()
    recorder.detach()
    if isinstance(failure, CommandError):
        raise failure
    if failure:
        raise UserError(
            f"the recorder failed: {type(failure).__name__}: {failure}",
            "what was recorded is kept; please report this line",
        )
    lost = trailer["lost_events"] or writer.left_out
    return EXIT_EVENTS_LOST if options["strict"] and lost else 0


def _writer(output: int, path: str, wakeups: Wakeups) -> Writer:
    """A writer that waits for nobody: while it does, the ring is not read."""
    mode = os.fstat(output).st_mode
    if not stat.S_ISFIFO(mode) and not stat.S_ISSOCK(mode):
        return Writer(output, path)
    from balloontrace.recording.spool import Spool

    writer = Writer(output, path, spool=Spool(output))
    wakeups.give(writer, output)
    return writer


def _tracing(
    options: dict[str, Any],
    writer: Writer,
    wakeups: Wakeups,
    handover: Handover,
    marks: Marks | None,
    oom_score_adj: int,
) -> Recorder:
    """A recorder that traces, and is woken by what it waits for. oom_score_adj: for the netlink
    process. Raises UserError."""
    netlink = _start_netlink(oom_score_adj) if _wants_netlink(options) else None
    recorder = Recorder(handover, writer, options, netlink, marks)
    if netlink:
        wakeups.watch(netlink.fileno())
    wakeups.watch(handover.maps["events"], edges=True)
    return recorder


def _wants_netlink(options: dict[str, Any]) -> bool:
    """taskstats takes the thread ids of our PID namespace, and events have those of the initial
    one."""
    traces = not options["counters"] and not options["minimal"]
    return traces and namespaces.is_initial()


def _start_netlink(oom_score_adj: int) -> NetlinkProcess:
    from balloontrace.tracers.record.netlink_client import NetlinkProcess  # it reads JSON

    return NetlinkProcess(oom_score_adj)


def announce(what: str, ready_file: str | None) -> None:
    """Tell people, and tests that wait for it, that it has begun."""
    say(f"{what}; Ctrl-C ends it")
    if ready_file:
        with open(ready_file, "w", encoding="ascii") as ready:
            ready.write(f"{os.getpid()}\n")


def say(text: str) -> None:
    """Tell people, if they can hear it: a terminal that hung up, or a log on a disk that is full,
    ends no recording."""
    try:
        os.write(2, f"{text}\n".encode(errors="surrogateescape"))
    except OSError:
        return


def leave_nothing(options: dict[str, Any]) -> None:
    """Remove the file that was made for this recording, if there is nothing in it."""
    ours = os.fstat(options["output"])
    if not options["created"] or ours.st_size:
        return
    try:
        there = os.lstat(options["path"])
        if stat.S_ISREG(there.st_mode) and os.path.samestat(ours, there):
            os.unlink(options["path"])
    except OSError:
        pass


def end_loader(pid: int) -> None:
    """End the loader, if it has not ended. Once it was waited for its number may be another's."""
    try:
        if os.waitpid(pid, os.WNOHANG) == (0, 0):
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
    except ChildProcessError:
        return


def given_options() -> dict[str, Any]:
    """What this process image was told: its first argument is the descriptor of a file with its
    options, marshalled."""
    if package := interpreter.held():
        os.set_inheritable(package, False)  # a command is not to have it
    descriptor = int(sys.argv[1])
    options: dict[str, Any] = marshal.loads(  # noqa: S302 - of our own making
        os.pread(descriptor, os.fstat(descriptor).st_size, 0)
    )
    os.close(descriptor)
    return options


def main() -> int:
    """Entry point of the process image."""
    options = given_options()
    try:
        return record(options)
    except UserError as error:
        leave_nothing(options)
        say(f"balloontrace: {error}")
        return error.exit_code
