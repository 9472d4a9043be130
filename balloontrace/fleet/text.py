# SPDX-License-Identifier: Apache-2.0
"""The overview of a dataset as text, and as blocks of a page of HTML: one says what the other
does."""

from __future__ import annotations

import math
import shlex
from collections.abc import Iterable
from typing import Any

from balloontrace.analysis.text.writer import (
    ABSENT,
    BAD,
    DIM,
    GOOD,
    UNBOUNDED,
    WARN,
    WIDTH,
    Page,
    count,
    number,
    percent,
    seconds,
)
from balloontrace.fleet.changes import BETTER, WORSE, Changes, claims
from balloontrace.fleet.overview import (
    DOUBTFUL,
    GROUPS,
    MEASURES,
    NOT_KNOWN,
    QUANTILES,
    TRUSTED,
    Overview,
)

Row = dict[str, Any]

GROUPS_SHOWN = 12
"""Of one table of the text; days: the last ones. The page and --json have more."""

_TITLES = {"p90": "90 %", "p99": "99 %"}


def overview_text(
    overview: Overview,
    changes: Changes | None,
    directory: str,
    colour: bool,
    width: int = WIDTH,
) -> str:
    """The overview as a page of text. directory: of the dataset, for commands to run."""
    page = Page(colour, width)
    write_overview(page, overview, changes, directory, GROUPS_SHOWN)
    return page.text()


def write_overview(
    page: Page, overview: Overview, changes: Changes | None, directory: str, most: int
) -> None:
    """Everything that is said, on any page. most: rows of a table of groups."""
    page.facts(facts(overview, directory))
    if changes:
        _changes(page, changes)
    _findings(page, overview)
    _by_kernel(page, overview, most)
    _worst(page, overview, directory)
    _distributions(page, overview, most)
    if overview.labels:
        _labels(page, overview, most)
    _trust(page, overview)
    _failures(page, overview)


def facts(overview: Overview, directory: str) -> list[tuple[str, str, str]]:
    """What stands at the top: label, text, style."""
    totals, trust = overview.totals, overview.trust
    days = sorted({str(totals[key] or NOT_KNOWN) for key in ("first_day", "last_day")})
    balloon = totals["is_balloon"]
    boots = f"{count(totals['boots'])} boots"
    if totals["boots_not_known"]:
        boots += f", of {count(totals['boots_not_known'])} recordings it is not known"
    failed = totals["failures"]
    kills = f"{count(totals['oom_kills'])}"
    if totals["oom_kills_not_known"]:
        kills += f", not known of {count(totals['oom_kills_not_known'])} recordings"
    return [
        ("dataset", directory, ""),
        ("recordings", f"{count(totals['recordings'])}, {' to '.join(days)}; {boots}", ""),
        ("failed", f"{count(failed)} more could not be read", BAD if failed else ""),
        ("read by", "balloontrace " + (", ".join(totals["analysed_by"]) or NOT_KNOWN), DIM),
        (
            "the balloon is it",
            f"in {count(balloon['yes'])}, not in {count(balloon['no'])}, "
            f"not known of {count(balloon['not_known'])}",
            WARN if balloon["yes"] else "",
        ),
        ("findings", f"in {count(totals['found'])} recordings", ""),
        ("OOM kills", kills, ""),
        (
            "trust",
            f"{count(trust[TRUSTED])} can be trusted, {count(trust[DOUBTFUL])} not wholly, "
            f"of {count(trust['not_known'])} it is not known",
            GOOD if trust[TRUSTED] == totals["recordings"] else WARN,
        ),
    ]


def _findings(page: Page, overview: Overview) -> None:
    page.heading("Findings")
    found = [row for row in overview.findings if row["recordings"]]
    if not overview.findings:
        page.line("not known: nothing was looked for")
        return
    if found:
        columns = ["<finding", "found in", "checked in", "not known of", "share", "<95 %"]
        page.table(columns, [_finding(row) for row in found])
    else:
        page.line("No known pathology in any of the recordings in which it was looked for.", GOOD)
    others = [row["id"] for row in overview.findings if not row["recordings"]]
    if others:
        page.line("Looked for and not found: " + ", ".join(others), DIM)


def _finding(row: Row) -> list[str]:
    return [
        row["id"],
        *(count(row[key]) for key in ("recordings", "looked_for", "not_looked_for")),
        percent(row["share"]),
        _range(percent(row["low"]), percent(row["high"])),
    ]


