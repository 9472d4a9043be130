"""The recorder: the loop from ring and samplers to the recording, and an orderly end.

Runs as a process image of its own (`python -S -m balloontrace.tracers.recorder`), which the command
line turns into by exec: Typer and BCC are gone by then, and what stays is Python, the mapped ring
and this file's imports. Standard library only.
"""

from __future__ import annotations

import json
import mmap
import os
import select
import signal
import socket
import stat
import sys
import time

from balloontrace.errors import EXIT_EVENTS_LOST, UserError
from balloontrace.recording import Writer
from balloontrace.tracers import capabilities, kernel, state
from balloontrace.tracers.command import Command
from balloontrace.tracers.follow import Follower
from balloontrace.tracers.handover import Handover, receive
from balloontrace.tracers.netlink_client import REQUEST_INTERVAL_S, NetlinkProcess
from balloontrace.tracers.ring import ITEM_BYTES, Ring
from balloontrace.tracers.samplers import Sampler, open_samplers
from balloontrace.tracers.samplers.tasks import SeenTasks
from balloontrace.tracers.samplers.vmstat import balloon_counters

TYPE_CHECKING = False
if TYPE_CHECKING:  # typing itself would cost the recorder a megabyte
    from typing import Any

READ_INTERVAL_S = 1.0
"""Between two looks at the ring; BPF wakes the reader when it is half full. In a slow guest a look
costs milliseconds, as much as many events do in the kernel."""

STORM_INTERVAL_S = 0.2
STORM_SHARE = 16
"""Between two looks while each brings more than a 16th of the ring."""

SAMPLE_INTERVAL_S = 1.0
BLOCK_BYTES = 1 << 18
"""Largest span taken from the ring at once: bounds the recorder's memory in a burst."""

LEVEL_BYTES = 16
"""struct level of bpf/balloon.c: events written, events read."""

LAST_VICTIM = -999
"""oom_score_adj: killed after everything else, but not never (-1000), for a kernel that finds
nobody to kill panics."""

_ENDINGS = {
    signal.SIGINT: "interrupted",
    signal.SIGTERM: "terminated",
    signal.SIGHUP: "terminal closed",
}


class Recorder:
    """One recording from attachment to trailer."""

    def __init__(
        self,
        handover: Handover,
        output: int,
        options: dict[str, Any],
        netlink: NetlinkProcess | None,
    ) -> None:
        self._maps = handover.maps
        self._ring = Ring(handover.maps["events"], handover.content["ring_bytes"])
        self._storm_events = handover.content["ring_bytes"] // ITEM_BYTES // STORM_SHARE
        counters_bytes = state.COUNTERS_BYTES * handover.content["possible_cpus"]
        self._counters = _map_array(handover.maps["counters"], counters_bytes)
        self._level = memoryview(_map_array(handover.maps["level"], LEVEL_BYTES)).cast("Q")
        self._writer = Writer(output, options["path"])
        self._sync = options["sync"]
        self._samplers: list[Sampler] = []
        absent: list[str] = []
        if not options["minimal"]:
            self._samplers, absent = open_samplers()
        self._events = 0
        self._last_read_s = time.monotonic()
        self._longest_gap_s = 0.0
        self._netlink, self._seen = netlink, SeenTasks()
        tasks = handover.content["tasks"]
        if netlink:
            tasks["netlink"] = netlink.pid
            netlink.request(tasks["kswapd"])
        self._next_request_s = time.monotonic() + REQUEST_INTERVAL_S
        self._slept_before_ns = _suspended_ns()
        attached = {"attached_ns": time.monotonic_ns(), "absent_samplers": absent}
        self._writer.header({**handover.content, **attached})
        self._follower = Follower(handover, options["rungs"], self._writer)
        self.sample()

    @property
    def bytes_written(self) -> int:
        """Size of the recording so far."""
        return self._writer.bytes_written

    def drain(self) -> float:
        """Move everything in the ring to the recording; returns the seconds until the next time."""
        moved = 0
        while span := self._ring.read(BLOCK_BYTES):
            self._writer.events(span)
            if self._netlink:
                self._seen.note(span)
            moved += len(span) // ITEM_BYTES
        self._events += moved
        self._level[1] = self._events
        now = time.monotonic()
        self._longest_gap_s = max(self._longest_gap_s, now - self._last_read_s)
        self._last_read_s = now
        return STORM_INTERVAL_S if moved > self._storm_events else READ_INTERVAL_S

    def sample(self) -> None:
        """Write what the slow sources say now; what was written is on the disk then, if asked."""
        if self._samplers:
            values = {sampler.name: sampler.read() for sampler in self._samplers}
            self._writer.sample({"t_ns": time.monotonic_ns(), **values})
            self._follower.counters = {
                name: values["vmstat"][name] for name in self._follower.counters
            }
        if self._sync:
            self._writer.sync()

    def follow(self) -> None:
        """Write what the netlink process says, and see whether the driver went or came."""
        if self._netlink:
            for content in self._netlink.read():
                self._writer.sample(content)
            if time.monotonic() >= self._next_request_s:
                self._netlink.request(self._seen.take())
                self._next_request_s += REQUEST_INTERVAL_S
        self._follower.check()

    def finish(self, reason: str, command: dict[str, Any] | None) -> dict[str, Any]:
        """Detach, drain, account for every call, write the trailer; returns the trailer."""
        self.drain()
        gap_s = self._longest_gap_s  # detaching waits for the kernel, and nothing is read meanwhile
        before = balloon_counters()
        self._follower.detach()
        after = balloon_counters()
        self.drain()
        open_calls = list(
            state.open_calls(kernel.map_entries(self._maps["calls"], state.TASK_BYTES))
        )
        if open_calls:
            self._writer.events(b"".join(event for _, event in open_calls))
        self.sample()
        if self._netlink:
            for content in self._netlink.finish(self._seen.take()):
                self._writer.sample(content)
        counters = state.sum_counters(self._counters[:])
        for kind, counts in counters.items():
            counts["open"] = sum(1 for opened, _ in open_calls if opened == kind)
            seen = sum(counts[name] for name in ("written", "lost", "untracked", "skipped", "open"))
            counts["unpaired"] = max(0, counts["entered"] - seen)
        trailer = {
            "reason": reason,
            "ended_ns": time.monotonic_ns(),
            "suspended_ns": max(0, _suspended_ns() - self._slept_before_ns),
            "vmstat_detach": {"before": before, "after": after},
            "counters": counters,
            "events": self._events,
            "lost_events": sum(
                counts[name]
                for counts in counters.values()
                for name in ("lost", "untracked", "unpaired")
            ),
            "open_calls": len(open_calls),
            "recorder": {**_own_costs(), "longest_read_gap_s": round(gap_s, 3)},
            "command": command,
        }
        self._writer.trailer(trailer)
        if self._sync:
            self._writer.sync()
        return trailer


