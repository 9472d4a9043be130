# SPDX-License-Identifier: Apache-2.0
"""The guest's OOM killer kills while the host holds memory that the driver cannot give back."""

from __future__ import annotations

from typing import Any

from balloontrace.analysis.findings.base import Evidence, Finding, Results
from balloontrace.analysis.findings.guest_ram import ram_at
from balloontrace.events import BALLOON_PAGE_BYTES


class KilledBesideBalloon(Finding):
    """A kill of the guest's, not of a memory cgroup's, without deflate_on_oom."""

    id = "killed-beside-balloon"
    severity = "high"
    title = "The guest killed for lack of memory beside a balloon that cannot deflate for it"
    remedy = (
        "Offer deflate-on-oom (QEMU: deflate-on-oom=on; Firecracker: deflate_on_oom), so that the "
        "driver gives pages back before the OOM killer chooses a victim; the guest negotiates it "
        "when it boots. Or lower the target: leave the guest a reserve of MemAvailable."
    )
    needs = ("memory.oom_kills", "memory.ram_bytes")
    needs_of_counters = needs

    BALLOON_SHARE = 0.05
    """Of RAM. A smaller balloon would hardly have helped."""

    AVAILABLE_SHARE = 0.1
    """Of RAM, in MemAvailable shortly before: where the kernel's mark of a memory cgroup's OOM was
    not recorded, less than this says that the guest itself was out of memory."""

    def check(self, results: Results) -> Evidence | None:
        """Look at each victim; where no kill was traced, at those that the kernel counted."""
        oom = results["oom"]
        if oom.missing or oom.scalars["killed"] is None:
            return self.check_counters(results)
        counted = results["memory"].tables["kills"]
        kills = [
            {
                **{key: kill[key] for key in ("at_s", "victim", "victim_pid", "balloon_pages")},
                "available_bytes": _available(counted, kill["at_s"]),
                "marked": kill["memcg"] is False,
            }
            for kill in oom.tables["kills"]
            if not kill["memcg"]
        ]
        return self._shown_by(kills, results)

    def check_counters(self, results: Results) -> Evidence | None:
        """The same by `oom_kill` of /proc/vmstat alone."""
        kills = [
            {
                "at_s": row["end_s"],
                "victim": None,
                "victim_pid": None,
                "balloon_pages": row["balloon_pages"],
                "available_bytes": row["available_bytes"],
                "marked": False,
            }
            for row in results["memory"].tables["kills"]
        ]
        return self._shown_by(kills, results)

    def _shown_by(self, kills: list[dict[str, Any]], results: Results) -> Evidence | None:
        if "deflate_on_oom" in results["guest"].scalars["features"]:
            return None
        hit = [
            {**kill, "balloon_share": (kill["balloon_pages"] or 0) * BALLOON_PAGE_BYTES / ram}
            for kill in kills
            if (kill["balloon_pages"] or 0) * BALLOON_PAGE_BYTES
            >= self.BALLOON_SHARE * (ram := ram_at(results, kill["at_s"]))
            and (kill["marked"] or _little(kill["available_bytes"], self.AVAILABLE_SHARE * ram))
        ]
        if not hit:
            return None
        seen = all(kill["marked"] for kill in hit)
        numbers = {
            "kills": len(hit),
            "start_s": hit[0]["at_s"],
            "end_s": hit[-1]["at_s"],
            "ram_bytes": ram_at(results, hit[0]["at_s"]),
            "victims": [{key: kill[key] for key in _VICTIM} for kill in hit],
        }
        if seen:
            sure = "high", "the kernel did not mark the kill as that of a memory cgroup"
        else:
            sure = (
                "medium",
                "taken for the guest's OOM because hardly any memory was available; whether a "
                "memory cgroup's limit was the reason was not recorded",
            )
        return Evidence(numbers, _sentence(numbers), *sure)


_VICTIM = (
    *("at_s", "victim", "victim_pid", "balloon_pages", "balloon_share"),
    "available_bytes",
)


def _little(available: int | None, least: float) -> bool:
    return available is not None and available < least


def _available(counted: list[dict[str, Any]], at_s: float) -> int | None:
    """MemAvailable before the sample that counted a kill."""
    for row in counted:
        if row["start_s"] <= at_s <= row["end_s"]:
            available: int | None = row["available_bytes"]
            return available
    return None


def _sentence(numbers: dict[str, Any]) -> str:
    """The evidence in words; names are raw."""
    first = numbers["victims"][0]
    who = "a task" if first["victim"] is None else f"task {first['victim']}"
    pid = "" if first["victim_pid"] is None else f" (pid {first['victim_pid']})"
    available = first["available_bytes"]
    left = (
        ""
        if available is None
        else f" In the 5 s before MemAvailable fell to {available / 2**20:,.0f} MiB."
    )
    more = numbers["kills"] - 1
    return (
        f"At {first['at_s']:.1f} s the OOM killer chose {who}{pid} while the balloon held "
        f"{first['balloon_pages'] * BALLOON_PAGE_BYTES / 2**20:,.0f} MiB, "
        f"{first['balloon_share'] * 100:.0f} % of the guest's RAM of "
        f"{numbers['ram_bytes'] / 2**20:,.0f} MiB"
        + (f", and {more:,} more until {numbers['end_s']:.1f} s" if more else "")
        + f".{left} deflate_on_oom is not negotiated: nothing but the host gives pages back."
    )
