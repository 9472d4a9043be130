# SPDX-License-Identifier: Apache-2.0
"""The pictures: a page that needs no network and cannot be injected into, stills, and text."""

from __future__ import annotations

import base64
import hashlib
import importlib.util
import json
import os
import re
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from functools import partial
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from balloontrace.analysis.compare import compare
from balloontrace.analysis.html.report import compare_html, report_html
from balloontrace.analysis.html.tables import LINE_CHARACTERS, ROWS, Blocks
from balloontrace.analysis.text.report import report_text
from balloontrace.analysis.text.writer import Page
from balloontrace.analysis.timeline.matplotlib import figure
from balloontrace.analysis.timeline.picture import Picture, picture, picture_pair
from balloontrace.analysis.timeline.series import alone, side_by_side, ticks
from balloontrace.analysis.timeline.terminal import timeline
from balloontrace.analysis.trace.trace import read_trace
from balloontrace.errors import EXIT_FAILURE, EXIT_UNSUPPORTED, EXIT_USAGE, UserError
from balloontrace.recording.writer import Writer
from tests.unit.builders import Built, shrinker_like, stock_like
from tests.unit.command_line import balloontrace as main
from tests.unit.test_house import loaded_by

DATA = Path(__file__).parents[2] / "data"
TOUR = DATA / "6.1-tour.btrace"

HOSTILE = [
    b"<script>alert(1)",
    b"</script><b>",
    b"\"'><img src=x>",
    "\u202etac".encode(),
    b"\xff\xfe\x1b[31m",
    b"${{x}}{% x %}",
]


