# SPDX-License-Identifier: Apache-2.0
"""Follows the driver while it is unloaded and loaded again: detaches, attaches anew, tells the gap.

Unloading a module ends the probes on its functions for good (kprobe_module_callback in
kernel/kprobes.c). The maps stay; programs are loaded and attached again in a child, for it reads
all of /proc/kallsyms.
"""

from __future__ import annotations

import os
import select
import time

from balloontrace.errors import UserError
from balloontrace.tracers.attach import handover
from balloontrace.tracers.attach.control import Control
from balloontrace.tracers.machine import balloon, bpf_info
from balloontrace.tracers.samplers.vmstat import balloon_counters

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from socket import socket
    from typing import Any


class Follower:
    """The attached probes, and what to do when their driver goes or comes.

    Each change is a sample `driver` of the recording: `state` is absent (at the start), gone,
    attached (with what attaching.attach describes), untraceable (`why`) or negotiated (another
    device, or other features: `balloon`). `vmstat` of absent and
    gone are the balloon's counters between which the last traced page moved; `loader` is the
    process that attached the probes, or tried to, and is gone by now.
    """

    def __init__(
        self,
        given: handover.Handover,
        options: dict[str, Any],
        control: Control,
        tell: Callable[[dict[str, Any]], None],
    ) -> None:
        """options: `rungs` and `means`, what alone is to be tried; tell: takes each sample."""
        self.counters: dict[str, int] = {}
        """The latest reading of the balloon's counters while the driver was there."""
        self.proved: bool | None = None
        """Whether the probes have been seen to fire; None: nothing that proves it is attached."""
        self._maps, self._code = given.maps, given.code
        self._probes, self._programs = given.probes, given.programs
        self._content = given.content
        self._options, self._control, self._take = options, control, tell
        self._traced: int = given.content["driver_identity"]
        self._missed_before = 0
        self._untraced = 0  # the driver that is there and cannot be traced
        self._why: dict[str, Any] = {}
        self._tries_again = False
        self._attaching: tuple[int, socket, int] | None = None
        self._negotiated = balloon.negotiated(balloon.device())

    @property
    def fill_from(self) -> str:
        """Where the pages of a fill are counted: of state.FILL_FROM."""
        return str(self._content.get("fill_from", "acks"))

    @property
    def functions(self) -> dict[str, list[str]]:
        """Call -> names of the functions that it is in the driver that was traced last."""
        return dict(self._content.get("calls", {}))

    @property
    def is_traced(self) -> bool:
        """Whether a driver is there, and traced."""
        return bool(self._traced)

    @property
    def is_there(self) -> bool:
        """Whether a driver is there, traced or not."""
        return bool(self._traced or self._untraced or self._attaching)

    @property
    def content(self) -> dict[str, Any]:
        """What the header of a recording says that begins now."""
        if self._traced:
            return self._content
        absent: dict[str, Any] = {"used": None, "not": []}
        return {**self._content, "seams": {}, "calls": {}, "means": absent, "driver_identity": 0}

    def begin(self) -> dict[str, Any]:
        """Let the programs count and write from now on; returns `vmstat_attach`.

        The recorder's own id is set right, which in a PID namespace only the programs see. Raises
        UserError if the probes do not fire.
        """
        if not self._traced:
            now = balloon_counters()
            return {"vmstat_attach": {"before": now, "after": now}}
        if self._content["seams"].get("proof", {}).get("rung"):
            self._content["tasks"]["recorder"] = self._control.prove()
            self.proved = True
        before = balloon_counters()
        self._control.enter_phase("tracing")
        self.counters = balloon_counters()
        return {"vmstat_attach": {"before": before, "after": self.counters}}

    def tell_absent(self) -> None:
        """Say so, if no driver is traced at the start, and why, if one is there."""
        if not self._traced:
            now = balloon_counters()
            self._tell("absent", {"vmstat": {"before": now, "after": now}})
        if self._untraced:
            self._tell("untraceable", self._why)

    def note(self, vmstat: dict[str, int]) -> None:
        """Keep the balloon's counters of a sample in mind."""
        self.counters = {name: vmstat.get(name, kept) for name, kept in self.counters.items()}

    def still_fires(self) -> bool | None:
        """Whether the probes fire now; None if nothing that proves it is attached."""
        if not self.proved or not self._traced:
            return None
        try:
            self._control.prove()
        except UserError:
            return False
        return True

    def kernel_missed(self) -> int:
        """Hits that the kernel says it passed by, of these probes and those before them."""
        by_links = bpf_info.missed_by_links(self._probes)
        return self._missed_before + by_links + bpf_info.missed_by_programs(self._programs)

    def check(self) -> None:
        """See whether the driver went or came, and act on it. Returns at once."""
        if self._attaching:
            self._receive(*self._attaching)
        now = balloon.identity()
        if self._traced:
            self._tell_negotiated()
        if self._attaching:
            return
        if self._traced and now != self._traced:
            self._driver_gone(now)
        if self._untraced and now != self._untraced:
            self._untraced, there = 0, balloon_counters()
            self._tell("gone", {"vmstat": {"before": there, "after": there}})
        if now and not self._traced and (not self._untraced or self._tries_again):
            self._begin_attaching(now)

    def _begin_attaching(self, identity: int) -> None:
        try:
            self._attaching = (*handover.in_child(self._attach), identity)
        except UserError as error:  # no process more: at the next look there may be room for one
            if not self._untraced:
                self._cannot_be_traced(error, 0)
            self._untraced, self._tries_again = identity, True

    def detach(self) -> None:
        """Detach every probe, and unload its program."""
        if self._attaching:
            self._attaching[1].close()
            os.waitpid(self._attaching[0], 0)
        handover.detach(self._probes)
        for program in self._programs:
            os.close(program)
        self._probes, self._programs = [], []

    def _tell_negotiated(self) -> None:
        """A device can be bound, or plugged in, while its driver is traced. What is bound no longer
        is not told: it has been removed, which is traced, and has negotiated nothing new."""
        now = balloon.negotiated(self._negotiated[0])
        if not now[1]:
            now = balloon.negotiated(balloon.device())
        if now[1] and now != self._negotiated:
            self._negotiated = now
            described = balloon.describe()
            described["driver"] = self._content["balloon"]["driver"]  # with its functions
            self._content = {**self._content, "balloon": described}
            self._tell("negotiated", {"balloon": described})

    def _driver_gone(self, now: int) -> None:
        """Where the next one is there already, it may have moved pages before this reading."""
        after = balloon_counters()
        before = self.counters if now else after
        self._missed_before = self.kernel_missed()
        self.detach()
        self._control.enter_phase("attaching")
        self._traced = 0
        self._tell("gone", {"vmstat": {"before": before, "after": after}})

    def _attach(self) -> handover.Handover:
        from balloontrace.tracers.load import loader

        return loader.attach_again(self._code[0], self._maps, self._content, self._options)

    def _receive(self, child: int, channel: socket, identity: int) -> None:
        """Take over from the child, if it has done its work."""
        if not select.select([channel], [], [], 0)[0]:
            return
        self._attaching = None
        try:
            given = handover.receive(channel)
            if not given.content["driver_identity"]:  # it went while the probes were attached
                return
            self._probes, self._programs = given.probes, given.programs
            self._traced, self._untraced = given.content["driver_identity"], 0
            self._content = {**self._content, **given.content}
            self._negotiated = balloon.negotiated(balloon.device())
            begun = self.begin()
        except UserError as error:
            self.detach()
            self._traced, self._untraced, self._tries_again = 0, identity, False
            self._cannot_be_traced(error, child)
            return
        finally:
            channel.close()
            os.waitpid(child, 0)
        self._tell("attached", {**given.content, **begun})

    def _cannot_be_traced(self, error: UserError, loader: int) -> None:
        self._why = {"why": str(error), "loader": loader}
        self._tell("untraceable", self._why)

    def _tell(self, state: str, content: dict[str, Any]) -> None:
        self._take({"t_ns": time.monotonic_ns(), "driver": {"state": state, **content}})
