# SPDX-License-Identifier: Apache-2.0
"""What an analysis is: a question put to a trace, and a result that any renderer can show.

A new analysis is one new module in this package with a subclass of `Analysis`; `run_all` finds it.
"""

from __future__ import annotations

import importlib
import pkgutil
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import Any, ClassVar

import balloontrace.analysis.questions
from balloontrace.analysis.trace.trace import Trace, section


@dataclass
class Result:
    """The answer of one analysis. Strings are raw: a renderer escapes them.

    name: the analysis and the key in JSON; scalars: single values, None = not recorded;
    tables: lists of rows; intervals: named spans in seconds since attach ({start_s, end_s, ...});
    notes: what a reader must know to read the numbers right;
    missing: why there is no answer at all, one entry for each event kind that was not recorded.
    """

    name: str
    scalars: dict[str, Any] = field(default_factory=dict)
    tables: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    intervals: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)


class Analysis(ABC):
    """One question. Subclasses register themselves.

    name: of its Result; requires: event kinds without which there is no answer;
    optional: event kinds without which part of the answer is None.
    """

    name: ClassVar[str]
    requires: ClassVar[tuple[str, ...]] = ()
    optional: ClassVar[tuple[str, ...]] = ()
    registered: ClassVar[dict[str, type[Analysis]]] = {}

    def __init_subclass__(cls) -> None:
        Analysis.registered[cls.name] = cls

    @abstractmethod
    def run(self, trace: Trace) -> Result:
        """Answer for `trace`; called only if all of `requires` was recorded."""


def run_all(trace: Trace) -> dict[str, Result]:
    """The result of every analysis in this package, by name."""
    for module in pkgutil.iter_modules(balloontrace.analysis.questions.__path__):
        if not module.ispkg:
            importlib.import_module(f"balloontrace.analysis.questions.{module.name}")
    return {name: _run(analysis(), trace) for name, analysis in Analysis.registered.items()}


def _run(analysis: Analysis, trace: Trace) -> Result:
    """The analysis's result with notes on what was not recorded."""
    missing = not_recorded(trace, analysis.requires)
    if missing:
        return Result(analysis.name, missing=missing)
    result = analysis.run(trace)
    if not result.missing and (lacking := not_recorded(trace, analysis.optional)):
        result.notes.append(f"not recorded: {', '.join(lacking)}")
    return result


def why_not(seam: dict[str, Any]) -> str:
    """Why the rungs of a seam that come before the one used, or all of them, could not be used."""
    return str(seam.get("why") or "; ".join(seam.get("not") or []))


def not_recorded(trace: Trace, kinds: tuple[str, ...]) -> list[str]:
    """For each of `kinds` that was not recorded: its name and, if known, why."""
    out = []
    for kind in kinds:
        if not trace.recorded(kind):
            attached = trace.attached(kind)
            why = trace.doubt(kind) if attached else why_not(section(trace.seams, kind))
            why = why or why_no_driver(trace)
            out.append(f"{kind} ({why})" if why else kind)
    return out


def why_no_driver(trace: Trace) -> str:
    """Why no driver was ever attached to; empty if one was."""
    if trace.seams or not trace.driver_changes:
        return ""
    if any(change.get("state") == "untraceable" for change in trace.driver_changes):
        return "the driver could not be traced"
    return "the driver was not there"
