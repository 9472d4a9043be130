# SPDX-License-Identifier: Apache-2.0
"""The host set a target, and the guest never heard of it."""

from __future__ import annotations

from typing import Any

from balloontrace.analysis.findings.base import Evidence, Finding, Results


class TargetNeverArrived(Finding):
    """Neither an interrupt nor a worker that reads it, though all of that was traced."""

    id = "target-never-arrived"
    severity = "high"
    title = "The guest never heard of a target that the host set"
    remedy = (
        "Where no driver was there: load virtio_balloon in the guest, or wait until it has come "
        "before a target counts. Where one was: look for the interrupt of the device's "
        "configuration (/proc/interrupts, virtioN-config), and whether the host talks to the "
        "device that this guest has."
    )
    needs = ("host_side.clock_error_s", "periods.targets_whole")
    blames_balloon = False
    of_both_sides = True

    WAIT_S = 5.0
    """So long after it was set the guest has heard of it, or it never will: in guests that are
    emulated, beside a storm of reclaim, interrupt and worker came within 1 s."""

    def check(self, results: Results) -> Evidence | None:
        """Look at each target with time enough behind it in the recording."""
        result = results["host_side"]
        if result.scalars["causal"] is False or result.scalars["stopped_s"]:
            return None
        end_s = results["recording"].scalars["duration_s"]
        rows = result.tables["targets"]
        ends_s = [*(row["set_s"] for row in rows[1:]), end_s]
        pairs = zip(rows, ends_s, strict=False)
        unheard = [row for row, until_s in pairs if self._never_arrived(row, until_s)]
        if not unheard:
            return None
        first = unheard[0]
        keys = ("target_pages", "set_s", "error_s", "driver_there")
        numbers = {
            "targets": len(unheard),
            "of_targets": len(rows),
            **{key: first[key] for key in keys},
        }
        return Evidence(numbers, _sentence(numbers), *_certainty(first["driver_there"]))

    def _never_arrived(self, row: dict[str, Any], until_s: float | None) -> bool:
        """until_s: when another target was set, or the recording ended; one that stood for a moment
        only may have been replaced before the worker came."""
        if row["set_s"] is None or until_s is None or until_s - row["set_s"] < self.WAIT_S:
            return False
        if not row["traced"]:
            return False
        return all(row[name] is None for name in ("noticed_s", "read_s", "reached_s", "told_s"))


def _certainty(driver_there: bool | None) -> tuple[str, str]:
    if driver_there is None:
        return "medium", "the driver came or went at about that time"
    return "high", "each interrupt and each target that the worker read was traced"


def _sentence(numbers: dict[str, Any]) -> str:
    there = {
        True: "a driver was there",
        False: "no driver was there",
        None: "the driver came or went then",
    }
    return (
        f"{numbers['targets']:,} of {numbers['of_targets']:,} targets; the first, of "
        f"{numbers['target_pages']:,} pages, was set at {numbers['set_s']:.1f} s (within "
        f"{numbers['error_s']:.3f} s): no interrupt and no reading of it followed, and "
        f"{there[numbers['driver_there']]}."
    )
