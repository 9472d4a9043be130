# SPDX-License-Identifier: Apache-2.0
"""What the recording says about the guest, and which way of giving memory back its driver has."""

from __future__ import annotations

from typing import Any

import numpy as np

from balloontrace import driver_behaviour
from balloontrace.analysis.base import Question, Result, Section, why_no_driver
from balloontrace.analysis.fields import Field, Shape, Unit
from balloontrace.analysis.trace.balloon_size import size_curve
from balloontrace.analysis.trace.causes import by_reclaim
from balloontrace.analysis.trace.trace import Trace, known_pages, section

DRIVER_BUILD = (
    Field("version", Unit.TEXT),
    Field("srcversion", Unit.TEXT),
    Field("taint", Unit.TEXT),
)
"""Which build of the driver it is, as /sys/module tells it."""


class Guest(Question):
    """Facts of the guest from the header, and the driver's behaviour by observation."""

    section = Section(
        "guest",
        "Guest",
        10,
        "the guest, its balloon device and driver",
        (
            Field("kernel", Unit.TEXT),
            Field("machine", Unit.TEXT, "its architecture"),
            Field("page_size", Unit.BYTES),
            Field("memory_bytes", Unit.BYTES),
            Field("cpus", Unit.NUMBER),
            Field("hostname", Unit.TEXT),
            Field("dmi_vendor", Unit.TEXT, "who made the machine: a hypervisor, or who runs it"),
            Field("features", Unit.TEXT, "negotiated by the driver", shape=Shape.ARRAY),
            Field(
                "driver_behaviour",
                Unit.TEXT,
                "how the driver gives memory back; null: no driver was traced",
                words=tuple(driver_behaviour.DESCRIPTIONS),
            ),
            Field("driver_behaviour_because", Unit.TEXT, "what shows it"),
            Field("device", Unit.TEXT),
            Field("driver", DRIVER_BUILD, "which build of the driver"),
        ),
        head=True,
    )
    optional = ("count", "leak", "oom_notify")
    by_counters = True

    def run(self, trace: Trace) -> Result:
        """Sizes in bytes; what the header does not say is None."""
        trace = trace.entire  # what the driver does elsewhere, it can do here
        guest, balloon = section(trace.header, "guest"), trace.balloon
        scalars: dict[str, Any] = {
            key: guest.get(key)
            for key in ("kernel", "machine", "page_size", "memory_bytes", "cpus", "hostname")
        }
        scalars["dmi_vendor"] = guest.get("dmi_vendor") or None
        scalars["features"] = list(balloon.get("features") or [])
        scalars["driver_behaviour"], why = _behaviour(trace, balloon)
        scalars["driver_behaviour_because"] = why
        scalars["device"] = balloon.get("device")
        driver = section(balloon, "driver")
        scalars["driver"] = {key: driver.get(key) for key in ("version", "srcversion", "taint")}
        return Result(self.name, scalars)


def _behaviour(trace: Trace, balloon: dict[str, Any]) -> tuple[str | None, str]:
    """How this driver gives memory back when the guest needs it, and what shows it.

    What was seen counts more than what the symbols promise. None if no driver was attached to.
    """
    if no_driver := why_no_driver(trace):
        return None, no_driver
    features = balloon.get("features") or []
    symbols = section(balloon, "driver").get("symbols") or []
    if by_reclaim(trace, trace.calls("leak")).any():
        return "shrinker", "reclaim deflated the balloon"
    # With free page hinting a stock driver's shrinker offers the hinted blocks.
    if "free_page_hint" not in features and _offered_balloon(trace):
        return "shrinker", "the shrinker offered reclaim the balloon's pages"
    return driver_behaviour.promised(features, symbols)


def _offered_balloon(trace: Trace) -> bool:
    """Whether the shrinker offered pages while there were pages in the balloon."""
    counts = trace.calls("count")
    offers = counts["end_ns"][known_pages(counts) > 0]
    curve = size_curve(trace) if len(offers) else None
    if curve is None:
        return False
    sizes = np.concatenate(([curve.base], curve.size))
    return bool((sizes[np.searchsorted(curve.time_ns, offers, side="right")] > 0).any())
