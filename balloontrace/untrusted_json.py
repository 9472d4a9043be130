# SPDX-License-Identifier: Apache-2.0
"""What the JSON in a recording must look like to be used: a recording is untrusted input.

A shape is a predicate of a value; or a list of one shape, that of each item; or a dict of shapes by
key, where the key `...` stands for all that are not named (without it, these pass: readers ignore
what they do not know) and `int` for all that are numbers, when nothing else may be there; or a
tuple of shapes, one of which fits. Null stays where a tuple has None; elsewhere it is as if it were
not there.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    Shape = Callable[[Any], bool] | list[Any] | dict[Any, Any] | tuple[Any, ...]
else:  # Python 3.9, in guests, has no X | Y at run time
    Shape = Any

_LIMIT = 1 << 63
_DIGITS = 20


def whole(value: object) -> bool:
    """A number of nanoseconds, pages, calls: from 0 to what 63 bits hold."""
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < _LIMIT


def number(value: object) -> bool:
    """A finite number of either sign."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < _LIMIT


def text(value: object) -> bool:
    """A string. What is in it is as hostile as the guest."""
    return isinstance(value, str)


def flag(value: object) -> bool:
    """True or false."""
    return isinstance(value, bool)


def pair(value: object) -> bool:
    """A count and nanoseconds."""
    return isinstance(value, list) and len(value) == 2 and all(whole(item) for item in value)


_COUNTERS = {"before": {...: whole}, "after": {...: whole}}
_MAYBE = (text, None)
_DRIVER = {"version": _MAYBE, "srcversion": _MAYBE, "taint": _MAYBE, "symbols": [text]}
_BALLOON = {
    "device": _MAYBE,
    "features": [text],
    "driver": _DRIVER,
    "reporting_order": (whole, None),
}
_SEAM = {
    "rung": _MAYBE,
    "number": whole,
    "loses": text,
    "why": text,
    "not": [text],
    "feature": text,
}
_MEANS = {"used": _MAYBE, "not": [text]}

_SUMS = {...: {"calls": whole, "asked": whole, "done": whole, "ns": whole, "slots": [whole]}}
_COUNTED: dict[Any, Any] = {
    "counters": {...: {...: whole}},
    "sums": (_SUMS, None),
    "events": whole,
    "lost_events": whole,
    "returns_missed": whole,
    "suspended_ns": whole,
    "stolen_ns": whole,
}
"""What is counted from a recording's begin to its end, or from that of `watch`."""

_ATTACHED: dict[Any, Any] = {
    "seams": {...: _SEAM},
    "calls": {...: [text]},
    "means": _MEANS,
    "fill_from": text,
    "vmstat_attach": _COUNTERS,
    "balloon": _BALLOON,
    "driver_identity": whole,
}
"""How a driver was attached to: in the header, and whenever one came later."""

HEADER: Shape = {
    "format": whole,
    "tool": text,
    "guest": {
        "kernel": text,
        "machine": text,
        "hostname": text,
        "boot_id": text,
        "dmi_vendor": text,
        "page_size": whole,
        "memory_bytes": whole,
        "cpus": whole,
    },
    "clock": {"monotonic_ns": whole, "realtime_ns": whole},
    "tasks": {"recorder": whole, "netlink": whole, "loader": whole, "kswapd": [whole]},
    **_ATTACHED,
    "kinds": {...: whole},
    "within": {...: whole},
    "queues": {...: whole},
    "flags": {...: whole},
    "ring_bytes": whole,
    "possible_cpus": whole,
    "code": text,
    "from_cache": flag,
    "attached_ns": whole,
    "absent_samplers": [text],
    "marks": flag,
    "begun": _COUNTED,
    "underway": {...: whole},
    "watch": {"fired": [{"finding": text, "t_ns": whole}], "idle_interval_s": number},
}

SAMPLE: Shape = {
    "t_ns": whole,
    "vmstat": {...: whole},
    "meminfo": {...: whole},
    "psi": {...: {"some_us": whole, "full_us": whole}},
    "driver": {
        "state": text,
        "why": text,
        "vmstat": _COUNTERS,
        **_ATTACHED,
        "loader": whole,
    },
    "uevent": {...: text},
    "uevents": text,
    "delayacct": text,
    "since_boot": flag,
    "taskstats_version": whole,
    "delays": (text, {int: {"comm": text, "start_ns": whole, ...: pair}}),
    "why": text,
    "failed": {...: text},
    "mark": text,
    "cgroups": {int: text},
    "stats": {"answers": whole, "answered_ns": whole, "sent": [pair]},
}

TRAILER: Shape = {
    "reason": text,
    "ended_ns": whole,
    **_COUNTED,
    "vmstat_detach": _COUNTERS,
    "proof": {"begin": (flag, None), "end": (flag, None)},
    "kernel_missed": whole,
    "open_calls": whole,
    "left_out": whole,
    "recorder": {...: number},
    "marks": ({...: whole}, None),
    "command": ({"argv": [text], "status": (number, None)}, None),
}


class Fitting:
    """Makes values fit. dropped: the values that did not."""

    def __init__(self) -> None:
        self.dropped: list[Any] = []

    def fit(self, value: Any, shape: Shape) -> Any:
        """`value` without what does not fit in it; None if it does not fit itself."""
        if value is None:
            return None
        if isinstance(shape, tuple):
            shape = next((one for one in shape if isinstance(one, type(value))), shape[0])
        if isinstance(shape, dict) and isinstance(value, dict):
            return self._object(value, shape)
        if isinstance(shape, list) and isinstance(value, list):
            items = [self.fit(item, shape[0]) for item in value]
            return [item for item in items if item is not None]
        if callable(shape) and shape(value):
            return value
        self.dropped.append(value)
        return None

    def _object(self, value: dict[str, Any], shape: dict[Any, Any]) -> dict[str, Any]:
        others = shape.get(...)
        fitted = {}
        for key, item in value.items():
            if int in shape and not _numbers(key):
                self.dropped.append(key)
                continue
            wanted = shape.get(key, others) or shape.get(int)
            kept = item if wanted is None else self.fit(item, wanted)
            nullable = wanted is None or (isinstance(wanted, tuple) and None in wanted)
            if kept is not None or (item is None and nullable):
                fitted[key] = kept
        return fitted


def _numbers(key: str) -> bool:
    return key.isascii() and key.isdecimal() and len(key) < _DIGITS
