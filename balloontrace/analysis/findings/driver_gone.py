# SPDX-License-Identifier: Apache-2.0
"""The driver left the device: its pages went back, and nobody follows the host's target."""

from __future__ import annotations

from typing import Any

from balloontrace.analysis.base import Result
from balloontrace.analysis.findings.base import Evidence, Finding, Results
from balloontrace.thresholds import AWAY_S


class DriverGone(Finding):
    """The driver was unloaded or unbound."""

    id = "driver-gone"
    severity = "high"
    title = "The balloon's driver left: nobody follows the host's target"
    remedy = (
        "Load the driver again (modprobe virtio_balloon, or bind the device in "
        "/sys/bus/virtio/drivers/virtio_balloon) and find who removed it. As it leaves it gives "
        "all of its pages back (virtballoon_remove), so the host must be ready to lend them again; "
        "what the host asks for meanwhile takes effect when a driver comes."
    )
    needs = ("driver.returns_known",)

    def check(self, results: Results) -> Evidence | None:
        """Look at each time the driver left."""
        rows = _absences(results["driver"])
        hit = [row for row in rows if not row["back"] or row["away_s"] >= AWAY_S]
        if not hit:
            return None
        longest = max(hit, key=lambda row: float(row["away_s"]))
        numbers = {"times": len(hit), **longest}
        seen = longest["pages"] is not None
        return Evidence(
            numbers,
            _sentence(numbers),
            "high" if seen else "medium",
            "the driver's own remove was seen"
            if seen
            else "its remove was not recorded: the driver's functions were found to be gone",
        )


def _absences(driver: Result) -> list[dict[str, Any]]:
    """Each time the driver left: start_s, end_s (it came, or the recording ended), away_s, back,
    by, and the pages that it gave back as it left; the latter two None if its remove was not
    recorded."""
    calls, gaps = driver.tables["calls"], driver.tables["gaps"]
    removes = [row for row in calls if row["call"] == "remove"]
    seen = {row["end_s"] for row in removes}
    left = [(row["end_s"], row["back_s"], row["by"], row["pages"]) for row in removes]
    # A gap begins with the remove before it, if that was seen.
    left += [
        (gap["start_s"], gap["back_s"], None, None)
        for gap in gaps
        if gap["state"] == "gone" and gap["start_s"] not in seen
    ]
    ended = driver.scalars["end_s"]
    rows = []
    for start_s, back_s, by, pages in sorted(left, key=lambda one: float(one[0])):
        end_s = ended if back_s is None else back_s
        rows.append(
            {
                "start_s": start_s,
                "end_s": end_s,
                "away_s": end_s - start_s,
                "back": back_s is not None,
                "by": by,
                "pages": pages,
            }
        )
    return rows


def _sentence(numbers: dict[str, Any]) -> str:
    """The evidence in words; names are raw."""
    times = numbers["times"]
    by = f", removed by task {numbers['by']}" if numbers["by"] else ""
    back = (
        f"came back after {numbers['away_s']:.1f} s"
        if numbers["back"]
        else f"did not come back in the remaining {numbers['away_s']:.1f} s"
    )
    gave = (
        "what it gave back was not recorded"
        if numbers["pages"] is None
        else f"it gave back {numbers['pages']:,} pages ({numbers['pages'] * 4096 / 2**20:,.0f} MiB)"
    )
    return f"At {numbers['start_s']:.1f} s the driver left{by}: {gave}; it {back}." + (
        f" This was the longest of {times:,} times." if times > 1 else ""
    )
