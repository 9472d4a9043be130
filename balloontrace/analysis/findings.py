"""Known pathologies, recognised from results: each with its evidence and a remedy.

A finding sees the results of the analyses only. A new one is a subclass of `Finding`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from balloontrace.analysis.base import Result
from balloontrace.analysis.causes import actor_name

Results = Mapping[str, Result]


@dataclass(frozen=True)
class Evidence:
    """What shows a finding: the numbers, and the same in one sentence."""

    numbers: dict[str, Any]
    summary: str


class Finding(ABC):
    """One pathology. Subclasses register themselves.

    needs: results without which it cannot be looked for.
    """

    id: ClassVar[str]
    severity: ClassVar[str]
    title: ClassVar[str]
    remedy: ClassVar[str]
    needs: ClassVar[tuple[str, ...]]
    registered: ClassVar[dict[str, type[Finding]]] = {}

    def __init_subclass__(cls) -> None:
        Finding.registered[cls.id] = cls

    @abstractmethod
    def check(self, results: Results) -> Evidence | None:
        """The evidence, or None if the recording does not show this pathology."""


class BusyNoOp(Finding):
    """The shrinker deflates what inflation just took (Linux 4.19 to 5.6)."""

    id = "busy-no-op"
    severity = "high"
    title = "Busy no-op: reclaim takes back what inflation just took"
    remedy = (
        'Run a guest kernel with Linux commit da10329cb057 ("virtio-balloon: switch back to OOM '
        'handler for VIRTIO_BALLOON_F_DEFLATE_ON_OOM", 5.7 and later), or turn deflate-on-oom off '
        "in the hypervisor (QEMU: -device virtio-balloon-pci,deflate-on-oom=off)."
    )
    needs = ("episodes", "causes")

    RECLAIMED_SHARE = 0.25
    """Of the pages an episode inflated, reclaim took back at least this share: inflation did a
    third more work than was asked. The founding experiment shows 0.8 to 0.9, a driver without a
    balloon shrinker 0."""

    RECLAIMED_PAGES = 2560
    """And at least ten chunks of 256 (10 MiB): a few chunks in a short recording show nothing."""

    def check(self, results: Results) -> Evidence | None:
        """Look at each inflate episode; the evidence is the worst one's."""
        hit = [
            (number, row)
            for number, row in enumerate(results["episodes"].tables["episodes"], start=1)
            if row["direction"] == "inflate"
            and row["reclaimed_pages"] >= self.RECLAIMED_PAGES
            and row["reclaimed_pages"] >= self.RECLAIMED_SHARE * row["inflated_pages"]
        ]
        if not hit:
            return None
        number, worst = max(hit, key=lambda pair: int(pair[1]["reclaimed_pages"]))
        keys = ("inflated_pages", "reclaimed_pages", "asked_pages", "start_s", "end_s", "outcome")
        numbers = {
            "episode": number,
            "episodes": len(hit),
            **{key: worst[key] for key in keys},
            "gained_pages": worst["end_pages"] - worst["start_pages"],
            "reclaimed_share": worst["reclaimed_pages"] / worst["inflated_pages"],
            "longest_no_progress_s": worst["longest_no_progress_s"],
            "reclaimed_by": _reclaimers(results["causes"]),
        }
        return Evidence(numbers, _sentence(numbers))


def _reclaimers(causes: Result) -> list[dict[str, Any]]:
    """Who made the shrinker work, over the whole recording, most pages first."""
    rows = [row for row in causes.tables["causes"] if row["cause"] == "shrinker"]
    total = sum(row["pages"] for row in rows)
    return [
        {"actor": actor_name(row), "pages": row["pages"], "share": row["pages"] / total}
        for row in rows
        if row["pages"]
    ]


def _sentence(numbers: dict[str, Any]) -> str:
    """The evidence of a busy no-op in words."""
    by = ", ".join(
        f"{who['actor']} {who['share'] * 100:.0f} %" for who in numbers["reclaimed_by"][:3]
    )
    return (
        f"Episode {numbers['episode']}, {numbers['start_s']:.1f} s to {numbers['end_s']:.1f} s: "
        f"asked to grow by {numbers['asked_pages']:,} pages, the balloon took in "
        f"{numbers['inflated_pages']:,} and grew by {numbers['gained_pages']:,}; "
        f"reclaim took back {numbers['reclaimed_pages']:,} "
        f"({numbers['reclaimed_share'] * 100:.0f} % of what went in). "
        f"Longest time without progress {numbers['longest_no_progress_s']:.1f} s. "
        f"Reclaim was done by: {by}."
    )


def check_all(results: Results) -> Result:
    """All findings of `results`, and which could be looked for at all.

    scalars: `checked`, ids; `unchecked`, id -> names of the results that were missing.
    """
    rows: list[dict[str, Any]] = []
    checked: list[str] = []
    unchecked: dict[str, list[str]] = {}
    for finding in Finding.registered.values():
        lacking = [name for name in finding.needs if results[name].missing]
        if lacking:
            unchecked[finding.id] = lacking
            continue
        checked.append(finding.id)
        evidence = finding().check(results)
        if evidence is not None:
            rows.append(_row(finding, evidence))
    return Result("findings", {"checked": checked, "unchecked": unchecked}, {"findings": rows})


def _row(finding: type[Finding], evidence: Evidence) -> dict[str, Any]:
    """One finding as the JSON contract has it; `summary` is the evidence in words."""
    return {
        "id": finding.id,
        "severity": finding.severity,
        "title": finding.title,
        "evidence": evidence.numbers,
        "summary": evidence.summary,
        "remedy": finding.remedy,
    }
