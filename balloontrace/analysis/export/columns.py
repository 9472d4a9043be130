# SPDX-License-Identifier: Apache-2.0
"""What the fields of an event are called in exports, and in which unit they are."""

from __future__ import annotations

from typing import NamedTuple

from balloontrace.analysis.trace.trace import Trace, section
from balloontrace.escape import visible
from balloontrace.events import KINDS, RECORD, Kind

DECLARED = {kind.name: kind for kind in KINDS}
"""The kinds this version knows; a recording may have others."""

_FIELDS = {field.name: field for field in RECORD}
_NAMED = {"within": "within", "flags": "flags", "queue": "queues"}
"""Fields whose numbers have names -> the header's table of them."""


class Column(NamedTuple):
    """One column. unit: empty for what has none."""

    name: str
    unit: str
    doc: str

    @property
    def with_unit(self) -> str:
        """The name and the unit in one: done_balloon_pages; start_ns has it already."""
        unit = self.unit.replace(" ", "_")
        return self.name if not unit or self.name.endswith(f"_{unit}") else f"{self.name}_{unit}"


def is_used(kind: str, field: str) -> bool:
    """Whether events of this kind have something in this field; of unknown kinds, who knows."""
    declared = DECLARED.get(kind)
    if declared is None:
        return True
    if field == "queue":
        return kind == "ack"
    return not (field in ("asked", "done") and getattr(declared, field) == "not used")


def column_of(trace: Trace, kind: str, field: str) -> Column:
    """The column of a field of the event record, for one kind of event."""
    field_of = _FIELDS.get(field)
    unit, doc = (field_of.unit, field_of.doc) if field_of else ("", "")
    doc = doc.replace("all ones", "null").removesuffix(", see below")
    declared = DECLARED.get(kind)
    if declared and field in ("asked", "done"):
        doc = f"{getattr(declared, field)}; null: not visible"
        unit = _unit_of_pages(declared, field)
    elif is_named(field):
        names = ", ".join(visible(name) for name in section(trace.header, _NAMED[field]))
        doc, unit = f"{doc}: of {names}; several are joined by |, none is empty", ""
    return Column(field, unit, doc)


def is_named(field: str) -> bool:
    """Whether this field's numbers stand for names."""
    return field in _NAMED


def names_in(trace: Trace, field: str, number: int) -> str:
    """The names of what is in a number of this field, as hostile as the recording's header."""
    named = section(trace.header, _NAMED[field])
    if field == "queue":
        return next((name for name, queue in named.items() if queue == number), str(number))
    names = [name for name, bit in named.items() if number & int(bit)]
    unnamed = number & ~sum(int(bit) for bit in named.values())
    return "|".join(names + ([hex(unnamed)] if unnamed else []))


def _unit_of_pages(kind: Kind, field: str) -> str:
    """The unit of `asked` or `done`: balloon pages unless the kind says otherwise."""
    doc = str(getattr(kind, field))
    if "kernel page" in doc:
        return "kernel pages"
    return "" if doc.startswith(("process id", "1 if", "values")) else "balloon pages"
