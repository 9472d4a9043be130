# SPDX-License-Identifier: Apache-2.0
"""What a dataset keeps of one recording: rows for its tables, from the same results as `report`."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable
from contextlib import suppress
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from balloontrace.analysis.findings import Finding
from balloontrace.analysis.questions.episodes import amplification
from balloontrace.analysis.report import Report, report_of
from balloontrace.analysis.trace.host_view import lay_beside
from balloontrace.analysis.trace.stretches import TOWARD
from balloontrace.analysis.trace.trace import Trace, read_trace, section
from balloontrace.errors import UserError
from balloontrace.escape import plain
from balloontrace.fleet.schema import EPISODE, EPISODES, FINDING, GUEST, TEXT_CHARS, Table
from balloontrace.recording.host_lines import named_as

Row = dict[str, Any]

_MOST = 2**63 - 1

_MOST_TEXTS = 256
"""Of a list of texts, at most."""

_OUTCOMES = ("reached", "settled", "superseded", "unfinished")


class Rows(NamedTuple):
    """What is kept of one recording, but for where it is from. Values are fit for the columns."""

    guest: Row
    episodes: list[Row]
    findings: list[Row]


def rows_of(path: str, written: date) -> Rows:
    """Read and analyse the recording at `path`, with the host's view beside it; written: when the
    file was, for the day of one that does not know its own. Raises UserError if it cannot be read.
    """
    trace = read_trace(path)
    if named := named_as(Path(path)):
        with suppress(UserError):  # of another guest, or damaged: what the guest says stands
            lay_beside(trace, str(named))
    report = report_of(trace)
    begin = _begin(report)
    day = begin.date() if begin else written
    episodes = _episodes(report)
    return Rows(
        fitted(GUEST, {"day": day, "begin_utc": begin, **_guest(trace, report, episodes)}),
        [fitted(EPISODE, {"day": day, **row}) for row in _worst(episodes)],
        [fitted(FINDING, {"day": day, **row}) for row in _findings(report)],
    )


def fitted(table: Table, row: Row) -> Row:
    """A row's values as its columns take them, for those that it has: text harmless and not too
    long, numbers that can be none of theirs null."""
    fits: dict[str, Callable[[Any], Any]] = {
        "string": _text,
        "int64": _whole,
        "double": _number,
        "list<string>": _texts,
    }
    return {
        name: fits[kind](value) if (kind := table[name].kind) in fits else value
        for name, value in row.items()
    }


def _text(value: Any) -> str | None:
    if value is None:
        return None
    text = str(plain(str(value)[: TEXT_CHARS + 1]))
    return text if len(text) <= TEXT_CHARS else f"{text[: TEXT_CHARS - 1]}…"


def _texts(values: Any) -> list[str | None]:
    return [_text(value) for value in list(values or [])[:_MOST_TEXTS]]


def _whole(value: Any) -> int | None:
    return int(value) if value is not None and -_MOST <= value <= _MOST else None


def _number(value: Any) -> float | None:
    return float(value) if value is not None and math.isfinite(value) else None


def _begin(report: Report) -> datetime | None:
    """When it began by the guest's clock."""
    said = report.recording.scalars["started_at"]
    return datetime.fromisoformat(said).astimezone(UTC) if said else None


def _hypervisor(trace: Trace) -> str | None:
    """As the host's side says."""
    return trace.host.lines.begin.get("hypervisor") if trace.host else None


def _guest(trace: Trace, report: Report, episodes: list[Row]) -> Row:
    """The row of `guest`."""
    results = report.results
    recording, guest, memory = (results[name].scalars for name in ("recording", "guest", "memory"))
    totals, reconciled = results["totals"].scalars, results["reconciliation"].scalars
    driver, found = guest.get("driver") or {}, results["findings"]
    counted = recording["counter_interval_s"] is not None
    return {
        "recorded_by": recording["tool"],
        "host_name": guest.get("hostname"),
        "boot_id": section(trace.header, "guest").get("boot_id"),
        **{key: guest.get(key) for key in ("kernel", "machine", "cpus", "driver_behaviour")},
        "hypervisor": _hypervisor(trace) or guest.get("dmi_vendor"),
        "driver_version": driver.get("srcversion") or driver.get("version"),
        "features": guest.get("features"),
        "means": "counters" if counted else recording["means"],
        **{key: recording[key] for key in ("duration_s", "lost_events", "complete")},
        **{key: totals.get(key) for key in ("inflated_pages", "deflated_pages", "migrated_pages")},
        **{key: totals.get(key) for key in ("churn_ratio", "round_trip_ratio")},
        **_of_episodes(episodes, known=not results["episodes"].missing),
        **_host_acks(trace),
        **{key: memory.get(key) for key in _OF_MEMORY},
        **{key: reconciled.get(key) for key in ("agrees", "sums_agree")},
        "is_balloon": results["verdict"].scalars["is_balloon"],
        "verdict": results["verdict"].scalars["sentence"],
        "findings": len(found.tables["findings"]),
        "checked": found.scalars["checked"],
    }


