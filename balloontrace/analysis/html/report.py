# SPDX-License-Identifier: Apache-2.0
"""A report, and a comparison, as one page that needs nothing but a browser."""

from __future__ import annotations

import base64
import hashlib
import json
from importlib import resources
from typing import Any

from bokeh.resources import Resources
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from balloontrace import __version__
from balloontrace.analysis.base import Result
from balloontrace.analysis.compare import main_inflation
from balloontrace.analysis.html.tables import Blocks
from balloontrace.analysis.text.compare import write_comparison
from balloontrace.analysis.text.head import facts
from balloontrace.analysis.text.report import write_sections
from balloontrace.analysis.text.writer import (
    ABSENT,
    amplified,
    bounded,
    count,
    gib,
    number,
    seconds,
)
from balloontrace.analysis.timeline import series
from balloontrace.analysis.timeline.bokeh import chart
from balloontrace.analysis.timeline.matplotlib import figure
from balloontrace.analysis.timeline.picture import Picture
from balloontrace.analysis.timeline.series import Scene
from balloontrace.escape import visible

_PATTERNS = {
    "/": "M1 11L9 1M9 11L17 1M17 11L25 1",
    "\\": "M1 1L9 11M9 1L17 11M17 1L25 11",
    "x": "M1 11L9 1M9 11L17 1M17 11L25 1M1 1L9 11M9 1L17 11M17 1L25 11",
    ".": "M4 4h1M11 4h1M18 4h1M7 8h1M14 8h1M21 8h1",
    "-": "M1 4H25M1 8H25",
    "+": "M1 6H25M7 1V11M13 1V11M19 1V11",
}
"""Patterns of series.Style as paths of a legend's swatch of 26 by 12."""

STILL_SCALE = 1.25
"""Of the picture that is printed."""

_FILES = resources.files("balloontrace.analysis.html") / "web"


def report_html(picture: Picture) -> str:
    """The report of one recording: verdict, headline numbers, timeline, tables."""
    report = picture.report
    page = Blocks()
    write_sections(page, report, without=("findings",))
    written = [section for section in page.sections if section.blocks]
    verdict = Blocks()
    found = report.results["findings"].tables["findings"]
    verdict.facts(facts(report)[1 if found else 0 :])  # findings stand above it, each by itself
    return _page(
        title=visible(str(report.recording.scalars["path"])).rsplit("/", 1)[-1],
        heading="Balloon report",
        verdict=verdict.sections[0].blocks,
        findings=[(_findings(report.results["findings"]))],
        headline=_headline(picture),
        scenes=series.alone(picture),
        sections=written,
    )


def compare_html(comparison: Result, before: Picture, after: Picture) -> str:
    """Two recordings: the table of `compare`, and both timelines on one axis.

    comparison: the result that the table is printed from.
    """
    page = Blocks()
    write_comparison(page, comparison)
    pair = {"before": before, "after": after}
    return _page(
        title="balloontrace compare",
        heading="Two balloons compared",
        verdict=page.sections[0].blocks,
        findings=[
            _findings(picture.report.results["findings"], side) for side, picture in pair.items()
        ],
        headline=[],
        scenes=series.side_by_side(before, after),
        sections=page.sections[1:],
    )


