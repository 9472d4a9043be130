# SPDX-License-Identifier: Apache-2.0
"""The report for a terminal. Sees results only."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from balloontrace import driver_behaviour
from balloontrace.analysis.base import Result
from balloontrace.analysis.report import Report
from balloontrace.analysis.text import cost as cost_text
from balloontrace.analysis.text import driver as driver_text
from balloontrace.analysis.text import latencies as latency_text
from balloontrace.analysis.text import marks as marks_text
from balloontrace.analysis.text import memory as memory_text
from balloontrace.analysis.text import reference_figures as figures_text
from balloontrace.analysis.text.writer import (
    BAD,
    DIM,
    GOOD,
    WARN,
    WIDTH,
    Page,
    amplified,
    bounded,
    count,
    gib,
    number,
    percent,
    seconds,
)
from balloontrace.analysis.trace.causes import actor_name
from balloontrace.errors import EXIT_USAGE, UserError
from balloontrace.events import BALLOON_PAGE_BYTES

SHOWN_ROWS = 10
"""Rows of a table without -v; the rest is counted, and all of them are in --json."""

SHOWN_SPANS = 5
"""No-progress spans without -v, the longest ones."""

Show = Callable[[Page, Result, bool], None]


def report_text(
    report: Report,
    colour: bool = False,
    verbose: bool = False,
    timeline: Callable[[Page], None] | None = None,
    only: Sequence[str] | None = None,
    width: int = WIDTH,
) -> str:
    """The report in at most `width` columns. verbose: all rows, all seams, what the recorder cost;
    timeline: draws one under the findings (see timeline/terminal.py); only: the sections to show,
    by default all.

    Raises UserError if there is no section of a name in `only`.
    """
    page = Page(colour, width)
    page.facts(facts(report))
    hidden = _hidden(report, only)
    if "findings" not in hidden:
        _section(page, report.results["findings"], findings, verbose)
    if timeline:
        timeline(page)
    sections(page, report, verbose, without=("findings", *hidden))
    if hidden and only == FIRST_SCREEN:
        page.line("")
        page.line(f"more with -v, or --section NAME: {', '.join(hidden)}", DIM)
    return page.text()


FIRST_SCREEN = (
    *("findings", "marks", "episodes", "periods", "causes", "host_acks", "oom", "driver", "seams"),
)
"""What is shown without being asked for, as far as there is something in it."""


def _hidden(report: Report, only: Sequence[str] | None) -> tuple[str, ...]:
    """The sections that are not in `only`, or have nothing for the first screen."""
    names = (*SECTIONS, "seams", "recorder")
    if only is None:
        return ()
    if unknown := [name for name in only if name not in names]:
        raise UserError(
            f"there is no section {unknown[0]!r}", f"one of {', '.join(names)}", EXIT_USAGE
        )
    empty = [name for name in only if only == FIRST_SCREEN and _is_empty(report, name)]
    return tuple(name for name in names if name not in only or name in empty)


def _is_empty(report: Report, name: str) -> bool:
    """Whether a section says only that nothing happened, which the verdict says already."""
    if name == "seams":
        return not driver_text.seams_lack(report.recording)
    result = report.results[name]
    facts = result.scalars
    if result.missing:
        return not _worth(result, verbose=False)
    if result.name == "findings":
        return not result.tables["findings"] and not facts["unchecked"]
    if result.name == "oom":
        return not any(facts[key] for key in ("killed", "vmstat_killed", "notifier_calls"))
    return not _worth(result, verbose=False)


def facts(report: Report) -> list[tuple[str, str, str]]:
    """What must be known before any number is believed, and the guest: label, text, style."""
    return _trust(report) + _guest(report.results["guest"])


def sections(page: Page, report: Report, verbose: bool, without: tuple[str, ...] = ()) -> None:
    """Every result under its heading, in order, but for those named in `without`."""
    unknown = [name for name in report.results if name not in (*SECTIONS, *IN_FACTS)]
    for name in (*SECTIONS, *unknown):
        result = report.results[name]
        if name not in without and _worth(result, verbose):
            _section(page, result, SECTIONS.get(name, _anything), verbose)
    if "seams" not in without:
        driver_text.seams(page, report.recording, report.results["driver"], verbose)
    if verbose and "recorder" not in without:
        figures_text.published(page, report.results)
        _recorder(page, report.recording)


def _worth(result: Result, verbose: bool) -> bool:
    """Whether a section has anything for most readers."""
    worth_showing = WORTH_SHOWING.get(result.name)
    return verbose or worth_showing is None or worth_showing(result)


def _section(page: Page, result: Result, show: Show, verbose: bool) -> None:
    """One result with its notes, or why there is none."""
    page.heading(TITLES.get(result.name, result.name.capitalize()))
    if result.missing:
        page.line(f"not recorded: {', '.join(result.missing)}", WARN)
        return
    show(page, result, verbose)
    for note in result.notes:
        page.line(f"note: {note}", DIM)


def _trust(report: Report) -> list[tuple[str, str, str]]:
    """What must be known before any number is believed, then the verdict."""
    facts, reconciliation = report.recording.scalars, report.results["reconciliation"].scalars
    rows = [("verdict", *verdict(report))]
    rows += [("recording", facts["path"], ""), ("", *_completeness(facts))]
    if facts["started_at"]:
        rows.append(("", f"from {facts['started_at']} to {facts['ended_at']}", ""))
    rows += _window(facts)
    rows += [("", text, BAD) for text in _losses(facts)]
    style = {True: GOOD, False: BAD, None: WARN}[reconciliation["agrees"]]
    rows.append(("vmstat", reconciliation["summary"], style))
    return rows + [("", text, BAD) for text in driver_text.untraceable(report.results["driver"])]


def _window(facts: dict[str, Any]) -> list[tuple[str, str, str]]:
    """Of which part of the recording all that follows is; nothing if of the whole."""
    if facts["since_s"] is None:
        return []
    at = f" ({facts['since_at']} to {facts['until_at']})" if facts["since_at"] else ""
    span = f"{facts['since_s']:,.1f} s to {facts['until_s']:,.1f} s{at}"
    whole = f"the recording's {facts['duration_s']:,.1f} s"
    said = "what follows is of it alone; losses and /proc/vmstat, of the whole recording"
    return [("window", f"{span}, of {whole}: {said}", WARN)]


def verdict(report: Report) -> tuple[str, str]:
    """What is wrong, in one line, or that nothing is; and the style to say it in."""
    findings, recording = report.results["findings"], report.recording.scalars
    found = [finding["title"] for finding in findings.tables["findings"]]
    if found:
        return "; ".join(found), BAD
    agrees = report.results["reconciliation"].scalars["agrees"]
    unchecked = len(findings.scalars["unchecked"])
    known = unchecked + len(findings.scalars["checked"])
    reservations = {
        "the recording goes on": recording["underway"],
        "the recording is not whole": not recording["complete"] and not recording["underway"],
        "events were lost": bool(recording["lost_events"]),
        "its totals disagree with /proc/vmstat": agrees is False,
        "its totals could not be checked": agrees is None,
        f"{unchecked} of {known} pathologies could not be looked for": unchecked > 0,
    }
    here = "" if recording["since_s"] is None else " in this window"
    but = [text for text, applies in reservations.items() if applies]
    if but:
        return f"nothing found{here}, but {', and '.join(but)}", WARN
    return f"healthy{here}: none of {known} known pathologies, and nothing is missing", GOOD


def _completeness(facts: dict[str, Any]) -> tuple[str, str]:
    """How the recording ended, and the style to say it in."""
    lost = facts["lost_events"]
    size = f"{facts['duration_s']:,.1f} s, {count(facts['events'])} events"
    said = "losses unknown" if lost is None else f"{count(lost)} lost"
    if facts["underway"]:
        return f"STILL RECORDING: what was written so far; {size}, {said}", WARN
    if facts["truncated"]:
        why = "the recorder was killed, or had not ended when this was copied"
        return f"TRUNCATED: {why}; {size}, {said}", BAD
    if not facts["complete"]:
        return f"DAMAGED: parts cannot be read; {size}, {said}", BAD
    if lost:
        return f"LOSSY: {count(lost)} events lost; {size}; ended: {facts['ended']}", BAD
    return f"complete; {size}, {said}; ended: {facts['ended']}", GOOD


def _losses(facts: dict[str, Any]) -> list[str]:
    """What is known to be missing from the file."""
    lines = []
    if facts["missing_blocks"] or facts["damaged_bytes"]:
        events = facts["missing_events"]
        lines.append(
            f"{count(facts['missing_blocks'])} blocks missing, "
            f"{count(facts['damaged_bytes'])} bytes unreadable"
            + (f", and with them {events:,} events" if events else "")
        )
    if facts["lost_pages"]:
        held = ", ".join(f"{count(pages)} {kind}" for kind, pages in facts["lost_pages"].items())
        lines.append(f"pages in lost events: {held}")
    if facts["returns_missed"]:
        calls = ", ".join(f"{count(n)} {kind}" for kind, n in facts["returns_missed"].items())
        lines.append(f"calls whose return was not seen, and which have no duration: {calls}")
    if facts["ring_lost"] and facts["ring_bytes"]:
        kib = facts["ring_bytes"] // 1024
        lines.append(
            f"the ring of {count(kib)} KiB was full{_gap(facts['recorder'])}; "
            f"next time: record --ring-kib {4 * kib}"
        )
    return lines


def _gap(recorder: dict[str, Any] | None) -> str:
    """For how long the reader was away at most, where the recorder said so."""
    gap_s = (recorder or {}).get("longest_read_gap_s")
    return "" if gap_s is None else f", the reader away for up to {seconds(gap_s)}"


def _guest(guest: Result) -> list[tuple[str, str, str]]:
    """Kernel, machine, balloon device and driver."""
    facts = guest.scalars
    memory = facts["memory_bytes"]
    machine = [
        f"Linux {facts['kernel']} {facts['machine'] or ''}".strip(),
        f"{facts['cpus']} CPUs",
        f"{memory / 2**30:,.1f} GiB" if memory else "",
        f"{(facts['page_size'] or 0) // 1024} KiB pages",
        f"host name {facts['hostname']}" if facts["hostname"] else "",
    ]
    driver = [
        driver_behaviour.DESCRIPTIONS.get(facts["driver_behaviour"], "not known"),
        facts["driver_behaviour_because"],
    ]
    features = ", ".join(facts["features"]) or "no features"
    build = [f"{key} {value}" for key, value in facts["driver"].items() if value]
    return [
        ("guest", ", ".join(filter(None, machine)), ""),
        ("balloon", f"{facts['device'] or 'not there'}: {features}", ""),
        ("driver", ": ".join(driver), ""),
        *([("", ", ".join(build), "")] if build else []),
    ]


def _totals(page: Page, result: Result, verbose: bool) -> None:
    """Pages and GiB in, out, net and migrated."""
    words = {
        "inflated_pages": "in",
        "deflated_pages": "out",
        "net_pages": "net",
        "migrated_pages": "migrated",
    }
    values = [result.scalars[key] for key in words]
    page.table(
        ["<", *words.values(), "churn ratio"],
        [
            ["pages", *map(count, values), number(result.scalars["churn_ratio"], 3)],
            ["GiB", *map(gib, values), ""],
        ],
    )


def _episodes(page: Page, result: Result, verbose: bool) -> None:
    """One line for each episode, then the spans in which nothing was gained."""
    rows = result.tables["episodes"]
    if not rows:
        page.line("the target did not change")
        return
    shown = list(enumerate(rows, start=1))
    hidden = 0 if verbose else len(rows) - SHOWN_ROWS
    if hidden > 0:
        shown = sorted(shown, key=lambda pair: _badness(pair[1]), reverse=True)[:SHOWN_ROWS]
    page.table(
        [
            "#",
            "start s",
            "took s",
            "<way",
            "target",
            "<outcome",
            "in",
            "out",
            "amplifi-\ncation",
            "churn\nratio",
            "longest no-\nprogress",
        ],
        [_episode(number_, row) for number_, row in shown],
        gap=1,
    )
    if hidden > 0:
        page.line(f"the worst first; and {count(hidden)} more episodes (-v shows all)", DIM)
    if verbose:
        cost_text.episodes(page, shown)
    _no_progress(page, result.intervals["no_progress"], verbose)


def _badness(episode: dict[str, Any]) -> tuple[float, float]:
    """What to sort episodes by: how long nothing was gained, then how much was moved for it."""
    ratio = episode["amplification"]
    moved_per_page = (math.inf if episode["inflated_pages"] else 0.0) if ratio is None else ratio
    return episode["longest_no_progress_s"] or 0.0, moved_per_page


def _episode(number_: int, row: dict[str, Any]) -> list[str]:
    return [
        str(number_),
        number(row["start_s"], 1),
        number(row["end_s"] - row["start_s"], 1),
        row["direction"],
        count(row["target_pages"]),
        f"{row['outcome']}, left" if row["left"] else row["outcome"],
        count(row["inflated_pages"]),
        count(row["deflated_pages"]),
        amplified(row),
        number(row["churn_ratio"], 3),
        bounded(seconds(row["longest_no_progress_s"]), row["events_missing"]),
    ]


def _no_progress(page: Page, spans: list[dict[str, Any]], verbose: bool) -> None:
    """The longest spans without progress, longest first."""
    if not spans:
        return
    ordered = sorted(spans, key=lambda span: float(span["start_s"] - span["end_s"]))
    shown = ordered if verbose else ordered[:SHOWN_SPANS]
    said = [
        f"{span['end_s'] - span['start_s']:,.1f} s (#{span['episode']}, "
        f"{span['start_s']:,.1f} to {span['end_s']:,.1f})"
        for span in shown
    ]
    more = len(spans) - len(shown)
    page.line(f"no progress for: {', '.join(said)}" + (f", and {more:,} more" if more else ""))


def _periods(page: Page, result: Result, verbose: bool) -> None:
    """Size and target at the end, and what moved under a target that had been reached."""
    facts, rows = result.scalars, result.tables["after"]
    size, target = (_pages_and_mib(facts[key]) for key in ("size_pages", "target_pages"))
    if "begin_size_pages" in facts:
        begun = (_pages_and_mib(facts[f"begin_{key}_pages"]) for key in ("size", "target"))
        page.line("at the beginning: {} in the balloon, target {}".format(*begun))
    page.line(f"at the end: {size} in the balloon, target {target}")
    ordered = sorted(rows, key=lambda row: -int(row["inflated_pages"] + row["deflated_pages"]))
    shown = ordered if verbose else ordered[:SHOWN_ROWS]
    if shown:
        page.table(
            ["reached s", "for s", "target", "left it", "in", "out", "by re-\nclaim", "least",
             "most", "sleeps", "at the\nend"],
            [_period(row) for row in shown],
            gap=1,
        )  # fmt: skip
    _more(page, len(rows) - len(shown), "targets")


def _period(row: dict[str, Any]) -> list[str]:
    pages = ("inflated_pages", "deflated_pages", "reclaimed_pages", "least_pages", "most_pages")
    return [
        number(row["reached_s"], 1),
        number(row["end_s"] - row["reached_s"], 1),
        count(row["target_pages"]),
        count(row["left"]),
        *(count(row[key]) for key in pages),
        count(row["sleeps"]),
        count(row["end_pages"]),
    ]


def _pages_and_mib(pages: int | None) -> str:
    if pages is None:
        return "not seen"
    return f"{pages:,} pages ({pages * BALLOON_PAGE_BYTES / 2**20:,.1f} MiB)"


def _causes(page: Page, result: Result, verbose: bool) -> None:
    """Who took pages out of the balloon."""
    rows = result.tables["causes"]
    if not rows:
        page.line("nothing was taken out of the balloon")
        return
    total = sum(row["pages"] for row in rows)
    own = [row for row in rows if row["actor_kind"] == "recorder"]
    others = [row for row in rows if row["actor_kind"] != "recorder"]
    shown = others if verbose else others[:SHOWN_ROWS]
    if shown:
        page.table(
            ["<cause", "<by", "pages out", "share", "calls", "in calls"],
            [_cause(row, total) for row in shown],
        )
    _more(page, len(others) - len(shown), "causes")
    for row in own:
        cause, who, pages, share, calls, busy = _cause(row, total)
        page.line(
            f"apart, by {who} ({cause}): {pages} pages out, {share}, in {calls} calls, {busy}"
        )


def _cause(row: dict[str, Any], total: int) -> list[str]:
    """One cause; total: pages that were taken out in all."""
    return [
        row["cause"],
        actor_name(row),
        count(row["pages"]),
        percent(row["pages"] / total if total else None),
        count(row["calls"]),
        seconds(row["busy_s"]),
    ]


def findings(page: Page, result: Result, verbose: bool) -> None:
    """Each finding with its evidence and remedy, and what was looked for."""
    for row in result.tables["findings"]:
        page.line(f"{row['title']} [{row['id']}, {row['severity']}]", BAD)
        page.line(row["summary"])
        page.line(f"Certainty: {row['certainty']}: {row['certainty_because']}.")
        page.line(f"Remedy: {row['remedy']}")
    if not result.tables["findings"] and result.scalars["checked"]:
        page.line(f"none of those looked for: {', '.join(result.scalars['checked'])}")
    for name, lacking in result.scalars["unchecked"].items():
        page.line(f"could not look for {name}: not recorded: {', '.join(lacking)}", WARN)


def _anything(page: Page, result: Result, verbose: bool) -> None:
    """A result this renderer has no layout for."""
    for key, value in result.scalars.items():
        page.line(f"{key}: {'not recorded' if value is None else value}")
    for rows in result.tables.values():
        if rows:
            page.table(list(rows[0]), [[str(value) for value in row.values()] for row in rows])


def _recorder(page: Page, recording: Result) -> None:
    """Who wrote the recording and what that cost the guest."""
    page.heading("Recorder")
    page.line(f"written by {recording.scalars['tool']}")
    for key, value in (recording.scalars["recorder"] or {}).items():
        is_bytes = key.endswith("_bytes")
        page.line(f"{key}: {value / 2**20:,.1f} MiB" if is_bytes else f"{key}: {value}")


def _more(page: Page, hidden: int, what: str) -> None:
    if hidden:
        page.line(f"and {count(hidden)} more {what} (-v shows all)", DIM)


SECTIONS: dict[str, Show] = {
    "findings": findings,
    "marks": marks_text.marks,
    "totals": _totals,
    "episodes": _episodes,
    "periods": _periods,
    "causes": _causes,
    "cost": cost_text.cost,
    "phases": memory_text.phases,
    "latencies": latency_text.latencies,
    "host_acks": memory_text.host_acks,
    "oom": memory_text.oom,
    "free_pages": memory_text.free_pages,
    "delays": memory_text.delays,
    "driver": driver_text.driver,
}
"""Layouts in the order of the report; a result without one is shown after these."""

TITLES = {
    "periods": "After the target was reached",
    "host_acks": "Waits for the host",
    "oom": "Out of memory",
    "free_pages": "Free pages",
}
"""Headings that are not just the name."""

WORTH_SHOWING: dict[str, Callable[[Result], bool]] = {
    "marks": marks_text.any_there,
    "host_acks": memory_text.host_was_slow,
    "free_pages": memory_text.recorded,
    "delays": memory_text.recorded,
    "driver": driver_text.happened,
}
"""Sections that most recordings have nothing for: without this they are shown with -v only."""

IN_FACTS = ("guest", "reconciliation")
"""Results that are shown at the top."""