class Parsed(HTMLParser):
    """What a browser would make of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.content: dict[str, list[str]] = {}
        self._open = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, {name: value or "" for name, value in attrs}))
        self._open = tag
        if tag == "script":
            self.content.setdefault(tag, []).append("")

    def handle_endtag(self, tag: str) -> None:
        self._open = ""

    def handle_data(self, data: str) -> None:
        if self._open == "script":
            self.content["script"][-1] += data

    def policy(self) -> str:
        return next(
            attrs["content"]
            for tag, attrs in self.tags
            if tag == "meta" and attrs.get("http-equiv") == "Content-Security-Policy"
        )


def drawn(built: Built, tmp_path: Path) -> Picture:
    return picture(built.write(tmp_path / "r.btrace"))


def repeated(source: Path, target: Path, times: int) -> str:
    """A long recording: a real one `times` times, one after the other."""
    trace = read_trace(str(source))
    span = trace.end_ns - trace.begin_ns
    descriptor = os.open(target, os.O_WRONLY | os.O_CREAT)
    writer = Writer(descriptor)
    writer.header(trace.header)
    for number in range(times):
        records = trace.records.copy()
        records["start_ns"] += number * span
        raw, size = records.tobytes(), records.dtype.itemsize * 4096
        for first in range(0, len(raw), size):
            writer.events(raw[first : first + size])
        for sample in trace.recording.samples:
            writer.sample({**sample, "t_ns": sample["t_ns"] + number * span})
    writer.trailer({**trace.trailer, "ended_ns": trace.end_ns + (times - 1) * span})
    os.close(descriptor)
    return str(target)


@pytest.fixture(scope="module")
def tour() -> Picture:
    return picture(str(TOUR))


@pytest.fixture(scope="module")
def page(tour: Picture) -> str:
    return report_html(tour)


def test_the_page_fetches_nothing(page: str) -> None:
    parsed = Parsed(page)
    for tag, attrs in parsed.tags:
        assert tag not in ("link", "iframe", "object", "embed", "base"), tag
        for name in ("src", "href", "srcset", "action", "data", "xlink:href"):
            target = attrs.get(name) or "#"
            assert target.startswith(("data:image/png;base64,", "#")), attrs
    style = page.split("<style>")[1].split("</style>")[0]
    assert "url(" not in style
    assert "@import" not in style
    assert "default-src 'none'" in parsed.policy()
    for word in ("http:", "https:", "*", "'unsafe-eval'", "'self'", "script-src 'unsafe-inline'"):
        assert word not in parsed.policy()


def test_only_the_pages_own_scripts_may_run(page: str) -> None:
    parsed = Parsed(page)
    script_src = re.search(r"script-src ([^;]*);", parsed.policy())
    assert script_src is not None
    allowed = script_src[1].split()
    data, *scripts = parsed.content["script"]
    hashes = [base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in scripts]
    assert allowed == [f"'sha256-{digest}'" for digest in hashes]
    assert json.loads(data)["chart"]["docs"]["timeline"]


def test_the_page_says_what_the_report_says(page: str, tour: Picture) -> None:
    results = tour.report.results
    assert results["reconciliation"].scalars["summary"] in page
    for heading in ("Totals", "Episodes", "Causes", "Phases", "Out of memory", "Delays", "Seams"):
        assert f"<h2>{heading}</h2>" in page
    assert f"{results['totals'].scalars['inflated_pages']:,} pages" in page
    # All episodes are there, not only those of the text report.
    last = results["episodes"].tables["episodes"][-1]
    assert f'<td class="number">{last["start_s"]:,.1f}</td>' in page


def test_the_same_recording_gives_the_same_scene(tour: Picture) -> None:
    assert figure(alone(tour), "svg") == figure(alone(tour), "svg")
    assert figure(alone(tour), "png") == figure(alone(tour), "png")


@pytest.mark.parametrize("comm", HOSTILE)
def test_hostile_names_stay_text(tmp_path: Path, page: str, comm: bytes) -> None:
    built = Built(base=1000).target(0.5, 256_000, 1000)
    built.leak(1, 0.1, 50, within="scan leak", tid=7, comm=comm)
    built.call("oom_kill", 1.5, 0.0, 0, 31, comm=comm, tid=9)
    text = comm.decode("utf-8", "surrogateescape")
    built.header["guest"] |= {"hostname": text, "kernel": text}
    built.header["balloon"]["features"] = [text]
    built.header["seams"]["migrate"] = {"rung": None, "loses": "", "not": [text]}
    built.header["seams"]["sleep"] = {"rung": None, "loses": "", "not": [text]}
    picture_ = drawn(built.ends(3), tmp_path)
    hostile = report_html(picture_)
    hostile.encode()
    parsed = Parsed(hostile)
    assert {tag for tag, _ in parsed.tags} <= {tag for tag, _ in Parsed(page).tags}
    assert len(parsed.content["script"]) == 3
    json.loads(parsed.content["script"][0])
    assert parsed.policy() == Parsed(page).policy()
    assert "\u202e" not in hostile
    assert "\x1b" not in hostile
    svg = ElementTree.fromstring(figure(alone(picture_), "svg"))
    assert not [element for element in svg.iter() if element.tag.endswith(("}script", "}b"))]


def test_a_page_stays_small_whatever_the_recording(tmp_path: Path) -> None:
    path = repeated(DATA / "6.1-shrinker-reclaim.btrace", tmp_path / "long.btrace", 60)
    picture_ = picture(path)
    assert picture_.report.recording.scalars["events"] == 60 * 2784
    assert len(report_html(picture_).encode()) < 4 << 20


def test_tables_and_lines_of_a_page_are_bounded_and_say_so() -> None:
    blocks = Blocks()
    blocks.table(["<a", "b"], [["x", str(i)] for i in range(ROWS + 7)])
    blocks.line("x" * (LINE_CHARACTERS + 1))
    table, line = blocks.sections[0].blocks
    assert (len(table.rows), table.hidden) == (ROWS, 7)
    assert table.columns == [("a", False), ("b", True)]
    assert line.text.endswith("report --json has all of it)")


def test_a_histogram_has_numbers_and_bars(tmp_path: Path) -> None:
    built = Built().fill(1, 0.003, 1)
    for at in range(4):
        built.fill(at + 2, 0.001, 1)
    page = report_html(drawn(built.ends(9), tmp_path))
    table = page.split("<caption>fill</caption>")[1].split("</table>")[0]
    rows = re.findall(r"<tr><td.*?</tr>", table)
    assert [re.findall(r">([^<>]+)<", row) for row in rows] == [
        ["512 to 1,023", "4"],
        ["1,024 to 2,047", "0"],
        ["2,048 to 4,095", "1"],
    ]
    # No bar at all where there is no call.
    assert [re.findall(r"width: (.*?)%", row) for row in rows] == [["100.0"], [], ["25.0"]]


def test_one_call_of_a_billion_has_a_bar() -> None:
    blocks = Blocks()
    blocks.histogram("fill", "us", [(1, 1, 10**9), (2, 3, 1)])
    assert blocks.sections[0].blocks[0].bars == [100, 1e-7]


def test_rows_of_episodes_point_at_the_timeline(page: str, tour: Picture) -> None:
    spans = [
        (float(attrs["data-start"]), float(attrs["data-end"]))
        for tag, attrs in Parsed(page).tags
        if tag == "a" and attrs["href"] == "#timeline" and "data-start" in attrs
    ]
    results = tour.report.results
    episodes = [(row["start_s"], row["end_s"]) for row in results["episodes"].tables["episodes"]]
    after = [(row["reached_s"], row["end_s"]) for row in results["periods"].tables["after"]]
    hints = [(row["start_s"], row["end_s"]) for row in results["free_pages"].tables["hint_runs"]]
    # Two tables of episodes: what became of them, and what they cost.
    assert spans == [*episodes, *episodes, *after, *hints]


def test_what_was_not_recorded_is_said_in_the_page(tmp_path: Path) -> None:
    built = stock_like(chunks=5)
    built.header["seams"]["leak"] = {"rung": None, "loses": "", "not": ["no BTF"]}
    page = report_html(drawn(built, tmp_path))
    assert "not recorded: leak (no BTF)" in page
    assert "OOM notifier: none" in page
    assert '<div class="value">-</div><div class="more">- pages</div>' in page


def test_a_finding_stands_above_all(tmp_path: Path) -> None:
    page = report_html(drawn(shrinker_like(), tmp_path))
    assert page.index("Busy no-op") < page.index("<h2>Timeline</h2>")
    assert "da10329cb057" in page


@pytest.mark.parametrize("make", [lambda: Built().ends(0), lambda: Built(base=7).ends(5)])
def test_a_recording_of_nothing_is_drawn(tmp_path: Path, make: Any) -> None:
    empty = drawn(make(), tmp_path)
    assert "<h2>Timeline</h2>" in report_html(empty)
    assert figure(alone(empty), "png").startswith(b"\x89PNG")


def texts(svg: bytes) -> str:
    root = ElementTree.fromstring(svg)
    return "\n".join("".join(e.itertext()) for e in root.iter() if e.tag.endswith("}text"))


def test_the_still_is_svg_with_text_and_units(tour: Picture) -> None:
    svg = figure(alone(tour), "svg")
    said = texts(svg)
    for words in (
        *("6.1.0-56-cloud-amd64", "oom-notifier", "6.1-tour.btrace", "0 events lost"),
        *("MiB", "pages", "pages per 0.", "% of time", "seconds since the probes were attached"),
        *("out: OOM notifier", "OOM kill: 2", "no progress: "),
    ):
        assert words in said
    assert ElementTree.fromstring(svg).get("width") == "900pt"
    assert b"<dc:date>" not in svg


def test_two_recordings_have_one_axis(tmp_path: Path) -> None:
    before = shrinker_like().write(tmp_path / "before.btrace")
    after = stock_like(chunks=1000).write(tmp_path / "after.btrace")
    pair = picture_pair(before, after)
    scenes = side_by_side(*pair)
    assert [scene.origin_s for scene in scenes] == [0.5, 1.0]
    assert scenes[0].bin_s == scenes[1].bin_s
    page = compare_html(compare(*(p.report for p in pair)), *pair)
    document = json.loads(Parsed(page).content["script"][0])["chart"]["docs"]["timeline"]
    assert len(document["roots"]) == 10
    roots = [root["attributes"] for root in document["roots"]]
    shared = roots[0]["x_range"]["id"]
    assert {root["x_range"]["id"] for root in roots} == {shared}
    assert "before: Pages in" in page
    assert "after: Pages in" in page
    assert "inflation duration" in page
    assert "since the main inflation began" in texts(figure(scenes, "svg"))


def test_ticks_are_round_and_have_zero() -> None:
    assert ticks(-45_000, 14_000) == [-40_000.0, -20_000.0, 0.0]
    assert ticks(-0.3, 3.1) == [0.0, 1.0, 2.0, 3.0]


def lines_of(picture_: Picture, blocks: bool = True) -> list[str]:
    page = Page(colour=False)
    timeline(page, picture_.timeline, blocks)
    return page.text().splitlines()


def test_the_timeline_in_text(tmp_path: Path) -> None:
    # 78 columns of 1 s: up to half by 39 s, then all of it within one column; the target is all of
    # it.
    built = Built().target(0, 1024, 0).fill(30, 9, 512).fill(58, 0.5, 512)
    built.call("oom_kill", 60.5, 0, 0, 31)
    for at in (10.2, 11.4):
        built.call("oom_notify", at, 0.1, 0, 0)
    _, heading, *lines = lines_of(drawn(built.ends(78), tmp_path))
    assert heading == "Timeline (1.0 s a column; ░: for a part of it)"
    before = 2 + 12 + 1
    assert [line[before:] for line in lines[:4]] == [
        "─" * 59 + "█" * 19,
        " " * 58 + "░" + "█" * 19,
        " " * 39 + "█" * 39,
        " " * 39 + "█" * 39,
    ]
    assert lines[0].startswith("      4.00 MiB ")
    assert lines[4:] == [
        "   no progress " + "=" * 59,
        "  OOM notifier " + " " * 10 + "oo",
        "      OOM kill " + " " * 60 + "X",
        " " * before + "0" + " " * 38 + "39.0" + " " * 29 + "78.0 s",
    ]


def test_a_balloon_that_comes_and_goes_within_a_column_is_drawn_from_least_to_most(
    tmp_path: Path,
) -> None:
    # 720 cycles in 78 columns: whatever moment of a column was drawn, it would be chance.
    built = Built()
    for cycle in range(720):
        built.target(cycle, 1024, 0).fill(cycle, 0.25, 1024)
        built.target(cycle + 0.5, 0, 1024).leak(cycle + 0.5, 0.25, 1024)
    _, heading, *lines = lines_of(drawn(built.ends(720), tmp_path))
    assert heading == "Timeline (9.2 s a column; ░: for a part of it)"
    assert [line[2 + 12 + 1 :] for line in lines[:4]] == ["─" * 78, *["░" * 78] * 3]


def test_the_timeline_in_ascii(tour: Picture) -> None:
    lines = lines_of(tour, blocks=False)
    "\n".join(lines).encode("ascii")
    assert len(lines) == len(lines_of(tour))
    assert max(map(len, lines)) <= 98


def test_a_text_report_has_a_timeline_only_where_something_moved(tmp_path: Path) -> None:
    moved = drawn(stock_like(chunks=9), tmp_path)
    text = report_text(moved.report, timeline=partial(timeline, course=moved.timeline))
    assert "\nTimeline (" in text
    assert max(map(len, text.splitlines())) < 100
    still = drawn(Built().ends(9), tmp_path)
    assert "Timeline" not in report_text(
        still.report, timeline=partial(timeline, course=still.timeline)
    )


def test_the_commands_write_pictures(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = Path(shrinker_like().write(tmp_path / "before.btrace"))
    after = Path(stock_like().write(tmp_path / "after.btrace"))
    html, svg, png = (tmp_path / f"out.{kind}" for kind in ("html", "svg", "png"))
    main("report", before, "--html", html, "--svg", svg, "-f")
    assert capsys.readouterr().out == ""
    assert html.read_text().startswith("<!DOCTYPE html>")
    ElementTree.parse(svg)
    main("report", before, "--json", "--svg", png, "-f")
    captured = capsys.readouterr()
    assert json.loads(captured.out)["schema"] == 2
    assert captured.err.startswith(f"wrote {png}")
    assert png.read_bytes().startswith(b"\x89PNG")
    other = Path(shrinker_like(rounds=9).write(tmp_path / "other.btrace"))
    runs = ("--before", before, "--before", other, "--after", after)
    main("compare", *runs, "--html", html, "-f")
    assert capsys.readouterr().out == ""
    compared = html.read_text()
    assert "Two balloons" in compared
    assert "median of 2" in compared
    drawn_runs = re.findall(r'<p class="scene">[^<]*?(\w+\.btrace)', compared)
    assert drawn_runs == ["before.btrace", "after.btrace"]
    with pytest.raises(UserError, match="cannot write"):
        main("report", before, "--html", tmp_path / "no" / "x.html")


def test_a_picture_of_an_unknown_kind_is_a_usage_error(tmp_path: Path) -> None:
    with pytest.raises(UserError) as caught:
        main("report", TOUR, "--svg", tmp_path / "x.jpg")
    assert caught.value.exit_code == EXIT_USAGE
    assert not (tmp_path / "x.jpg").exists()


def balloontrace(directory: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the command line there."""
    command = [sys.executable, "-m", "balloontrace", *arguments]
    return subprocess.run(command, cwd=directory, capture_output=True, text=True, check=False)


