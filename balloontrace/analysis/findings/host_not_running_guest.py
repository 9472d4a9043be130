# SPDX-License-Identifier: Apache-2.0
"""The guest stands still because the host does not run it."""

from __future__ import annotations

from typing import Any

from balloontrace.analysis.findings.base import Evidence, Finding, Results, said_s


class HostNotRunningGuest(Finding):
    """What looks like a slow driver is a guest without a CPU."""

    id = "host-not-running-guest"
    severity = "medium"
    title = "The host does not run the guest"
    remedy = (
        "Take the times in the guest's recording for the host's: see what else runs there (its "
        "CPUs, cgroup limits such as cpu.max of the machine's slice), and who stopped the guest "
        "(a snapshot, a migration, a debugger)."
    )
    needs = ("host_side.vcpus_ran_s", "host_side.vcpus_waited_s")
    blames_balloon = False
    of_both_sides = True

    STOPPED_S, UNANSWERED_S = 1.0, 3.0
    """A process that is stopped does not say so: it does not answer."""
    WAITED_S, WAITED_SHARE = 10.0, 0.5
    """Of the time in which its processors had something to run: in a host with twice as many busy
    threads as CPUs it is half."""

    def check(self, results: Results) -> Evidence | None:
        """Look at the time in which the guest was stopped, and in which its processors waited."""
        facts = results["host_side"].scalars
        ran, waited = facts["vcpus_ran_s"], facts["vcpus_waited_s"]
        stopped = facts["stopped_s"] or 0.0
        silent = facts["unanswered_s"] or 0.0
        starved = waited >= self.WAITED_S and waited > self.WAITED_SHARE * (ran + waited)
        is_silent = silent >= self.UNANSWERED_S
        if stopped < self.STOPPED_S and not starved and not is_silent:
            return None
        keys = ("vcpus_ran_s", "vcpus_waited_s", "stopped_s", "unanswered_s")
        numbers: dict[str, Any] = {key: facts[key] for key in keys}
        said = []
        if stopped >= self.STOPPED_S:
            said.append(f"the host had stopped the guest for {said_s(stopped)}")
        if starved:
            said.append(
                f"its processors wanted to run for {said_s(ran + waited)}, and waited "
                f"{said_s(waited)} of that for a CPU of the host"
            )
        told = bool(said)
        if is_silent and stopped < self.STOPPED_S:
            said.append(f"the hypervisor did not answer for {said_s(silent)}")
        sentence = "; ".join(said)
        sure = ("high", _TOLD) if told else ("medium", _SILENT)
        return Evidence(numbers, f"{sentence[0].upper()}{sentence[1:]}.", *sure)


_TOLD = "the host's scheduler and its hypervisor say so themselves"
_SILENT = "a hypervisor that does not answer may be busy, or not be run; it says neither"
