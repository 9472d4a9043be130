# SPDX-License-Identifier: Apache-2.0
"""The netlink process: task delays and the balloon driver's comings and goings, for the recorder.

A process image of its own (machine/interpreter.py), because pyroute2 is too large for the recorder.
Standard input is a socket to the recorder; its end is our end, also when the recorder is killed.
One JSON object per line, either way:

    -> {"watch": [tid, ...]}    watch these too, and say what all watched tasks have waited for
    <- {"t_ns": ..., "delayacct": "on|off|absent", "since_boot": ..., "taskstats_version": ...}
    <- {"t_ns": ..., "delays": {"<tid>": {"comm": ..., "start_ns": ..., "cpu": [count, ns], ...}}}
    <- {"t_ns": ..., "delays": "absent", "why": ...}
    <- {"t_ns": ..., "cgroups": {"<tid>": path, ...}}    of tasks that are new
    <- {"t_ns": ..., "uevent": {"action": ..., "subsystem": ..., "devpath": ..., "driver": ...}}

What cannot be had is said once and left out. Each answer is as many lines as it takes; the end of
all answers is the end of the stream.
"""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from typing import Any, NoReturn

from balloontrace.tracers.machine import capabilities
from balloontrace.tracers.machine.balloon import DRIVER_MODULE, VIRTIO_ID_BALLOON, device
from balloontrace.tracers.samplers.cgroups import Cgroups
from balloontrace.tracers.samplers.delays import TaskDelays, accounting, prefer_bare_pyroute2
from balloontrace.tracers.samplers.tasks import MAX_TIDS

TASKS_PER_LINE = 32
"""Keeps a line below 16 KiB, and so the recorder's memory for it."""

CHANNEL = 0
"""Standard input, the socket's descriptor."""

_KERNEL_GROUP = 1
"""Multicast group of the kernel's own uevents; 2 repeats them with udev's header."""

_MODULE_PATH = f"/module/{DRIVER_MODULE}"
_MODALIAS = f"virtio:d{VIRTIO_ID_BALLOON:08X}"

_writing = threading.Lock()


def say(content: dict[str, Any]) -> None:
    """Send one line; ends the process if nobody listens any more."""
    line = json.dumps({"t_ns": time.monotonic_ns(), **content}, separators=(",", ":"))
    view = memoryview(line.encode() + b"\n")
    try:
        with _writing:
            while view:
                view = view[os.write(CHANNEL, view) :]
    except OSError:
        os._exit(0)


class Watch:
    """The tasks whose delays are told; at most MAX_TIDS, the longest known go first."""

    def __init__(self, tasks: TaskDelays) -> None:
        self._tasks = tasks
        self._tids: dict[int, None] = {}

    def add(self, tids: list[int]) -> None:
        """Watch these tasks from now on."""
        for tid in tids:
            self._tids.pop(tid, None)
            self._tids[tid] = None
        for tid in list(self._tids)[: max(0, len(self._tids) - MAX_TIDS)]:
            del self._tids[tid]

    def answers(self) -> Iterator[dict[str, Any]]:
        """The delays of all watched tasks; those that have ended are forgotten. Raises OSError."""
        tids = list(self._tids)
        for first in range(0, len(tids), TASKS_PER_LINE):
            asked = tids[first : first + TASKS_PER_LINE]
            delays = self._tasks.read_all(asked)
            for tid in asked:
                if str(tid) not in delays:
                    del self._tids[tid]
            yield {"delays": delays}


class BalloonEvents:
    """Which uevents are about the balloon or its driver."""

    def __init__(self) -> None:
        found = device()
        self._devices = {os.path.realpath(found).removeprefix("/sys")} if found else set()

    def pick(self, event: dict[str, Any]) -> dict[str, str] | None:
        """What the recorder needs of `event`, None if it does not concern the balloon.

        An event that comes after the driver has gone names neither it nor the kind of device, so
        the path of a balloon is kept in mind.
        """
        path = str(event.get("DEVPATH"))
        if event.get("SUBSYSTEM") == "virtio":
            if str(event.get("MODALIAS")).startswith(_MODALIAS):
                self._devices.add(path)
            concerns = path in self._devices
        else:
            concerns = path == _MODULE_PATH
        if not concerns:
            return None
        keys = ("ACTION", "SUBSYSTEM", "DEVPATH", "DRIVER")
        return {key.lower(): str(event[key]) for key in keys if key in event}


def forward_uevents() -> None:
    """Tell the recorder of every uevent about the balloon, until the process ends.

    Runs in a thread that blocks in get(): since 0.9 pyroute2's sockets live in an event loop of
    their own and cannot be polled together with ours.
    """
    try:
        from pyroute2.netlink.uevent import UeventSocket

        socket = UeventSocket()
        # Past its own bind(), which takes no groups before 0.9 and joins udev's as well.
        super(UeventSocket, socket).bind(groups=_KERNEL_GROUP)
        events = BalloonEvents()
        say({"uevents": "on"})
        while True:
            for event in socket.get():
                if picked := events.pick(event):
                    say({"uevent": picked})
    except Exception as error:  # whatever it is, the recording goes on without
        say({"uevents": "absent", "why": f"{type(error).__name__}: {error}"})


def open_watch() -> Watch | None:
    """Open taskstats and say whether delays are counted; None, and say why, if it cannot be."""
    try:
        tasks = TaskDelays()
        own = tasks.read(os.getpid())
        if own is None:
            raise OSError("taskstats does not know this process (a pid namespace?)")
    except (ImportError, OSError, ValueError) as error:
        say({"delays": "absent", "why": str(error)})
        return None
    say(accounting(own))
    return Watch(tasks)


def answer(watch: Watch | None, cgroups: Cgroups, request: dict[str, Any]) -> Watch | None:
    """Answer one request; returns the watch, None if there is none or it has failed."""
    tids = [int(tid) for tid in request["watch"]]
    for first in range(0, len(tids), TASKS_PER_LINE):
        if new := cgroups.of(tids[first : first + TASKS_PER_LINE]):
            say({"cgroups": new})
    if watch is None:
        return None
    try:
        watch.add(tids)
        for content in watch.answers():
            say(content)
    except (OSError, ValueError) as error:
        say({"delays": "absent", "why": str(error)})
        return None
    return watch


def main() -> None:
    """Answer requests until there is nobody to make any."""
    # Ctrl-C and a closed terminal are for the recorder to act on; it wants a last answer then.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    prefer_bare_pyroute2()
    with suppress(OSError):
        capabilities.keep_only(*capabilities.DELAYS)
    watch, cgroups = open_watch(), Cgroups()
    threading.Thread(target=forward_uevents, daemon=True).start()
    with open(CHANNEL, "rb", closefd=False) as requests:
        while line := requests.readline():
            watch = answer(watch, cgroups, json.loads(line))


def run() -> NoReturn:
    """Do that, and end at once: the thread waits in the kernel."""
    main()
    os._exit(0)
