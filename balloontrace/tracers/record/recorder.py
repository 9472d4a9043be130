# SPDX-License-Identifier: Apache-2.0
"""The recorder: the loop from ring and samplers to the recording.

Runs in a process image of its own (session.py): what stays in it is Python, the mapped ring and the
imports of these files. Standard library only.
"""

from __future__ import annotations

import os
import select
import time

from balloontrace import sums
from balloontrace.endings import ENDINGS, heeded
from balloontrace.tracers.attach import state
from balloontrace.tracers.attach.follow import Follower
from balloontrace.tracers.machine.c_modules import signal
from balloontrace.tracers.record import accounting, stacks
from balloontrace.tracers.record.not_run import NotRun
from balloontrace.tracers.record.ring import ITEM_BYTES
from balloontrace.tracers.record.tracing import Tracing
from balloontrace.tracers.samplers import OF_A_TRACE, Samplers
from balloontrace.tracers.samplers.tasks import SeenTasks
from balloontrace.tracers.samplers.vmstat import balloon_counters

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Protocol

    from balloontrace.recording.writer import Writer
    from balloontrace.tracers.attach.handover import Handover
    from balloontrace.tracers.record.command import Command
    from balloontrace.tracers.record.marks import Marks
    from balloontrace.tracers.record.netlink_client import NetlinkProcess

    class Loops(Protocol):
        """What `loop` drives: a recorder, of whatever kind."""

        sample_interval_s: float

        def drain(self, sample_follows: bool = False) -> float:
            """See Recorder."""

        def follow(self) -> None:
            """See Recorder."""

        def sample(self) -> None:
            """See Recorder."""


READ_INTERVAL_S = 1.0
"""Between two looks at the ring; BPF wakes the reader when it is half full. In a slow guest a look
costs milliseconds, as much as many events do in the kernel."""

STORM_INTERVAL_S = 0.2
"""Between two looks while each brings more than Tracing.storm_events."""

SAMPLE_INTERVAL_S = 1.0
REQUEST_INTERVAL_S = 5.0
"""Between two requests to the netlink process."""

BLOCK_BYTES = 1 << 17
"""Largest span taken from the ring at once: bounds the recorder's memory in a burst. Larger
ones would make no smaller file; smaller ones are more blocks to read."""

ENDING_INTERVAL_S = 0.05
"""Between two looks at a command that is being ended."""

SETTLE_S = 0.2
SETTLE_INTERVAL_S = 0.01
"""How long calls that are under way at the end may take to return, and the programs that run then
to end; and how often it is looked."""