def _range(low: str, high: str) -> str:
    return ABSENT if low == ABSENT else f"{low} to {high}"


def _by_kernel(page: Page, overview: Overview, most: int) -> None:
    if not overview.by_kernel:
        return
    page.heading("Findings by kernel")
    rows = sorted(overview.by_kernel, key=lambda row: (row["id"], -(row["share"] or 0)))
    columns = ["<finding", "<kernel", "found", "of", "share", "<95 %"]
    page.table(
        columns,
        [
            [
                row["id"],
                row["kernel"],
                *(count(row[key]) for key in ("recordings", "looked_for")),
                percent(row["share"]),
                _range(percent(row["low"]), percent(row["high"])),
            ]
            for row in rows[: 4 * most]
        ],
    )
    _more(page, len(rows) - 4 * most)


def _more(page: Page, number_of: int) -> None:
    if number_of > 0:
        page.line(f"and {count(number_of)} more: --json has all of them", DIM)


def _worst(page: Page, overview: Overview, directory: str) -> None:
    page.heading("The worst recordings")
    if not overview.worst:
        page.line("None with a finding, or a second without progress.")
        return
    page.line(
        "Most findings that blame the balloon, then longest without progress, then amplification.",
        DIM,
    )
    for row in overview.worst:
        page.line("")
        page.line(f"{_or_not_known(row['host_name'])}, {_or_not_known(row['kernel'])}", WARN)
        said = ", ".join(row["findings"]) or "no finding"
        page.line(
            f"{said}; longest without progress {measured('no_progress_s', row[_LONGEST])}, "
            f"amplification {measured('amplification', row['amplification'])}, "
            f"host ack p99 {measured('host_ack_p99_s', row['host_ack_p99_s'])}, "
            f"OOM kills {_or_not_known(count(row['oom_kills']))}; {_TRUST[row['trust']]}"
        )
        page.line(report_command(directory, row["source"]), DIM)


_LONGEST = "longest_no_progress_s"

_TRUST = {
    TRUSTED: "to be trusted",
    DOUBTFUL: "not wholly to be trusted",
    NOT_KNOWN: "not known whether to be trusted",
}


def _or_not_known(text: str | None) -> str:
    return NOT_KNOWN if text is None or text == ABSENT else text


def report_command(directory: str, source: str) -> str:
    """What to run for the report of one recording."""
    return shlex.join(["balloontrace", "fleet", "report", directory, source])


def measured(measure: str, value: float | None) -> str:
    """A value of one of MEASURES."""
    if value is None:
        return NOT_KNOWN
    if math.isinf(value):
        return UNBOUNDED
    return seconds(value) if MEASURES[measure][1] == "s" else number(value, 3, "x")


def _distributions(page: Page, overview: Overview, most: int) -> None:
    for measure, (name, _) in MEASURES.items():
        page.heading(f"Distribution: {name}")
        of_measure = [row for row in overview.distributions if row["measure"] == measure]
        for what in GROUPS.values():
            rows = [row for row in of_measure if row["by"] == what]
            _distribution(page, measure, what, rows, most)


def _distribution(page: Page, measure: str, what: str, rows: list[Row], most: int) -> None:
    if what != "all" and all(row["group"] == NOT_KNOWN for row in rows):
        page.line(f"by {what}: {NOT_KNOWN}", DIM)
        return
    shown = rows[-most:] if what == "day" else rows[:most]
    titles = [_TITLES.get(key, key) for key in QUANTILES]
    page.table(
        [f"<{what}" if what != "all" else "<of", "recordings", "known", *titles],
        [
            [
                row["group"],
                count(row["recordings"]),
                count(row["known"]),
                *(ABSENT if row[q] is None else measured(measure, row[q]) for q in QUANTILES),
            ]
            for row in shown
        ],
    )
    _more(page, len(rows) - len(shown))


def _labels(page: Page, overview: Overview, most: int) -> None:
    for name in dict.fromkeys(row["label"] for row in overview.labels):
        page.heading(f"By label: {name}")
        rows = [row for row in overview.labels if row["label"] == name]
        medians = [f"median {title}" for title, _ in MEASURES.values()]
        page.table(
            [f"<{name}", "recordings", "with findings", "balloon", "trusted", *medians],
            [_label(row) for row in rows[:most]],
        )
        _more(page, len(rows) - most)
    unlabelled = overview.totals["unlabelled"]
    if unlabelled:
        page.line(f"{count(unlabelled)} recordings are of guests that the labels do not name", WARN)


