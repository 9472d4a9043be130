# SPDX-License-Identifier: Apache-2.0
"""What a question is: a section that is declared once, and a result that any output can show.

A new question is one new module in questions/ with a subclass of `Question`; `run_all` finds it.
Its section says how text, HTML, JSON, the JSON's schema and the docs show its result; where tables
are not enough, prose stands in text/ under the same name.
"""

from __future__ import annotations

import importlib
import pkgutil
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, ClassVar

import balloontrace.analysis.questions
from balloontrace.analysis.fields import Field, Table
from balloontrace.analysis.trace.trace import Trace, section


@dataclass
class Result:
    """The answer to one question. Strings are raw: an output escapes them.

    name: the section's; scalars: single values, None = not recorded;
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


NO_EVENTS = "events (record --counters traces nothing)"
"""What is missing where nothing was traced."""


def always(_: Result) -> bool:
    """For every result."""
    return True


def never(_: Result) -> bool:
    """For none."""
    return False


def answered(result: Result) -> bool:
    """For one that was recorded at all."""
    return not result.missing


@dataclass(frozen=True)
class Section:
    """How a result is shown.

    place: sections stand in this order in every output; doc: what it says, one line;
    fields, tables: of its scalars and tables, in order. If the one table has the section's name,
    the section is that table, also in JSON.
    shown: whether it has anything for most readers: without that it is shown with -v only, or by
    --section; first_screen: whether it is worth a place on the first screen;
    head: True if the head of the report tells it, in place of a section;
    inline: True if its scalars are keys of the JSON's object itself;
    in_json: False if it says nothing of its own.
    """

    name: str
    title: str
    place: int
    doc: str
    fields: tuple[Field, ...] = ()
    tables: tuple[Table, ...] = ()
    shown: Callable[[Result], bool] = always
    first_screen: Callable[[Result], bool] = never
    head: bool = False
    inline: bool = False
    in_json: bool = True

    @property
    def is_table(self) -> bool:
        """Whether it is one table and nothing else."""
        return not self.fields and [table.name for table in self.tables] == [self.name]


SECTIONS: dict[str, Section] = {}
"""All that were declared, by name; see `sections`."""


def declared(section: Section) -> Section:
    """Declare a section. Raises ValueError if its name or its place is taken."""
    for other in SECTIONS.values():
        if other.name == section.name or other.place == section.place:
            raise ValueError(f"{section.name} and {other.name} are at {section.place}")
    SECTIONS[section.name] = section
    return section


class Question(ABC):
    """One question. Subclasses register themselves and their section.

    requires: event kinds without which there is no answer;
    optional: event kinds without which part of the answer is None;
    by_counters: whether it has an answer without any of them where nothing was traced.
    """

    section: ClassVar[Section]
    name: ClassVar[str]
    requires: ClassVar[tuple[str, ...]] = ()
    optional: ClassVar[tuple[str, ...]] = ()
    by_counters: ClassVar[bool] = False
    registered: ClassVar[dict[str, type[Question]]] = {}

    def __init_subclass__(cls) -> None:
        cls.name = declared(cls.section).name
        Question.registered[cls.name] = cls

    @abstractmethod
    def run(self, trace: Trace) -> Result:
        """Answer for `trace`; called only if all of `requires` was recorded."""


def run_all(trace: Trace) -> dict[str, Result]:
    """The result of every question, by name."""
    _load_all()
    return {name: _run(question(), trace) for name, question in Question.registered.items()}


def sections() -> list[Section]:
    """Every section of a report, in its place."""
    _load_all()
    return sorted(SECTIONS.values(), key=lambda section: section.place)


def _load_all() -> None:
    for module in pkgutil.iter_modules(balloontrace.analysis.questions.__path__):
        if not module.ispkg:
            importlib.import_module(f"balloontrace.analysis.questions.{module.name}")


def _run(question: Question, trace: Trace) -> Result:
    """The question's result with notes on what was not recorded."""
    needed, wanted = question.requires, question.optional
    if trace.counter_interval_s is not None:
        needed, wanted = () if question.by_counters else (*needed, *wanted), ()
    if missing := not_recorded(trace, needed):
        return Result(question.name, missing=missing)
    result = question.run(trace)
    for one in (trace, trace.entire):
        one.forget_arrays()  # few are what the next question needs
    if not result.missing and (lacking := not_recorded(trace, wanted)):
        result.notes.append(f"not recorded: {', '.join(lacking)}")
    return result


def why_not(seam: dict[str, Any]) -> str:
    """Why the rungs of a seam that come before the one used, or all of them, could not be used."""
    return str(seam.get("why") or "; ".join(seam.get("not") or []))


def not_recorded(trace: Trace, kinds: tuple[str, ...]) -> list[str]:
    """For each of `kinds` that was not recorded: its name and, if known, why."""
    if trace.counter_interval_s is not None:
        return [NO_EVENTS] if kinds else []
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