class Recorder:
    """One recording from attachment to trailer."""

    sample_interval_s = SAMPLE_INTERVAL_S

    def __init__(
        self,
        handover: Handover,
        writer: Writer,
        options: dict[str, Any],
        netlink: NetlinkProcess | None,
        marks: Marks | None = None,
    ) -> None:
        """Begins to trace, and writes the header. Raises UserError if the probes do not fire."""
        content = handover.content
        self._tracing = Tracing(handover)
        self._stats_answers = 0
        self._writer = writer
        self._sync = options["sync"]
        self._samplers = Samplers(() if options["minimal"] else OF_A_TRACE)
        self._events = 0
        self._last_read_s = time.monotonic()
        self._longest_gap_s = 0.0
        self._seen = SeenTasks()
        self._not_run = NotRun()
        self._follower = Follower(handover, options, self._tracing.control, writer.sample)
        begun = self._follower.begin()
        self._netlink = netlink
        if netlink:
            if netlink.pid:
                content["tasks"]["netlink"] = netlink.pid
            netlink.request(content["tasks"]["kswapd"])
        self._next_request_s = time.monotonic() + REQUEST_INTERVAL_S
        self._marks, self._begun_ns = marks, time.monotonic_ns()
        attached = {"attached_ns": self._begun_ns, "absent_samplers": self._samplers.absent}
        if marks:
            attached["marks"] = True
        self._writer.header({**content, **begun, **attached})
        self._follower.tell_absent()
        self.sample()

    @property
    def bytes_written(self) -> int:
        """Size of the recording so far."""
        return self._writer.bytes_written

    def drain(self, sample_follows: bool = False) -> float:
        """Move everything in the ring to the recording; returns the seconds until the next time.
        sample_follows: see Writer.events."""
        moved = 0
        while events := self._move(sample_follows):
            moved += events
        self._events += moved
        self._tracing.control["read"] = self._events
        now = time.monotonic()
        self._longest_gap_s = max(self._longest_gap_s, now - self._last_read_s)
        self._last_read_s = now
        return STORM_INTERVAL_S if moved > self._tracing.storm_events else READ_INTERVAL_S

    def _move(self, sample_follows: bool) -> int:
        """Move one span, which is gone from memory before the next; returns its events."""
        span = self._tracing.ring.read(BLOCK_BYTES)
        if span:
            self._writer.events(span, sample_follows)
            if self._netlink:
                self._seen.note(span)
        return len(span) // ITEM_BYTES

    def sample(self) -> None:
        """Write what the slow sources say now; what was written is on the disk then, if asked."""
        if values := self._samplers.read():
            self._writer.sample({"t_ns": time.monotonic_ns(), **values})
            self._follower.note(values.get("vmstat", {}))
        self._writer.write_held()
        self._write_stats()
        if self._sync:
            self._writer.sync()

    def _write_stats(self) -> None:
        """Write what the driver sent on the statistics queue, if it did since the last time."""
        sent = self._tracing.sent_stats()
        if sent["answers"] != self._stats_answers:
            self._stats_answers = sent["answers"]
            self._writer.sample({"t_ns": time.monotonic_ns(), "stats": sent})

    def follow(self) -> None:
        """Write what the netlink process says and what was marked, and see whether the driver went
        or came."""
        self._take_marks()
        if self._netlink:
            for content in self._netlink.read():
                self._writer.sample(content)
            if time.monotonic() >= self._next_request_s:
                self._netlink.request(self._seen.take())
                self._next_request_s += REQUEST_INTERVAL_S
        self._follower.check()

    def _take_marks(self) -> None:
        if self._marks:
            for mark in self._marks.read(self._begun_ns):
                self._writer.sample(mark)

    def finish(self, reason: str, command: dict[str, Any] | None) -> dict[str, Any]:
        """Trace no more, drain, account for every call, write the trailer; returns the trailer.

        `detach` is what remains. It may take long: each probe waits for the kernel's RCU.
        """
        self.drain()
        if self._netlink:  # it answers meanwhile
            self._netlink.request(self._seen.take())
        gap_s = self._longest_gap_s
        proof, before = self._follower.still_fires(), balloon_counters()
        self._tracing.control.enter_phase("ending")
        seen = stacks.of_tasks(call.tid for call in self._settle())
        self._tracing.control.enter_phase("ended")
        after = balloon_counters()
        opened, counted = self._balance()
        kernel_missed = self._follower.kernel_missed()
        there = accounting.believed(opened, seen, self._follower.functions)
        if last := accounting.last_events(opened, there):
            self._writer.events(last)
        self.sample()
        if self._netlink:
            for content in self._netlink.finish(self._seen.take()):
                self._writer.sample(content)
        if self._marks:
            self._marks.refuse()
        self._take_marks()
        counters = accounting.account(counted, opened, there)
        trailer = {
            "reason": reason,
            "ended_ns": time.monotonic_ns(),
            **self._not_run.since(),
            "vmstat_detach": {"before": before, "after": after},
            "counters": counters,
            "sums": sums.as_json(self._tracing.sums()),
            "events": self._events,
            "lost_events": accounting.losses(counters),
            "returns_missed": accounting.returns_missed(counters),
            "open_calls": len(there),
            "proof": {"begin": self._follower.proved, "end": proof},
            "kernel_missed": kernel_missed,
            "recorder": {**own_costs(), "longest_read_gap_s": round(gap_s, 3)},
            "command": command,
        }
        write_end(self._writer, trailer, self._marks, self._sync)
        return trailer

    def detach(self) -> None:
        """Detach every probe."""
        self._follower.detach()

    def _open_calls(self) -> list[state.OpenCall]:
        return self._tracing.open_calls(self._follower.fill_from)

    def _settle(self) -> list[state.OpenCall]:
        """Wait for the calls that are under way; returns those that do not return."""
        deadline_s = time.monotonic() + SETTLE_S
        while (opened := self._open_calls()) and time.monotonic() < deadline_s:
            time.sleep(SETTLE_INTERVAL_S)
            self.drain()
        return opened

    def _balance(self) -> tuple[list[state.OpenCall], dict[str, dict[str, int]]]:
        """The open calls and the counters, when the programs that were running have ended.

        What they counted as written has been read then, and every call is accounted for.
        """
        deadline_s = time.monotonic() + SETTLE_S
        while True:
            self.drain()
            opened, counters = self._open_calls(), self._tracing.counters()
            unpaired = accounting.unpaired(accounting.account(counters, opened, opened))
            balanced = not unpaired and self._events == self._tracing.control["written"]
            if balanced or time.monotonic() >= deadline_s:
                return opened, counters
            time.sleep(SETTLE_INTERVAL_S)


