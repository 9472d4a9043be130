# SPDX-License-Identifier: Apache-2.0
"""The top of a report: the verdict, how far to trust the numbers, and the guest."""

from __future__ import annotations

from typing import Any

from balloontrace import driver_behaviour
from balloontrace.analysis.base import Result
from balloontrace.analysis.report import Report
from balloontrace.analysis.text.writer import BAD, GOOD, WARN, count, exact_seconds, seconds, times
from balloontrace.analysis.verdict import reservations

STOLEN_SHARE = 0.05
"""Of the guest's CPUs' time: a host that others share takes less without being late."""


def facts(report: Report) -> list[tuple[str, str, str]]:
    """What must be known before any number is believed, and the guest: label, text, style."""
    return _trust(report) + _guest(report.results["guest"], report.results["memory"])


def _trust(report: Report) -> list[tuple[str, str, str]]:
    """What must be known before any number is believed, then the verdict."""
    facts, reconciliation = report.recording.scalars, report.results["reconciliation"].scalars
    rows = [("verdict", *verdict(report)), ("answer", *_answer(report.results["verdict"]))]
    rows += [("recording", facts["path"], ""), ("", *_completeness(facts))]
    if facts["started_at"]:
        rows.append(("", f"from {facts['started_at']} to {facts['ended_at']}", ""))
    rows += _kept_for(facts["kept_for"], report.results["findings"])
    rows += _window(facts)
    rows += [("", text, BAD) for text in _losses(facts, report.results["recorder"].scalars)]
    rows += [("", text, WARN) for text in _not_run(facts["sample_gaps"])]
    if (facts["stolen_share"] or 0) >= STOLEN_SHARE:
        stolen = f"{facts['stolen_share'] * 100:.1f} % of its CPUs' time"
        rows.append(("", f"STOLEN: the host ran something else for {stolen} (steal)", WARN))
    style = {True: GOOD, False: BAD, None: WARN}[reconciliation["agrees"]]
    rows.append(("vmstat", reconciliation["summary"], style))
    rows += [("", text, BAD) for text in _sums(reconciliation["sums_differing"])]
    return rows + [("", text, BAD) for text in _untraceable(report.results["driver"])]


_MOST_DIFFERING = 3
"""Differences that the head says; the section Reconciliation says all."""


def _sums(differing: list[str]) -> list[str]:
    """What was summed up in the kernel and is not in the events, in words."""
    if not differing:
        return []
    more = len(differing) - _MOST_DIFFERING
    said = "; ".join(differing[:_MOST_DIFFERING]) + (f"; {more} more" if more > 0 else "")
    return [f"EVENTS MISSING: they are not what the BPF programs summed up: {said}"]


def _untraceable(result: Result) -> list[str]:
    """A driver that was there and could not be traced, in words."""
    return [
        f"UNTRACEABLE: a driver came after {gap['start_s']:,.1f} s: {gap['untraceable']}"
        for gap in result.tables.get("gaps", [])
        if gap["untraceable"]
    ]


_FOUND_AS = {"oom-kill": ("killed-beside-balloon", "memcg-oom")}
"""Of what `watch` sees and no finding is called: what it can be (conditions/triggers.py)."""


def _kept_for(fired: list[dict[str, Any]], findings: Result) -> list[tuple[str, str, str]]:
    """What made `watch` keep the recording, and whether the analysis finds the same."""
    found = {finding["id"] for finding in findings.tables["findings"]}
    rows = []
    for one in fired:
        name, at = one["finding"], f"at {one['at_s']:,.1f} s"
        if one["finding"] == "asked":
            rows.append(("", f"kept by `watch`: somebody asked for it {at}", ""))
            continue
        is_found = not found.isdisjoint(_FOUND_AS.get(one["finding"], (one["finding"],)))
        said = "the findings say more" if is_found else "not found again in all of it"
        rows.append(("", f"kept by `watch`: {name} fired {at}; {said}", "" if is_found else WARN))
    return rows


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
    unchecked = len(findings.scalars["unchecked"])
    known = unchecked + len(findings.scalars["checked"])
    here = "" if recording["since_s"] is None else " in this window"
    but = reservations(report.results)
    if unchecked:
        but.append(f"{unchecked} of {known} pathologies could not be looked for")
    if but:
        return f"nothing found{here}, but {', and '.join(but)}", WARN
    return f"healthy{here}: none of {known} known pathologies, and nothing is missing", GOOD


