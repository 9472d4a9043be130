# SPDX-License-Identifier: Apache-2.0
"""The words that the BPF programs and we share, and the proof that probes fire."""

from __future__ import annotations

import os

from balloontrace.errors import EXIT_UNSUPPORTED, UserError
from balloontrace.tracers.attach import state
from balloontrace.tracers.attach.switches import REMEDIES
from balloontrace.tracers.machine.system_calls import map_array

PROOF_FILE = "/proc/vmstat"
"""Reading it calls vmstat_start (mm/vmstat.c), which nothing can inline: it is called through a
table of functions."""


class Control:
    """The map `control` of bpf/balloon.c, mapped. Words by their names in state.CONTROL."""

    def __init__(self, fd: int) -> None:
        """Raises OSError."""
        self._map = map_array(fd, state.CONTROL_BYTES)
        # Items of a cast memoryview are single 8-byte loads and stores, as the programs need.
        self._words = memoryview(self._map).cast("Q")

    def __getitem__(self, word: str) -> int:
        return self._words[state.number_of_control(word)]

    def __setitem__(self, word: str, value: int) -> None:
        self._words[state.number_of_control(word)] = value

    def enter_phase(self, name: str) -> None:
        """From now on the programs are in this of state.PHASES."""
        self["phase"] = state.PHASES.index(name)

    def prove(self) -> int:
        """Call what the proof's probes are attached to, and see whether they fired.

        Returns this process's id as the programs see it, which is not ours in a PID namespace.
        Raises UserError if they did not fire.
        """
        self["prover"] = os.getpid()
        entered, returned = self["proof_entered"], self["proof_returned"]
        with open(PROOF_FILE, "rb") as file:
            file.read(1)
        if self["proof_entered"] > entered and self["proof_returned"] > returned:
            return self["proof_task"] >> 32
        raise UserError(
            f"kernel {os.uname().release} attaches probes, but they do not fire",
            f"are kprobes or ftrace switched off? {' or '.join(REMEDIES)}",
            EXIT_UNSUPPORTED,
        )
