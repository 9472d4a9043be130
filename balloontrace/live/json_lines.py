# SPDX-License-Identifier: Apache-2.0
"""A view as one JSON object. Its keys are declared once: docs/live.md lists them."""

from __future__ import annotations

import json
from dataclasses import asdict, fields
from typing import Any, Callable, Optional

from balloontrace.escape import plain
from balloontrace.live import view as shown
from balloontrace.live.view import View

_FIELDS: tuple[tuple[str, str, Callable[[View], Any]], ...] = (
    ("host", "name of the guest", lambda v: v.guest.hostname),
    ("kernel", "its release", lambda v: v.guest.kernel),
    ("memory_bytes", "RAM, as the header says", lambda v: v.guest.memory_bytes),
    ("behaviour", "how its driver gives memory back", lambda v: v.guest.behaviour),
    ("t_ns", "CLOCK_MONOTONIC of the guest", lambda v: v.t_ns),
    ("seconds", "since attach", lambda v: v.seconds),
    ("wall_ns", "the guest's clock, ns since 1970", lambda v: v.wall_ns),
    ("state", "`tracing`, `silent`, `ended` or `closed`", lambda v: v.stream.state),
    ("said", "the same in words", lambda v: v.stream.said),
    ("driver", "`attached`, `gone`, `absent`, `untraceable`", lambda v: v.driver),
    ("size_pages", "in the balloon", lambda v: v.size_pages),
    ("target_pages", "what the host wants", lambda v: v.target_pages),
    ("share_of_ram", "of the size, 0 to 1", lambda v: v.share_of_ram),
    ("in_per_s", "pages into the balloon in this second", lambda v: v.last_second.inflated),
    ("out_per_s", "pages out of it, by cause", lambda v: v.last_second.deflated),
    ("minute_in_per_s", "the mean of the last minute", lambda v: v.last_minute.inflated),
    ("minute_out_per_s", "the same, by cause", lambda v: v.last_minute.deflated),
    ("inflated_pages", "since the begin", lambda v: v.progress.inflated_pages),
    ("deflated_pages", "since the begin", lambda v: v.progress.deflated_pages),
    ("by_cause", "of `deflated_pages`", lambda v: v.progress.by_cause),
    ("churn_ratio", "since the begin (metrics.md)", lambda v: v.progress.churn_ratio),
    ("minute_churn_ratio", "of the last minute", lambda v: v.progress.now_churn_ratio),
    ("amplification", "of the episode under way", lambda v: v.progress.amplification),
    ("no_progress_s", "up to now, on the way to a target", lambda v: v.progress.no_progress_s),
    ("longest_no_progress_s", "up to now", lambda v: v.progress.longest_no_progress_s),
    ("tasks", "who gave pages back by reclaim or in an OOM, most first", lambda v: _all(v.tasks)),
    ("calls", "of the last minute, by kind", lambda v: _all(v.calls)),
    ("acks", "of the last minute, by queue", lambda v: _all(v.acks)),
    ("memory", "bytes, of the last sample", lambda v: asdict(v.memory)),
    ("pressure", "share of time (PSI of memory), 0 to 1", lambda v: asdict(v.pressure)),
    ("findings", "that fire, or have fired", lambda v: _all(v.findings)),
    ("host_side", "what the host says; null: not given, or not known", lambda v: _host(v.host)),
    ("losses", "what is missing", lambda v: asdict(v.losses)),
    ("agrees", "whether /proc/vmstat counts the same", lambda v: v.agreement.agrees),
    ("agreement", "the same in words", lambda v: v.agreement.sentence),
    ("events_per_s", "of the stream", lambda v: v.stream.events_per_s),
    ("bytes_per_s", "of the stream", lambda v: v.stream.bytes_per_s),
    ("events", "since the begin", lambda v: v.stream.events),
    ("bytes", "since the begin", lambda v: v.stream.bytes),
)
"""Key, what it is, and where it is from. null: not known."""


def line(view: View) -> str:
    """The object, without a newline. Text of the guest is escaped."""
    content = {key: plain(value(view)) for key, _, value in _FIELDS}
    return json.dumps(content, separators=(",", ":"), allow_nan=False)


def markdown() -> str:
    """The table of docs/live.md."""
    rows = [f"| `{key}` | {meaning}{_parts(key)} |" for key, meaning, _ in _FIELDS]
    return "\n".join(["| key | meaning |", "|---|---|", *rows, ""])


_PARTS = {
    "tasks": shown.Task,
    "calls": shown.Calls,
    "acks": shown.Acks,
    "memory": shown.Memory,
    "pressure": shown.Pressure,
    "findings": shown.Fired,
    "host_side": shown.Host,
    "losses": shown.Losses,
}
"""Key -> what its object, or each of its objects, has."""


def _parts(key: str) -> str:
    """What is in an object, for the table."""
    if key not in _PARTS:
        return ""
    return f": {', '.join(f'`{field.name}`' for field in fields(_PARTS[key]))}"


def _host(host: Optional[shown.Host]) -> Optional[dict[str, Any]]:
    return None if host is None else asdict(host)


def _all(rows: tuple[Any, ...]) -> list[dict[str, Any]]:
    return [asdict(row) for row in rows]