def _page(scenes: list[Scene], **content: Any) -> str:
    """The page from its template. Whatever it says is escaped there; scripts are named by their
    hashes, so that no other can run, and nothing can be fetched."""
    charted = chart(scenes)
    # Not as SVG: that of a busy recording is twice as large.
    still = figure(scenes, "png", STILL_SCALE)
    bokeh = Resources(mode="inline", components=["bokeh"], log_level="warn")
    scripts = [
        _script(text) for text in ("\n".join(bokeh.js_raw), (_FILES / "timeline.js").read_text())
    ]
    environment = Environment(
        loader=PackageLoader("balloontrace.analysis.html", "web"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=StrictUndefined,
    )
    return environment.get_template("page.html.j2").render(
        **content,
        scenes=scenes,
        panels=charted.panels,
        notes=list(dict.fromkeys(visible(n) for scene in scenes for n in scene.timeline.notes)),
        data=_data({"chart": charted.document, "colours": charted.colours}),
        still="data:image/png;base64," + base64.b64encode(still).decode(),
        style=Markup((_FILES / "page.css").read_text()),  # noqa: S704
        scripts=[script for script, _ in scripts],
        policy=_policy([digest for _, digest in scripts]),
        axis=series.time_axis(scenes),
        patterns=_PATTERNS,
        version=__version__,
    )


def _script(text: str) -> tuple[Markup, str]:
    """A script of ours or of Bokeh's as it stands in the page, and its hash."""
    digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
    return Markup(text), f"'sha256-{digest}'"  # noqa: S704


def _policy(digests: list[str]) -> str:
    """Content security policy: no network, no script but these. Bokeh sets styles of its own."""
    return (
        f"default-src 'none'; script-src {' '.join(digests)}; style-src 'unsafe-inline'; "
        "img-src data: blob:; base-uri 'none'; form-action 'none'"
    )


def _data(content: dict[str, Any]) -> Markup:
    """JSON that cannot end the element it stands in."""
    text = json.dumps(content, allow_nan=False, separators=(",", ":"))
    return Markup(text.replace("<", "\\u003c").replace(">", "\\u003e"))  # noqa: S704


def _findings(findings: Result, side: str = "") -> dict[str, Any]:
    """The findings as cards, and what was looked for in vain, or could not be."""
    rows = [
        {key: visible(str(row.get(key) or "")) for key in (*_CARD, *_CERTAINTY)}
        for row in findings.tables["findings"]
    ]
    unchecked = {
        name: ", ".join(lacking) for name, lacking in findings.scalars["unchecked"].items()
    }
    found = {row["id"] for row in rows}
    checked = [name for name in findings.scalars["checked"] if name not in found]
    return {"side": side, "rows": rows, "not_found": checked, "unchecked": unchecked}


_CARD = ("id", "severity", "title", "summary", "remedy")
_CERTAINTY = ("certainty", "certainty_because")


def _headline(picture: Picture) -> list[tuple[str, str, str]]:
    """The numbers to see first: what, how much, and in other words."""
    results = picture.report.results
    totals = results["totals"].scalars
    moved = [
        ("into the balloon", gib(totals["inflated_pages"]), count(totals["inflated_pages"])),
        ("out of the balloon", gib(totals["deflated_pages"]), count(totals["deflated_pages"])),
        ("net", gib(totals["net_pages"]), count(totals["net_pages"])),
    ]
    tiles = [
        (what, ABSENT if value == ABSENT else f"{value} GiB", f"{pages} pages")
        for what, value, pages in moved
    ]
    episode = main_inflation(picture.report)
    if episode:
        took = seconds(episode["end_s"] - episode["start_s"])
        reached = {"reached": f"target reached in {took}"}.get(
            episode["outcome"], f"{episode['outcome']} after {took}"
        )
        tiles += [
            ("main inflation", amplified(episode, "×"), reached),
            (
                "longest no-progress",
                bounded(seconds(episode["longest_no_progress_s"]), episode["events_missing"]),
                "in the main inflation",
            ),
        ]
    of = "recording" if picture.report.recording.scalars["since_s"] is None else "window"
    round_trip = f"round trip of the whole {of} {number(totals['round_trip_ratio'], 3)}"
    tiles.append(("churn ratio", number(totals["churn_ratio"], 3), round_trip))
    oom = results["oom"].scalars
    killed, asked = oom.get("killed"), oom.get("notifier_calls")
    said = ["kills: not recorded"] if killed is None else []
    said += (
        ["notifier: not recorded"] if asked is None else [f"the balloon was asked {asked:,} times"]
    )
    tiles.append(("OOM kills", count(killed), "; ".join(said)))
    return tiles
