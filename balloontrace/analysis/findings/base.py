# SPDX-License-Identifier: Apache-2.0
"""What a finding is: a known pathology, shown by numbers, with a remedy.

A finding sees the results of the analyses only. A new one is one new module in this package with a
subclass of `Finding`; `check_all` finds it.
"""

from __future__ import annotations

import importlib
import pkgutil
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import balloontrace.analysis.findings
from balloontrace.analysis.base import Result, Section, declared
from balloontrace.analysis.fields import Field, Table, Unit, never_null
from balloontrace.analysis.trace.causes import actor_name
from balloontrace.events import BALLOON_PAGE_BYTES

Results = Mapping[str, Result]

SEVERITIES = ("high", "medium")
"""In the order in which findings are listed. high: the guest or the host does not get what the
balloon is for; medium: it does, late or at a cost."""

CERTAINTIES = ("high", "medium", "low")
"""high: each step from cause to effect is in the recording; medium: one step is inferred; low: the
numbers fit, but something that was not recorded could explain them as well."""


@dataclass(frozen=True)
class Evidence:
    """What shows a finding: the numbers, the same in one sentence, and how sure that is.

    certainty: one of CERTAINTIES; because: what makes it so, one sentence.
    """

    numbers: dict[str, Any]
    summary: str
    certainty: str
    because: str


def _tells(result: Result) -> bool:
    """Whether anything was found, or could not be looked for."""
    return bool(result.tables["findings"] or result.scalars["unchecked"])


FINDINGS = declared(
    Section(
        "findings",
        "Findings",
        5,
        "known pathologies that the recording shows, the most severe first",
        tables=(
            Table(
                "findings",
                never_null(
                    Field("id", Unit.TEXT),
                    Field("severity", Unit.TEXT, words=SEVERITIES),
                    Field("certainty", Unit.TEXT, words=CERTAINTIES),
                    Field("certainty_because", Unit.TEXT),
                    Field("title", Unit.TEXT),
                    Field("evidence", (), "the numbers, by finding (findings.md)"),
                    Field("summary", Unit.TEXT, "the same in words"),
                    Field("remedy", Unit.TEXT),
                ),
                "findings",
            ),
        ),
        first_screen=_tells,
    )
)


class Finding(ABC):
    """One pathology. Subclasses register themselves.

    needs: without which it cannot be looked for: names of results, or `result.scalar` for a scalar
    of one, `result.scalar.key` within that, which must be known;
    needs_of_counters: the same where nothing was traced (`record --counters`); empty: counters
    cannot show it;
    possible: `result.scalar` that is False where the guest's device or driver cannot have it; then
    nothing else is needed to say that there is none;
    blames_balloon: whether the balloon, its driver or its host is the cause;
    of_both_sides: whether it takes the host's view: without one nobody asked for it.
    """

    id: ClassVar[str]
    severity: ClassVar[str]
    title: ClassVar[str]
    remedy: ClassVar[str]
    needs: ClassVar[tuple[str, ...]]
    needs_of_counters: ClassVar[tuple[str, ...]] = ()
    possible: ClassVar[str] = ""
    blames_balloon: ClassVar[bool] = True
    of_both_sides: ClassVar[bool] = False
    registered: ClassVar[dict[str, type[Finding]]] = {}

    def __init_subclass__(cls) -> None:
        Finding.registered[cls.id] = cls

    @abstractmethod
    def check(self, results: Results) -> Evidence | None:
        """The evidence, or None if the recording does not show this pathology."""

    def check_counters(self, results: Results) -> Evidence | None:
        """The same by counters alone; called only if there are any `needs_of_counters`."""
        raise NotImplementedError


def every_finding() -> dict[str, type[Finding]]:
    """Id -> finding, of each module of this package."""
    for module in pkgutil.iter_modules(balloontrace.analysis.findings.__path__):
        importlib.import_module(f"balloontrace.analysis.findings.{module.name}")
    return Finding.registered


