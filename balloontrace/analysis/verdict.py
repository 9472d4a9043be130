# SPDX-License-Identifier: Apache-2.0
"""Is it the balloon? One sentence that always answers, with the two numbers that decide it: how
much of RAM the balloon held, and how long tasks waited for memory."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from balloontrace.analysis.base import Result, Section, declared
from balloontrace.analysis.fields import Field, Shape, Unit
from balloontrace.analysis.findings.base import Finding
from balloontrace.events import BALLOON_PAGE_BYTES

HELD_SHARE = 0.05
"""Of RAM. A balloon that never held more is not why a guest lacks memory."""

SOME_SHARE, FULL_SHARE = 0.1, 0.05
"""Of the worst minute, in which some task, or all, waited for memory (PSI): less is what any guest
that works shows now and then, and an inflation that drops page cache."""

AVAILABLE_SHARE = 0.1
"""Of RAM. Where there is no PSI, a guest with more than that in MemAvailable does not lack memory.
"""

MOVED_SHARE = 0.01
"""Of RAM. A balloon that held and moved no more did nothing that could have been missed."""

SECTION = declared(
    Section(
        "verdict",
        "Verdict",
        4,
        "whether the balloon is what the guest suffers from",
        (
            Field("is_balloon", Unit.FLAG, "null: it cannot be told"),
            Field("sentence", Unit.TEXT, never_null=True),
            Field("because", Unit.TEXT, "what it follows from", shape=Shape.ARRAY),
        ),
        head=True,
    )
)


def verdict_of(results: Mapping[str, Result]) -> Result:
    """is_balloon; sentence, with both numbers; because: the findings that say so, or why not."""
    found = [
        row
        for row in results["findings"].tables["findings"]
        if Finding.registered[row["id"]].blames_balloon
    ]
    sure = [row for row in found if row["certainty"] != "low"]
    numbers = _numbers(results["memory"])
    lacks = _lacks_memory(results["memory"])
    if sure:
        ids = ", ".join(row["id"] for row in sure)
        though = f", though {_lack(lacks)}" if lacks is False else ""
        sentence = f"the balloon is the cause ({ids}){though}: {numbers}"
        return _result(True, sentence, _summaries(sure))
    doubts = _doubts(results)
    if found:
        ids = ", ".join(row["id"] for row in found)
        doubts = [f"{ids} is of low certainty", *doubts]
    held = results["memory"].scalars["size_most_share"]
    if held is None:
        doubts.append("how much of RAM the balloon held is not known")
    elif lacks is None and held >= HELD_SHARE:
        doubts.append("whether tasks waited for memory was not recorded (PSI)")
    elif lacks and held >= HELD_SHARE:
        doubts.append(
            "the guest lacked memory beside the balloon, and no known pathology shows why"
        )
    if doubts and (found or not _did_nothing(results)):
        return _result(None, f"cannot tell, because {'; '.join(doubts)}: {numbers}", doubts)
    because = [numbers] if lacks is None else [_lack(lacks), numbers]
    return _result(False, f"the balloon is not what this guest suffers from: {numbers}", because)


def _result(is_balloon: bool | None, sentence: str, because: list[str]) -> Result:
    scalars = {"is_balloon": is_balloon, "sentence": sentence, "because": because}
    return Result(SECTION.name, scalars)


def _summaries(rows: list[dict[str, Any]]) -> list[str]:
    return [row["summary"] for row in rows]


def _lack(lacks: bool) -> str:
    return "the guest lacked memory" if lacks else "the guest did not lack memory"


def _numbers(memory: Result) -> str:
    """The two numbers in words."""
    facts = memory.scalars
    share = facts["size_most_share"]
    held = (
        "what it held of RAM is not known"
        if share is None
        else f"it held at most {share * 100:.1f} % of RAM"
    )
    some, full = facts["psi_some_worst_share"], facts["psi_full_worst_share"]
    if some is not None and full is not None:
        return (
            f"{held}, and in the worst minute some task waited for memory {some * 100:.1f} % "
            f"of the time, all of them {full * 100:.1f} %"
        )
    least = facts["available_least_share"]
    if least is not None:
        return f"{held}, and at least {least * 100:.1f} % was available"
    return (
        f"{held}, nor how long tasks waited for memory"
        if share is None
        else (f"{held}; how long tasks waited for memory is not known")
    )


def _lacks_memory(memory: Result) -> bool | None:
    """Whether the guest was short of memory at any time; None: not known."""
    facts = memory.scalars
    if facts["oom_kills"]:
        return True
    some, full = facts["psi_some_worst_share"], facts["psi_full_worst_share"]
    if some is not None and full is not None:
        return bool(some >= SOME_SHARE or full >= FULL_SHARE)
    least = facts["available_least_share"]
    if least is not None and least >= AVAILABLE_SHARE:
        return False
    return None


def reservations(results: Mapping[str, Result]) -> list[str]:
    """What of the recording leaves room for what was not seen."""
    recording = results["recording"].scalars
    reconciled = results["reconciliation"].scalars
    agrees = reconciled["agrees"]
    reasons = {
        "the recording goes on": recording["underway"],
        "the recording is not whole": not recording["complete"] and not recording["underway"],
        "events were lost": bool(recording["lost_events"]),
        "its totals disagree with /proc/vmstat": agrees is False,
        "its totals could not be checked": agrees is None,
        "its events are not those that were summed up": reconciled["sums_agree"] is False,
        "nothing was traced": recording["counter_interval_s"] is not None,
    }
    return [text for text, applies in reasons.items() if applies]


def _doubts(results: Mapping[str, Result]) -> list[str]:
    """The same, and what could not be looked for of what would be the balloon's doing."""
    counted = results["recording"].scalars["counter_interval_s"] is not None
    blaming = [
        name
        for name in results["findings"].scalars["unchecked"]
        if Finding.registered[name].blames_balloon
    ]
    doubts = reservations(results)
    if blaming and not counted:
        doubts.append(f"{', '.join(blaming)} could not be looked for")
    return doubts


def _did_nothing(results: Mapping[str, Result]) -> bool:
    """Whether the balloon was all but empty, and all but still, by the kernel's own count, and the
    driver had nothing else to do."""
    memory, totals = results["memory"].scalars, results["totals"].scalars
    share, ram = memory["size_most_share"], memory["ram_bytes"]
    moved = [totals["inflated_pages"], totals["deflated_pages"]]
    agrees = results["reconciliation"].scalars["agrees"]
    if share is None or not ram or None in moved or not agrees:
        return False
    features = results["guest"].scalars["features"]
    if not results["recording"].scalars["complete"] or {"reporting", "free_page_hint"} & {
        *features
    }:
        return False
    return bool(share < MOVED_SHARE and max(moved) * BALLOON_PAGE_BYTES < MOVED_SHARE * ram)
