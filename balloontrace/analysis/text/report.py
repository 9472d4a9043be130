# SPDX-License-Identifier: Apache-2.0
"""The report for a terminal: every section as it is declared. Sees results only."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Sequence

import balloontrace.analysis.text.sections as prose
from balloontrace.analysis.base import Result, Section, sections
from balloontrace.analysis.report import Report
from balloontrace.analysis.text.head import facts
from balloontrace.analysis.text.rows import said, write_table
from balloontrace.analysis.text.writer import DIM, WARN, WIDTH, Page
from balloontrace.errors import EXIT_USAGE, UserError

ABOVE_TIMELINE = ("findings", "memory")
"""What a reader must see before the picture."""


def report_text(
    report: Report,
    colour: bool = False,
    verbose: bool = False,
    timeline: Callable[[Page], None] | None = None,
    only: Sequence[str] | None = None,
    width: int = WIDTH,
) -> str:
    """The report in at most `width` columns. verbose: all sections and rows; timeline: draws one
    below what stands above it (see timeline/terminal.py); only: the sections to show, by default
    all that have something for most readers.

    Raises UserError if there is no section of a name in `only`.
    """
    shown = _chosen(only) if only is not None else _worth_showing(report, verbose)
    return _written(report, shown, verbose, timeline, Page(colour, width)).text()


def first_screen(
    report: Report,
    colour: bool = False,
    timeline: Callable[[Page], None] | None = None,
    width: int = WIDTH,
) -> str:
    """The sections that are worth a place on the first screen, and the names of the others."""
    of_report = [section for section in sections() if not section.head]
    shown = [
        one
        for one in of_report
        if one.first_screen(report.results[one.name]) and not _untraced(report, one)
    ]
    page = _written(report, shown, False, timeline, Page(colour, width))
    others = ", ".join(section.name for section in of_report if section not in shown)
    page.line("")
    page.line(f"more with -v, or --section NAME: {others}", DIM)
    return page.text()


def write_sections(page: Page, report: Report, without: tuple[str, ...] = ()) -> None:
    """Every section with all its rows, in order, but for those named in `without`."""
    for section in _worth_showing(report, verbose=True):
        if section.name not in without:
            write_section(page, section, report.results[section.name], verbose=True)


def write_section(page: Page, section: Section, result: Result, verbose: bool) -> None:
    """One result under its heading with its notes, or why there is none."""
    page.heading(section.title)
    if result.missing:
        page.line(f"not recorded: {', '.join(result.missing)}", WARN)
        return
    _show(section)(page, result, verbose)
    for note in result.notes:
        page.line(f"note: {note}", DIM)


def _written(
    report: Report,
    shown: Sequence[Section],
    verbose: bool,
    timeline: Callable[[Page], None] | None,
    page: Page,
) -> Page:
    """The top, what stands above the timeline, that, and the rest."""
    page.facts(facts(report))
    above = [section for section in shown if section.name in ABOVE_TIMELINE]
    for section in above:
        write_section(page, section, report.results[section.name], verbose)
    if timeline:
        timeline(page)
    for section in shown:
        if section not in above:
            write_section(page, section, report.results[section.name], verbose)
    return page


def _worth_showing(report: Report, verbose: bool) -> list[Section]:
    """What is shown without being asked for; verbose: all but the top."""
    return [
        section
        for section in sections()
        if not section.head
        and (verbose or section.shown(report.results[section.name]))
        and not _untraced(report, section)
    ]


def _untraced(report: Report, section: Section) -> bool:
    """Whether there is no answer for the reason that the head gives: nothing was traced."""
    counted = report.recording.scalars["counter_interval_s"] is not None
    return counted and bool(report.results[section.name].missing)


def _chosen(names: Sequence[str]) -> list[Section]:
    of_report = {section.name: section for section in sections() if not section.head}
    if unknown := [name for name in names if name not in of_report]:
        raise UserError(
            f"there is no section {unknown[0]!r}", f"one of {', '.join(of_report)}", EXIT_USAGE
        )
    return [section for name, section in of_report.items() if name in names]


def _show(section: Section) -> Callable[[Page, Result, bool], None]:
    """What writes a section: its prose, or its fields and tables as they are declared."""
    if any(module.name == section.name for module in pkgutil.iter_modules(prose.__path__)):
        module = importlib.import_module(f"{prose.__name__}.{section.name}")
        show: Callable[[Page, Result, bool], None] = module.show
        return show
    return lambda page, result, verbose: _declared(page, section, result, verbose)


def _declared(page: Page, section: Section, result: Result, verbose: bool) -> None:
    """A line for each value, then the tables."""
    for field in section.fields:
        page.line(f"{field.title or field.key}: {said(field, result.scalars[field.key])}")
    for table in section.tables:
        write_table(page, table, result.tables[table.name], verbose)