def _label(row: Row) -> list[str]:
    return [
        row["value"],
        *(count(row[key]) for key in ("recordings", "found")),
        count(row["is_balloon"]["yes"]),
        count(row["trusted"]),
        *(ABSENT if row[m] is None else measured(m, row[m]) for m in MEASURES),
    ]


_CHECKS = {
    "agrees": "traced totals are those of /proc/vmstat",
    "sums_agree": "events are what the kernel side summed up",
    "complete": "has its end, and nothing of it is damaged",
    "nothing_lost": "no event was lost",
}


def _trust(page: Page, overview: Overview) -> None:
    page.heading("Trust")
    page.table(
        ["<of recordings", "yes", "no", "not known"],
        [
            [text, *(count(overview.trust[key][said]) for said in ("yes", "no", "not_known"))]
            for key, text in _CHECKS.items()
        ],
    )


def _failures(page: Page, overview: Overview) -> None:
    page.heading("Failures")
    if not overview.failures:
        page.line("None.")
        return
    page.table(
        ["<kind", "recordings", "<meaning", "<one of them"],
        [
            [
                row["kind"],
                count(row["recordings"]),
                row["meaning"] or NOT_KNOWN,
                f"{row['source']}: {row['reason']}",
            ]
            for row in overview.failures
        ],
    )


def _changes(page: Page, changes: Changes) -> None:
    page.heading("Against the earlier run")
    claimed = claims(changes)
    for verdict, style in ((WORSE, BAD), (BETTER, GOOD)):
        rows = [row for row in claimed if row["verdict"] == verdict]
        page.line(f"{verdict}: {count(len(rows)) if rows else 'nothing that is sure'}", style)
        if rows:
            page.table(
                ["<kernel", "<what", "<earlier", "<now", "now / earlier"],
                [_change(row) for row in rows],
            )
    counted = {
        verdict: sum(row["verdict"] == verdict for row in changes.rows)
        for verdict in ("no claim", "too few")
    }
    page.line(
        f"Of {count(len(changes.rows))} comparisons {count(counted['no claim'])} have intervals "
        f"that overlap, and {count(counted['too few'])} too few recordings for one: nothing is "
        f"claimed of these. Intervals in brackets; 95 % for all claims together.",
        DIM,
    )
    for what, names in (("now", changes.only_now), ("earlier", changes.only_earlier)):
        if names:
            page.line(f"kernels only {what}: {_listed(names)}")
    versions = changes.versions
    if versions["now"] != versions["earlier"] and all(versions.values()):
        page.line("The two sides were read by other versions of balloontrace.", WARN)


def _listed(names: list[str]) -> str:
    more = len(names) - GROUPS_SHOWN
    return ", ".join(names[:GROUPS_SHOWN]) + (f" and {more} more" if more > 0 else "")


def _change(row: Row) -> list[str]:
    name = row["what"] if row["is_share"] else f"median {MEASURES[row['what']][0]}"
    return [
        row["kernel"],
        name,
        *(_side(row, row[side]) for side in ("earlier", "now")),
        number(row["ratio"], 2, "x"),
    ]


def _side(row: Row, side: Row) -> str:
    def said(value: float | None) -> str:
        if row["is_share"]:
            return percent(value)
        return measured(row["what"], value)

    return f"{said(side['value'])} [{said(side['low'])}, {said(side['high'])}]"


def headline(overview: Overview) -> Iterable[tuple[str, str, str]]:
    """The numbers to see first: what, how much, and in other words."""
    totals, trust = overview.totals, overview.trust
    yield "recordings", count(totals["recordings"]), f"{count(totals['boots'])} boots"
    yield "failed", count(totals["failures"]), "could not be read"
    balloon = totals["is_balloon"]
    yield "the balloon is it", count(balloon["yes"]), f"not known of {count(balloon['not_known'])}"
    yield "with findings", count(totals["found"]), "recordings"
    yield "trusted", count(trust[TRUSTED]), f"{count(trust[DOUBTFUL])} not wholly"
    for row in overview.distributions:
        if row["by"] == "all":
            measure = row["measure"]
            known = f"median; known of {count(row['known'])}"
            yield MEASURES[measure][0], measured(measure, row["median"]), known
