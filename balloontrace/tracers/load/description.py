# SPDX-License-Identifier: Apache-2.0
"""What the header of any recording says: who wrote it, on what, and how its events are laid out."""

from __future__ import annotations

from typing import Any

from balloontrace import __version__, events
from balloontrace.errors import UserError
from balloontrace.tracers.attach import attaching
from balloontrace.tracers.attach.kernel import Kernel
from balloontrace.tracers.attach.seams import SEAMS
from balloontrace.tracers.machine import guest

UNTRACED = "record --counters traces nothing"


def of_recording(recorder: int) -> dict[str, Any]:
    """Tool, guest, and layout of the events. recorder: its process id."""
    return {
        "tool": f"balloontrace {__version__}",
        **guest.describe(recorder),
        "record": events.record_layout(),
        "ring_header_bytes": events.RING_HEADER_BYTES,
        "kinds": {kind.name: kind.number for kind in events.KINDS},
        "within": {bit.name: bit.number for bit in events.WITHIN},
        "queues": {bit.name: bit.number for bit in events.QUEUES},
        "flags": {bit.name: bit.number for bit in events.FLAGS},
    }


def of_counters(recorder: int) -> dict[str, Any]:
    """The same of a recording without events, and the balloon: no seam is attached. Takes no
    privilege."""
    seams = {
        seam.name: {**attaching.NO_RUNG, "not": [UNTRACED], "feature": seam.feature}
        for seam in SEAMS
    }
    described = attaching.nothing().described
    try:
        described = {**described, **attaching.driver(Kernel())}
    except UserError:  # a kernel without kallsyms: the driver's functions are not known
        pass
    return {**of_recording(recorder), **described, "seams": seams}
