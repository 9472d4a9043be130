"""What the recording says about the guest, and which way of giving memory back its driver has."""

from __future__ import annotations

from typing import Any

import numpy as np

from balloontrace.analysis.base import Analysis, Result
from balloontrace.analysis.causes import by_reclaim
from balloontrace.analysis.sizes import size_curve
from balloontrace.analysis.trace import Trace, known_pages, section


class Guest(Analysis):
    """Facts of the guest from the header, and the driver's behaviour by observation."""

    name = "guest"
    optional = ("count", "leak", "oom_notify")

    def run(self, trace: Trace) -> Result:
        """Sizes in bytes; what the header does not say is None."""
        guest, balloon = section(trace.header, "guest"), section(trace.header, "balloon")
        scalars: dict[str, Any] = {
            key: guest.get(key)
            for key in ("kernel", "machine", "page_size", "memory_bytes", "cpus", "hostname")
        }
        scalars["features"] = list(balloon.get("features") or [])
        scalars["driver_behaviour"], why = _behaviour(trace, balloon)
        scalars["driver_behaviour_because"] = why
        scalars["device"] = balloon.get("device")
        driver = section(balloon, "driver")
        scalars["driver"] = {key: driver.get(key) for key in ("version", "srcversion", "taint")}
        return Result(self.name, scalars)


def _behaviour(trace: Trace, balloon: dict[str, Any]) -> tuple[str, str]:
    """How this driver gives memory back when the guest needs it, and what shows it.

    What was seen counts more than what the symbols promise. A driver that has no OOM notifier
    but a shrinker is that of 4.19 to 5.6 (Linux commits 71994620bb25 and da10329cb057); the
    shrinker's symbols alone prove nothing, stock drivers have them for free page hinting.
    """
    features = balloon.get("features") or []
    symbols = section(balloon, "driver").get("symbols") or []
    if by_reclaim(trace, trace.events("leak")).any():
        return "shrinker", "reclaim deflated the balloon"
    # With free page hinting a stock driver's shrinker offers the hinted blocks.
    if "free_page_hint" not in features and _offered_balloon(trace):
        return "shrinker", "the shrinker offered reclaim the balloon's pages"
    if "deflate_on_oom" in features:
        if "virtio_balloon_oom_notify" in symbols:
            return "oom-notifier", "deflate_on_oom negotiated, the driver has an OOM notifier"
        if "virtio_balloon_shrinker_scan" in symbols:
            return "shrinker", "deflate_on_oom negotiated, a shrinker and no OOM notifier"
    return "none", "nothing gives pages back but the host"


def _offered_balloon(trace: Trace) -> bool:
    """Whether the shrinker offered pages while there were pages in the balloon."""
    counts = trace.events("count")
    offers = counts["end_ns"][known_pages(counts) > 0].to_numpy()
    curve = size_curve(trace) if len(offers) else None
    if curve is None:
        return False
    sizes = np.concatenate(([curve.base], curve.size))
    return bool((sizes[np.searchsorted(curve.time_ns, offers, side="right")] > 0).any())