def check_all(results: Results) -> Result:
    """All findings of `results`, the most severe first, and which could be looked for at all.

    scalars: `checked`, ids; `unchecked`, id -> what of `needs` was missing.
    """
    rows: list[dict[str, Any]] = []
    checked: list[str] = []
    unchecked: dict[str, list[str]] = {}
    counted = results["recording"].scalars["counter_interval_s"] is not None
    one_side = bool(results["host_side"].missing)
    for name, finding in sorted(every_finding().items()):
        if finding.of_both_sides and one_side:
            continue
        if finding.possible and _value(results, finding.possible) is False:
            checked.append(name)
            continue
        needs = finding.needs_of_counters if counted else finding.needs
        lacking = [need for need in needs if not known(results, need)]
        if counted and not needs:
            lacking = ["events"]
        if lacking:
            unchecked[name] = lacking
            continue
        checked.append(name)
        evidence = (finding().check_counters if counted else finding().check)(results)
        if evidence is not None:
            rows.append(_row(finding, evidence))
    rows.sort(key=lambda row: SEVERITIES.index(row["severity"]))
    return Result(FINDINGS.name, {"checked": checked, "unchecked": unchecked}, {"findings": rows})


def known(results: Results, need: str) -> bool:
    """Whether what `need` names (see Finding) was recorded."""
    name, *path = need.split(".")
    if results[name].missing:
        return False
    return not path or _value(results, need) is not None


def _value(results: Results, path: str) -> Any:
    """A scalar of a result, or a value within it; None if that is not known."""
    name, *keys = path.split(".")
    value: Any = results[name].scalars
    for key in keys:
        value = value.get(key)
        if value is None:
            return None
    return value


def needers(causes: Result, cause: str) -> list[dict[str, Any]]:
    """For whom a cause took pages, over the whole recording, most pages first: actor, pages,
    share."""
    rows = [row for row in causes.tables["causes"] if row["cause"] == cause and row["pages"]]
    total = sum(row["pages"] for row in rows)
    return [
        {"actor": actor_name(row), "pages": row["pages"], "share": row["pages"] / total}
        for row in rows
    ]


def inflations_of(results: Results) -> list[tuple[int, dict[str, Any]]]:
    """The inflate episodes, each with its number among all."""
    rows = results["episodes"].tables["episodes"]
    return [(number, row) for number, row in enumerate(rows, 1) if row["direction"] == "inflate"]


def said_needers(rows: list[dict[str, Any]]) -> str:
    """The first of `needers` in words; names are raw."""
    return ", ".join(f"{who['actor']} {who['share'] * 100:.0f} %" for who in rows[:3])


def in_how_many(hit: int, of: int, episodes: str, targets: int = 0) -> str:
    """For how many a finding holds, before what is said of the worst one; empty if there was but
    one, or if that had been reached.

    hit, of: so many of all; episodes: what they are, in the plural; targets: under so many that had
    been reached it holds as well.
    """
    if of + targets <= 1 or (targets == 1 and not hit):
        return ""
    said = [f"in {hit:,} of {of:,} {episodes}"] * bool(hit)
    said += [f"under {targets:,} targets that had been reached"] * (targets > 1)
    said += ["under a target that had been reached"] * (targets == 1)
    words = " and ".join(said)
    return f"{words[0].upper()}{words[1:]}" + ("; the worst: " if hit + targets > 1 else ": ")


def pages_of_page(results: Results) -> int:
    """Balloon pages in one page of the guest's kernel."""
    page_size = results["guest"].scalars["page_size"] or BALLOON_PAGE_BYTES
    return max(1, int(page_size) // BALLOON_PAGE_BYTES)


def said_waits(some: float | None, full: float | None) -> str:
    """The shares of the time that PSI tells of memory, in words; None: not recorded."""
    if some is None or full is None:
        return "how long tasks waited for memory was not recorded"
    return (
        f"for {some * 100:.0f} % of the time some task waited for memory, "
        f"for {full * 100:.0f} % of it all did (PSI)"
    )


def said_s(seconds: float | None) -> str:
    """A time in words; None: nothing is known of it."""
    return "not known" if seconds is None else f"{seconds:.1f} s"


def _row(finding: type[Finding], evidence: Evidence) -> dict[str, Any]:
    """One finding as the JSON contract has it; `summary` is the evidence in words."""
    return {
        "id": finding.id,
        "severity": finding.severity,
        "certainty": evidence.certainty,
        "certainty_because": evidence.because,
        "title": finding.title,
        "evidence": evidence.numbers,
        "summary": evidence.summary,
        "remedy": finding.remedy,
    }
