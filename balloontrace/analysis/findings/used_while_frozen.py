# SPDX-License-Identifier: Apache-2.0
"""The driver is used while it is frozen: its virtqueues are deleted."""

from __future__ import annotations

from typing import Any

from balloontrace.analysis.findings.base import Evidence, Finding, Results


class UsedWhileFrozen(Finding):
    """Somebody calls the driver between its freeze and its restore."""

    id = "used-while-frozen"
    severity = "high"
    title = "The driver was used while it was frozen: its virtqueues were deleted"
    remedy = (
        "Do not suspend or hibernate this guest, or take away before what still calls the driver: "
        "deflate to zero, and turn free page reporting off (QEMU: free-page-reporting=off). "
        "virtballoon_freeze deletes the virtqueues, and virtballoon_restore makes new ones; a call "
        "between the two uses freed memory, and can corrupt any of the guest's. Look for a kernel "
        "that stops these calls first, and report it with this recording "
        "(virtualization@lists.linux.dev) if there is none."
    )
    needs = ("driver", "driver.suspends_known")

    def check(self, results: Results) -> Evidence | None:
        """Look at each time in which the driver was frozen; the evidence is that of the one with
        the most calls."""
        rows = results["driver"].tables["frozen"]
        hit = [row for row in rows if row["calls"]]
        if not hit:
            return None
        worst = max(hit, key=lambda row: int(row["calls"]))
        numbers = {"times": len(hit), "suspends": len(rows), **worst}
        return Evidence(numbers, _sentence(numbers), "high", _CERTAIN)


_CERTAIN = "the freeze, these calls and the restore were each seen, on one clock"


def _sentence(numbers: dict[str, Any]) -> str:
    """The evidence in words; names are raw."""
    kinds = ", ".join(f"{calls:,} {kind}" for kind, calls in numbers["kinds"].items())
    until = "it was restored" if numbers["restored"] else "the recording ended"
    ago_s = numbers["first_s"] - numbers["start_s"]
    when = f"{ago_s:.3f} s later" if ago_s >= 0 else "begun before, and still under way"
    also = f" So it was in {numbers['times']:,} of {numbers['suspends']:,} suspends."
    return (
        f"The driver was frozen at {numbers['start_s']:.1f} s; until {until}, at "
        f"{numbers['end_s']:.1f} s, it was called {numbers['calls']:,} times ({kinds}), the first "
        f"time {when}, by task {numbers['first_by']}." + (also if numbers["suspends"] > 1 else "")
    )