def _answer(result: Result) -> tuple[str, str]:
    """Whether it is the balloon, and the style to say it in."""
    style = {True: BAD, False: GOOD, None: WARN}[result.scalars["is_balloon"]]
    return str(result.scalars["sentence"]), style


def _completeness(facts: dict[str, Any]) -> tuple[str, str]:
    """How the recording ended, and the style to say it in."""
    lost = facts["lost_events"]
    size = f"{exact_seconds(facts['duration_s'])}, {count(facts['events'])} events"
    said = "losses unknown" if lost is None else f"{count(lost)} lost"
    if _counted(facts):
        size = f"{exact_seconds(facts['duration_s'])} of the guest's counters"
        said = f"read every {facts['counter_interval_s']:g} s"
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


def _counted(facts: dict[str, Any]) -> bool:
    """Whether nothing was traced, and the guest's counters were read (`record --counters`)."""
    return facts["counter_interval_s"] is not None


def _losses(facts: dict[str, Any], recorder: dict[str, Any]) -> list[str]:
    """What is known to be missing from the file."""
    lines = []
    if facts["missing_blocks"] or facts["damaged_bytes"]:
        events = facts["missing_events"]
        lines.append(
            f"{count(facts['missing_blocks'])} blocks missing, "
            f"{count(facts['damaged_bytes'])} bytes unreadable"
            + (f", and with them {events:,} events" if events else "")
        )
    if facts["left_out"]:
        lines.append(
            f"the reader of `record -o -` was too slow for {count(facts['left_out'])} events; next "
            "time: record -o FILE, and fetch that"
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
            f"the ring of {count(kib)} KiB was full{_gap(recorder)}; "
            f"next time: record --ring-kib {4 * kib}"
        )
    return lines


def _not_run(gaps: dict[str, Any] | None) -> list[str]:
    """That the recorder was not run for a while, and perhaps nothing in the guest was."""
    if not gaps or not gaps["number"]:
        return []
    when = f"{seconds(gaps['longest_s'])} from {gaps['longest_at_s']:,.1f} s on"
    if gaps["number"] > 1:
        together = seconds(gaps["total_s"])
        when = f"{times(gaps['number'])}, {together} together, the longest {when}"
    if gaps["longest_silent"]:
        why = "nor was there an event: its host did not run the guest, or the guest was stuck"
    else:
        why = "though there were events: the guest was too busy to run the recorder"
    return [f"NOT RUN: no sample for {when}, {why}"]


def _gap(recorder: dict[str, Any]) -> str:
    """For how long the reader was away at most, where the recorder said so."""
    gap_s = recorder.get("longest_read_gap_s")
    return "" if gap_s is None else f", the reader away for up to {seconds(gap_s)}"


def _guest(guest: Result, of_memory: Result) -> list[tuple[str, str, str]]:
    """Kernel, machine, balloon device and driver."""
    facts = guest.scalars
    memory = of_memory.scalars["ram_bytes"] or facts["memory_bytes"]
    machine = [
        f"Linux {facts['kernel']} {facts['machine'] or ''}".strip(),
        f"{facts['cpus']} CPUs",
        f"{memory / 2**30:,.1f} GiB" if memory else "",
        f"{(facts['page_size'] or 0) // 1024} KiB pages",
        f"host name {facts['hostname']}" if facts["hostname"] else "",
        f"on {facts['dmi_vendor']}" if facts["dmi_vendor"] else "",
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
