"""Follows the driver while it is unloaded and loaded again: detaches, attaches anew, tells the gap.

Unloading a module ends the probes on its functions for good (kprobe_module_callback in
kernel/kprobes.c). The programs and maps stay; only the attaching is done again, in a child, for it
reads all of /proc/kallsyms.
"""

from __future__ import annotations

import os
import select
import socket
import time

from balloontrace.errors import UserError
from balloontrace.recording import Writer
from balloontrace.tracers import driver, handover
from balloontrace.tracers.samplers.vmstat import balloon_counters

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


class Follower:
    """The attached probes, and what to do when their driver goes or comes.

    Each change is a sample `driver` of the recording: `state` is absent (at the start), gone,
    attached (with what attach.attach describes) or untraceable (`why`). `vmstat` of absent and gone
    are the balloon's counters between which the last traced page moved; `loader` is the process
    that attached the probes, or tried to, and is gone by now.
    """

    def __init__(self, given: handover.Handover, forced: dict[str, int], writer: Writer) -> None:
        self.counters = given.content["vmstat_attach"]["after"]
        """The latest reading of the balloon's counters while the driver was there."""
        self._programs, self._layout = given.programs, given.maps["layout"]
        self._probes = given.probes
        self._forced, self._writer = forced, writer
        self._traced: int = given.content["driver_identity"]
        self._refused = 0
        self._attaching: tuple[int, socket.socket, int] | None = None
        if not self._traced:
            self._tell("absent", {"vmstat": given.content["vmstat_attach"]})

    def check(self) -> None:
        """See whether the driver went or came, and act on it. Returns at once."""
        if self._attaching:
            self._receive(*self._attaching)
        now = driver.identity()
        if self._attaching or now == self._traced:
            return
        if self._traced:
            self._driver_gone(now)
        if now and now != self._refused:
            self._attaching = (*handover.in_child(self._attach), now)

    def detach(self) -> None:
        """Detach every probe, the ack last (see seams.SEAMS)."""
        if self._attaching:
            self._attaching[1].close()
            os.waitpid(self._attaching[0], 0)
        handover.detach(self._probes)
        self._probes = []

    def _driver_gone(self, now: int) -> None:
        """Where the next one is there already, it may have moved pages before this reading."""
        after = balloon_counters()
        before = self.counters if now else after
        self.detach()
        self._traced = 0
        self._tell("gone", {"vmstat": {"before": before, "after": after}})

    def _attach(self) -> handover.Handover:
        from balloontrace.tracers import attach

        attached = attach.attach(self._programs, self._layout, attach.Kernel(), self._forced)
        return handover.Handover(attached.described, {}, {}, attached.probes)

    def _receive(self, child: int, channel: socket.socket, identity: int) -> None:
        """Take over from the child, if it has done its work."""
        if not select.select([channel], [], [], 0)[0]:
            return
        self._attaching = None
        try:
            given = handover.receive(channel)
        except UserError as error:
            self._refused = identity
            self._tell("untraceable", {"why": str(error), "loader": child})
            return
        finally:
            channel.close()
            os.waitpid(child, 0)
        self._probes = given.probes
        self._traced = given.content["driver_identity"]
        self.counters = given.content["vmstat_attach"]["after"]
        self._tell("attached", {**given.content, "loader": child})

    def _tell(self, state: str, content: dict[str, Any]) -> None:
        self._writer.sample({"t_ns": time.monotonic_ns(), "driver": {"state": state, **content}})