def write_end(writer: Writer, trailer: dict[str, Any], marks: Marks | None, sync: bool) -> None:
    """Write the trailer, with what became of marks, and how many events a slow reader left no room
    for; sync: it is on the disk then."""
    if writer.left_out:
        trailer["left_out"] = writer.left_out
    if marks:
        trailer["marks"] = {"written": marks.written, "ignored": marks.ignored}
    writer.trailer(trailer)
    if sync:
        writer.sync()


def own_costs() -> dict[str, Any]:
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

    def __init__(self, also: tuple[int, ...] = ()) -> None:
        """Catch the signals that end a recording, SIGCHLD, and others."""
        self.caught: list[int] = []
        """Numbers of those others that came."""
        self.ready: list[int] = []
        """The descriptors that ended the last wait."""
        self._also = also
        self._signals, write_end = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.set_wakeup_fd(write_end, warn_on_full_buffer=False)
        for number in (*heeded(), signal.SIGCHLD, *also):
            signal.signal(number, lambda *_: None)
        self._epoll = select.epoll()
        self._epoll.register(self._signals, select.EPOLLIN)
        self._writer: Writer | None = None
        self._output = -1

    def watch(self, descriptor: int, edges: bool = False, urgent: bool = False) -> None:
        """Wake when `descriptor` is readable; `edges`: only when it becomes so; `urgent`: when it
        has something out of the ordinary to tell (POLLPRI) instead."""
        events = select.EPOLLPRI if urgent else select.EPOLLIN
        self._epoll.register(descriptor, events | (select.EPOLLET if edges else 0))

    def forget(self, descriptor: int) -> None:
        """Stop watching `descriptor`."""
        self._epoll.unregister(descriptor)

    def give(self, writer: Writer, output: int) -> None:
        """While waiting, give the slow reader of `output` what that writer has for it."""
        self._writer, self._output = writer, output
        self._epoll.register(output, 0)

    def wait(self, timeout_s: float) -> str:
        """Sleep until something happens; returns why to end the recording, or ''. Raises UserError
        if nobody reads any more."""
        self.ready = self._awake(max(0.0, timeout_s))
        try:
            numbers = os.read(self._signals, 64)
        except BlockingIOError:
            return ""
        self.caught += [number for number in numbers if number in self._also]
        return next((ENDINGS[number] for number in numbers if number in ENDINGS), "")

    def _awake(self, timeout_s: float) -> list[int]:
        """What is ready at last, or [] in time; that the output is ready wakes nobody else."""
        end_s = time.monotonic() + timeout_s
        while True:
            if self._writer:
                self._writer.give()
                wanted = select.EPOLLOUT if self._writer.waits else 0
                self._epoll.modify(self._output, wanted)
            found = dict(self._epoll.poll(max(0.0, end_s - time.monotonic())))
            output = found.pop(self._output, 0)
            if output & (select.EPOLLERR | select.EPOLLHUP) and self._writer:
                raise self._writer.unread()
            if found or not output:
                return list(found)


def loop(recorder: Loops, wakeups: Wakeups, command: Command | None, end_s: float | None) -> str:
    """Record until something ends it, and the command has been ended, too; returns the reason.
    Who asks again while the command takes its time is heeded at once."""
    interval, reason = STORM_INTERVAL_S, ""
    next_sample_s = time.monotonic() + recorder.sample_interval_s
    while True:
        now = time.monotonic()
        if not reason and end_s is not None and now >= end_s:
            reason = "duration"
        if not reason and command and command.ended():
            reason = "command"
        if reason and (not command or command.is_over()):
            return reason
        until = min(now + interval, next_sample_s)
        if reason:
            until = min(until, now + ENDING_INTERVAL_S)
        elif end_s is not None:
            until = min(until, end_s)
        if asked := wakeups.wait(until - now):
            if reason and command:
                command.hurry()
            reason = reason or asked
            continue
        sampling = time.monotonic() >= next_sample_s
        interval = recorder.drain(sampling)
        recorder.follow()
        if sampling:
            recorder.sample()
            now = time.monotonic()
            # Missed ones are left out: after a pause, one sample tells as much as many.
            missed = (now - next_sample_s) // recorder.sample_interval_s
            next_sample_s += recorder.sample_interval_s * (1 + missed)
