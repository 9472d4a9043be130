# SPDX-License-Identifier: Apache-2.0
"""A free page report that the host does not answer."""

from __future__ import annotations

from typing import Any

from balloontrace.analysis.findings.base import Evidence, Finding, Results
from balloontrace.events import BALLOON_PAGE_BYTES


class ReportingStuck(Finding):
    """The guest waits for its host to take a report, and reports nothing meanwhile."""

    id = "reporting-stuck"
    severity = "high"
    title = "Free page reporting is stuck: the host does not answer a report"
    remedy = (
        "Turn free page reporting off until the host answers (QEMU: free-page-reporting=off; "
        "libvirt: freePageReporting='off'; KubeVirt: the annotation "
        'kubevirt.io/free-page-reporting-disabled: "true"), then look at the device: does it serve '
        "its reporting queue, under the number that the guest gives it, and does its interrupt "
        "arrive? On s390x: a guest kernel with Linux commit 2ccd42b959aa (\"s390/virtio_ccw: Don't "
        'allocate/assign airqs for non-existing queues"). Until the answer comes the blocks of the '
        "report are out of the guest's reach, nothing else is reported, and unloading the driver "
        "or suspending the guest waits as well."
    )
    needs = ("free_pages.reporting.calls",)
    possible = "free_pages.reporting_offered"

    OPEN_S = 5.0
    """Open for so long at the end. A report takes milliseconds: up to 22 ms in guests without
    hardware virtualisation. On a machine with four times the work it can do, a host answered
    after 0.6 s."""

    LATE_S = 10.0
    """Answered only after so long. The hung-task detector speaks after 120 s."""

    def check(self, results: Results) -> Evidence | None:
        """Look at what had not returned at the end, and at the longest that had."""
        facts = results["free_pages"].scalars["reporting"]
        keys = ("calls", "pages", "open", "open_at_s", "open_s", "open_pages", "longest_s",
                "longest_at_s")  # fmt: skip
        numbers = {key: facts[key] for key in keys}
        if (facts["open_s"] or 0) >= self.OPEN_S:
            return Evidence(numbers, _still_open(numbers), "high", _SEEN)
        if (facts["longest_s"] or 0) >= self.LATE_S:
            return Evidence(numbers, _answered_late(numbers), "medium", _STOPPED)
        return None


_SEEN = "the report was seen to begin, and not to return until the recording ended"
_STOPPED = "the wait was seen, but a guest that was stopped meanwhile would show the same"


def _still_open(numbers: dict[str, Any]) -> str:
    """The evidence in words."""
    held = numbers["open_pages"]
    size = "of a number of pages that was not seen"
    if held is not None:
        size = f"of {held:,} pages ({held * BALLOON_PAGE_BYTES / 2**20:,.0f} MiB)"
    before = numbers["calls"] - numbers["open"]
    others = f"{before:,} others were answered" if before else "no other was answered"
    return (
        f"A report {size} that began at {numbers['open_at_s']:.1f} s had no answer when the "
        f"recording ended, {numbers['open_s']:.1f} s later; {others}."
    )


def _answered_late(numbers: dict[str, Any]) -> str:
    """The same of a report that was answered in the end."""
    return (
        f"A report that began at {numbers['longest_at_s']:.1f} s was answered after "
        f"{numbers['longest_s']:.1f} s, the longest of {numbers['calls']:,}."
    )