def _map_array(fd: int, size: int) -> mmap.mmap:
    """The memory of an mmapable array map of `size` bytes. Raises OSError."""
    return mmap.mmap(fd, -(-size // mmap.PAGESIZE) * mmap.PAGESIZE)


def _suspended_ns() -> int:
    """How long this machine has been suspended since it booted, give or take the two readings."""
    since_boot, awake = time.CLOCK_BOOTTIME, time.CLOCK_MONOTONIC
    return time.clock_gettime_ns(since_boot) - time.clock_gettime_ns(awake)


def _own_costs() -> dict[str, Any]:
    """What the recorder itself took: peak resident memory and CPU time."""
    with open("/proc/self/status", encoding="ascii") as status:
        fields = dict(line.split(":", 1) for line in status)
    times = os.times()
    return {
        "rss_bytes": int(fields["VmRSS"].split()[0]) * 1024,
        "rss_peak_bytes": int(fields["VmHWM"].split()[0]) * 1024,
        "cpu_s": round(times.user + times.system, 3),
    }


class Wakeups:
    """Everything the recorder waits for: the ring half full, a signal, the command's end, time."""

    def __init__(self) -> None:
        """Catch the signals that end a recording, and SIGCHLD."""
        self._signals, write_end = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.set_wakeup_fd(write_end, warn_on_full_buffer=False)
        for number in (*_ENDINGS, signal.SIGCHLD):
            signal.signal(number, lambda *_: None)
        self._epoll = select.epoll()
        self._epoll.register(self._signals, select.EPOLLIN)

    def watch(self, descriptor: int, edges: bool = False) -> None:
        """Wake when `descriptor` is readable; `edges`: only when it becomes so."""
        self._epoll.register(descriptor, select.EPOLLIN | (select.EPOLLET if edges else 0))

    def forget(self, descriptor: int) -> None:
        """Stop watching `descriptor`."""
        self._epoll.unregister(descriptor)

    def wait(self, timeout_s: float) -> str:
        """Sleep until something happens; returns why to end the recording, or ''."""
        self._epoll.poll(max(0.0, timeout_s))
        try:
            numbers = os.read(self._signals, 64)
        except BlockingIOError:
            return ""
        return next((_ENDINGS[n] for n in map(signal.Signals, numbers) if n in _ENDINGS), "")


def _loop(
    recorder: Recorder, wakeups: Wakeups, command: Command | None, end_s: float | None
) -> str:
    """Record until something ends it; returns the reason."""
    interval = STORM_INTERVAL_S
    next_sample_s = time.monotonic() + SAMPLE_INTERVAL_S
    while True:
        now = time.monotonic()
        if end_s is not None and now >= end_s:
            return "duration"
        if command and command.ended():
            return "command"
        until = min(now + interval, next_sample_s, end_s if end_s is not None else now + interval)
        if reason := wakeups.wait(until - now):
            return reason
        interval = recorder.drain()
        recorder.follow()
        if time.monotonic() >= next_sample_s:
            recorder.sample()
            next_sample_s += SAMPLE_INTERVAL_S


def _await_handover(wakeups: Wakeups, channel: socket.socket, child: int) -> Handover:
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


def _protect() -> int:
    """Stay in memory and be the OOM killer's last choice; returns the old oom_score_adj."""
    with open("/proc/self/oom_score_adj", encoding="ascii") as adj:
        before = int(adj.read())
    try:
        kernel.set_oom_score_adj(LAST_VICTIM)
    except OSError as error:
        _say(f"warning: cannot become the last OOM victim: {error.strerror}")
    if not kernel.lock_memory():
        _say("warning: cannot lock the recorder's memory (ulimit -l?)")
    return before


def _drop_privileges(kill: bool) -> None:
    """Keep what recording needs. kill: a command is to be ended, whose user may be another."""
    try:
        capabilities.keep_only(*capabilities.needed(), *(["kill"] if kill else []))
    except OSError as error:
        _say(f"warning: cannot give up privileges: {error.strerror}")


def record(options: dict[str, Any]) -> int:
    """Record as `options` says (launch.Options); returns the exit code. Raises UserError."""
    wakeups = Wakeups()
    channel = socket.socket(fileno=options["channel"])
    handover = _await_handover(wakeups, channel, options["loader"])
    old_score = _protect()
    path, output = options["path"], options["output"]
    if stat.S_ISREG(os.fstat(output).st_mode) and path != "-":
        os.ftruncate(output, 0)
    netlink = None if options["minimal"] else NetlinkProcess(old_score)
    recorder = Recorder(handover, output, options, netlink)
    if netlink:
        wakeups.watch(netlink.fileno())
    wakeups.watch(handover.maps["events"], edges=True)
    end_s = time.monotonic() + options["duration_s"] if options["duration_s"] else None
    _announce(path, options["ready_file"])
    command = Command(options["command"], old_score, output) if options["command"] else None
    _drop_privileges(kill=command is not None)
    try:
        reason = _loop(recorder, wakeups, command, end_s)
    finally:
        ended = command.finish() if command else None
    trailer = recorder.finish(reason, ended)
    _summarise(trailer, recorder.bytes_written, path)
    return EXIT_EVENTS_LOST if options["strict"] and trailer["lost_events"] else 0


def _announce(path: str, ready_file: str | None) -> None:
    """Tell people, and tests that wait for it, that the probes are attached."""
    _say(f"tracing the balloon into {path}; Ctrl-C ends it")
    if ready_file:
        with open(ready_file, "w", encoding="ascii") as ready:
            ready.write(f"{os.getpid()}\n")


def _summarise(trailer: dict[str, Any], size: int, path: str) -> None:
    before, after = trailer["vmstat_detach"]["before"], trailer["counters"]
    lost = trailer["lost_events"]
    _say(
        f"{trailer['reason']}: {trailer['events']:,} events ({after['fill']['written']:,} fills, "
        f"{after['leak']['written']:,} leaks), {lost:,} lost, {size / 1024:,.0f} KiB"
    )
    if lost:
        _say(f"warning: {lost:,} events were lost; the report says which, and what to do")
    if trailer["command"] and trailer["command"]["status"]:
        _say(f"the command ended with status {trailer['command']['status']}")
    if not before:
        _say("warning: /proc/vmstat of this kernel has no balloon counters to check against")
    if path != "-":
        _say(f"wrote {path}; next: balloontrace report {path}")


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def main() -> int:
    """Entry point of the process image: options as JSON in the first argument."""
    options = json.loads(sys.argv[1])
    try:
        return record(options)
    except UserError as error:
        if options["path"] != "-" and os.fstat(options["output"]).st_size == 0:
            os.unlink(options["path"])
        _say(f"balloontrace: {error}")
        return error.exit_code


if __name__ == "__main__":
    sys.exit(main())