@pytest.fixture
def recordings(tmp_path: Path) -> dict[str, bytes]:
    """Two recordings, a.btrace and b.btrace: name -> content."""
    names = ("a.btrace", "b.btrace")
    return {name: Path(stock_like().write(tmp_path / name)).read_bytes() for name in names}


@pytest.mark.parametrize(
    ("arguments", "complaint", "status"),
    [
        # What a shell makes of `report --html *.btrace`.
        (("report", "--html", "a.btrace", "b.btrace"), "ends with .html", EXIT_USAGE),
        (("report", "--html", "a.btrace", "a.btrace", "-f"), "ends with .html", EXIT_USAGE),
        (("compare", "--svg", "a.btrace", "a.btrace", "b.btrace"), "ends with .svg", EXIT_USAGE),
        (("report", "b.btrace", "--html", "a.html", "-f"), "no regular file", EXIT_FAILURE),
        (("report", "a.btrace", "--html", "old.html"), "exists; overwrite it", EXIT_FAILURE),
        (("report", "b.html", "--html", "b.html", "-f"), "is a recording", EXIT_USAGE),
        (("compare", "a.btrace", "b.html", "--html", "b.html", "-f"), "is a recording", EXIT_USAGE),
    ],
)
def test_a_picture_never_destroys_what_it_should_not(
    recordings: dict[str, bytes],
    tmp_path: Path,
    arguments: tuple[str, ...],
    complaint: str,
    status: int,
) -> None:
    (tmp_path / "a.html").symlink_to("a.btrace")
    (tmp_path / "b.html").hardlink_to(tmp_path / "b.btrace")
    (tmp_path / "old.html").write_text("old")
    done = balloontrace(tmp_path, *arguments)
    assert (done.returncode, done.stdout) == (status, "")
    assert complaint in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert {name: (tmp_path / name).read_bytes() for name in recordings} == recordings
    assert (tmp_path / "old.html").read_text() == "old"