_OF_MEMORY = (
    *("ram_bytes", "oom_kills", "available_least_bytes"),
    *("psi_some_worst_share", "psi_full_worst_share", "size_most_pages", "size_most_share"),
)


def _host_acks(trace: Trace) -> Row:
    """How long the host took, of all queues; null if that was not recorded."""
    keys = ("host_acks", "host_ack_median_s", "host_ack_p99_s", "host_ack_longest_s")
    if trace.counter_interval_s is not None or not trace.recorded("ack"):
        return dict.fromkeys(keys)
    acks = trace.calls("ack")
    took_ns, is_open = np.asarray(acks["duration_ns"]), np.asarray(acks["open"])
    answered = np.sort(took_ns[~is_open])
    number = len(answered)
    if not len(took_ns):
        return dict.fromkeys(keys) | {"host_acks": 0}
    longest_s = int(took_ns.max()) / 1e9
    if not number:
        return dict.fromkeys(keys) | {"host_acks": 0, "host_ack_longest_s": longest_s}
    median_s = float(np.median(answered)) / 1e9
    p99_s = int(answered[-(-99 * number // 100) - 1]) / 1e9  # nearest rank, as in latencies.py
    return dict(zip(keys, (number, median_s, p99_s, longest_s), strict=True))


def _episodes(report: Report) -> list[Row]:
    """Those on the way to a target, with their numbers in the report."""
    rows = report.results["episodes"].tables.get("episodes") or []
    return [_episode(number, row) for number, row in enumerate(rows, 1) if row["kind"] == TOWARD]


def _episode(number: int, row: Row) -> Row:
    """The row of `episode`."""
    same = [column.name for column in EPISODE.columns if column.name in row]
    spans = row["no_progress"]
    longest_s = row["longest_no_progress_s"]
    still_s = None if longest_s is None else sum(one["end_s"] - one["start_s"] for one in spans)
    return {"number": number, **{key: row[key] for key in same}, "no_progress_s": still_s}


def _of_episodes(rows: list[Row], known: bool) -> Row:
    """What the guest's row says of all its episodes; known: whether there would be any."""
    sums = {"episodes": len(rows)} | {
        outcome: sum(row["outcome"] == outcome for row in rows) for outcome in _OUTCOMES
    }
    keys = ("amplification", "amplification_most", "no_progress_s", "longest_no_progress_s")
    if not known:
        return dict.fromkeys((*sums, *keys))
    return {
        **sums,
        "amplification": _amplification(rows),
        "amplification_most": max(
            (row["amplification"] for row in rows if row["amplification"] is not None),
            default=None,
        ),
        "no_progress_s": _all(sum, [row["no_progress_s"] for row in rows]),
        "longest_no_progress_s": _all(max, [row["longest_no_progress_s"] for row in rows]),
    }


def _all(of: Any, values: list[float | None]) -> float | None:
    """A sum or a maximum; None if one of them is not known. Of none it is 0."""
    if None in values:
        return None
    return float(of(values)) if values else 0.0


def _amplification(rows: list[Row]) -> float | None:
    """Pages moved toward the targets for each that was gained (metrics.md), of all episodes."""
    if any(row["events_missing"] for row in rows):
        return None
    moved = sum(
        row["inflated_pages" if row["direction"] == "inflate" else "deflated_pages"] for row in rows
    )
    return amplification(moved, sum(max(0, row["gained_pages"]) for row in rows))


def _worst(rows: list[Row]) -> list[Row]:
    """Not more than EPISODES of them, in order of time."""

    def badness(row: Row) -> tuple[float, float]:
        return row["longest_no_progress_s"] or 0.0, row["amplification"] or 0.0

    worst = sorted(rows, key=badness, reverse=True)[:EPISODES]
    return sorted(worst, key=lambda row: int(row["number"]))


def _findings(report: Report) -> Iterable[Row]:
    """Rows of `finding`."""
    for row in report.results["findings"].tables["findings"]:
        same = {key: row[key] for key in ("id", "severity", "certainty", "summary")}
        blames = Finding.registered[row["id"]].blames_balloon
        yield {**same, "blames_balloon": blames, "evidence": _evidence(row["evidence"])}


def _evidence(numbers: Row) -> str:
    """As JSON, complete in itself however long the lists in it are."""
    content = plain(numbers)
    text = json.dumps(content, allow_nan=False)
    if len(text) <= TEXT_CHARS:
        return text
    few = {k: v for k, v in content.items() if not isinstance(v, (list, dict))}
    few = {k: v for k, v in few.items() if not isinstance(v, str) or len(v) < 200}
    text = json.dumps(few, allow_nan=False)
    return text if len(text) <= TEXT_CHARS else "{}"
