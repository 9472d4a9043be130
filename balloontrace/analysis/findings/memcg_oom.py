# SPDX-License-Identifier: Apache-2.0
"""A memory cgroup's OOM kills although the balloon holds memory: it never deflates it."""

from __future__ import annotations

from typing import Any

from balloontrace.analysis.findings.base import Evidence, Finding, Results
from balloontrace.analysis.findings.guest_ram import most_ram
from balloontrace.thresholds import MEMCG_BALLOON_SHARE


class MemcgOom(Finding):
    """A container was OOM-killed while the balloon was inflated."""

    id = "memcg-oom"
    severity = "medium"
    title = "A container was OOM-killed beside an inflated balloon"
    remedy = (
        "Raise the container's limit (memory.max), or make it need less. deflate-on-oom cannot "
        "help it, nor does a lower target: the kernel asks the balloon only when the whole guest "
        "is out of memory, never when a memory cgroup is at its limit (out_of_memory, "
        "mm/oom_kill.c, skips the notifiers for it)."
    )
    blames_balloon = False
    needs = ("oom.killed",)

    def check(self, results: Results) -> Evidence | None:
        """Look at each victim."""
        memory = most_ram(results) or results["guest"].scalars["memory_bytes"] or 0
        least_pages = max(1, int(MEMCG_BALLOON_SHARE * memory / 4096))
        kills = [
            kill
            for kill in results["oom"].tables["kills"]
            if _of_a_memcg(kill, results) and (kill["balloon_pages"] or 0) >= least_pages
        ]
        if not kills:
            return None
        seen = [kill for kill in kills if kill["memcg"]]
        keys = ("at_s", "victim", "victim_pid", "balloon_pages")
        numbers = {
            "kills": len(kills),
            "start_s": kills[0]["at_s"],
            "end_s": kills[-1]["at_s"],
            "victims": [{key: kill[key] for key in keys} for kill in kills],
        }
        if seen:
            sure = "high", "the kernel's own mark of a memory cgroup's OOM was seen"
        else:
            sure = (
                "medium",
                "taken for a memory cgroup's OOM because nobody asked the balloon before, as the "
                "kernel does when the guest is out of memory; the mark itself was not recorded",
            )
        return Evidence(numbers, _sentence(numbers), *sure)


def _of_a_memcg(kill: dict[str, Any], results: Results) -> bool:
    """Whether a memory cgroup was out of memory.

    Where that mark was not recorded: if the notifier was, and did not run while it was asked for.
    Without deflate_on_oom nobody asks the balloon in any OOM, which then says nothing.
    """
    if kill["memcg"] is not None:
        return bool(kill["memcg"])
    if "deflate_on_oom" not in results["guest"].scalars["features"]:
        return False
    oom = results["oom"]
    if oom.scalars["notifier_calls"] is None:
        return False
    asked = (bout for bout in oom.tables["bouts"] if bout["start_s"] <= kill["at_s"])
    return not any(kill["at_s"] <= bout["end_s"] + ASKED_BEFORE_S for bout in asked)


ASKED_BEFORE_S = 1.0
"""From the notifier's return to the choice of a victim the kernel only looks at each task."""


def _sentence(numbers: dict[str, Any]) -> str:
    """The evidence in words; names are raw."""
    first = numbers["victims"][0]
    who = "a task" if first["victim"] is None else f"task {first['victim']}"
    more = numbers["kills"] - 1
    return (
        f"At {first['at_s']:.1f} s the OOM killer of a memory cgroup chose {who}"
        + ("" if first["victim_pid"] is None else f" (pid {first['victim_pid']})")
        + f" while the balloon held {first['balloon_pages']:,} pages "
        f"({first['balloon_pages'] * 4096 / 2**20:,.0f} MiB)"
        + (f", and {more:,} more until {numbers['end_s']:.1f} s" if more else "")
        + ". Such an OOM never asks the balloon."
    )