def test_a_picture_is_its_owner_s(recordings: dict[str, bytes], tmp_path: Path) -> None:
    (tmp_path / "old.svg").write_text("old")
    done = balloontrace(tmp_path, "report", "a.btrace", "--svg", "old.svg", "-f")
    assert done.returncode == 0, done.stderr
    ElementTree.parse(tmp_path / "old.svg")
    assert (tmp_path / "old.svg").stat().st_mode & 0o777 == 0o600
    assert {path.suffix for path in tmp_path.iterdir()} == {".btrace", ".svg"}


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    real = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "bokeh" else real(name)
    )
    with pytest.raises(UserError) as caught:
        main("report", TOUR, "--html", tmp_path / "x.html")
    assert caught.value.message == "--html needs bokeh, which is not installed here"
    assert "balloontrace[html]" in caught.value.hint
    assert caught.value.exit_code == EXIT_UNSUPPORTED


def test_only_pictures_load_what_draws_them() -> None:
    assert not loaded_by("import balloontrace.cli.app") & {"bokeh", "jinja2", "matplotlib"}
    command = "from balloontrace.cli.app import app; app(['report', %r], standalone_mode=False)"
    assert not loaded_by(command % str(TOUR)) & {"bokeh", "jinja2", "matplotlib"}


def test_the_page_has_contents_whose_sections_fold(tour: Picture) -> None:
    page = report_html(tour)
    contents = re.findall(r'<a href="#([\w-]+)">([^<]+)</a>', page)
    assert ("timeline", "Timeline") in contents
    for anchor, title in contents[1:]:
        assert f'<details open id="{anchor}">\n<summary><h2>{title}</h2></summary>' in page
    # Each finding is told once.
    assert page.count("A container was OOM-killed beside an inflated balloon") == 1
