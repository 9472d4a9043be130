# SPDX-License-Identifier: Apache-2.0
"""The host asks the guest for its statistics, and the guest answers late or not at all."""

from __future__ import annotations

from typing import Any

from balloontrace.analysis.findings.base import Evidence, Finding, Results, said_s


class StatsStale(Finding):
    """What the host knows of the guest's memory is old, and it is the guest's doing."""

    id = "stats-stale"
    severity = "medium"
    title = "Old statistics: the guest does not answer its host in time"
    remedy = (
        "Let the host decide nothing by this guest's statistics meanwhile: they are as old as the "
        "last answer (QEMU: `last-update` of guest-stats; Firecracker and others keep the last "
        "values without a word). The answer is a work item on a freezable queue: see in the guest "
        "what kept it from running: a guest that is suspended or starves (the section Memory), or "
        "tasks that hang in the kernel (dmesg: blocked for more than 120 seconds)."
    )
    needs = ("statistics.asked", "statistics.answered")
    possible = "statistics.offered"
    blames_balloon = False

    LATE_S = 5.0
    """From the host's question to the guest's answer: QEMU's polling takes whole seconds, and an
    idle guest of the lab, which is emulated, answers within 0.05 s."""

    def check(self, results: Results) -> Evidence | None:
        """Look at the question without an answer, and at the latest answer."""
        numbers = results["statistics"].scalars
        waited_s = max(numbers["unanswered_s"] or 0.0, numbers["longest_answer_s"] or 0.0)
        if waited_s < self.LATE_S:
            return None
        because = "each question and each answer was traced, and time suspended is in neither"
        oldest_s = _oldest_s(results)
        evidence = numbers if oldest_s is None else {**numbers, "oldest_s": oldest_s}
        return Evidence(dict(evidence), _sentence(evidence), "high", because)


def _oldest_s(results: Results) -> float | None:
    """How old what the host knew became, if it told that; None too where it had stopped the guest,
    which does not answer then."""
    host = results["host_side"]
    if host.missing or host.scalars["stopped_s"]:
        return None
    oldest_s: float | None = host.scalars["statistics_oldest_s"]
    return oldest_s


def _sentence(numbers: dict[str, Any]) -> str:
    """The evidence in words."""
    unanswered, oldest_s = numbers["unanswered_s"], numbers.get("oldest_s")
    return (
        f"The host asked {numbers['asked']:,} times, the driver answered {numbers['answered']:,} "
        f"times, at the latest after {said_s(numbers['longest_answer_s'])}."
        + (f" The last {unanswered:.1f} s it waited for an answer." if unanswered else "")
        + ("" if oldest_s is None else f" What the host knew was up to {oldest_s:.1f} s old.")
    )
