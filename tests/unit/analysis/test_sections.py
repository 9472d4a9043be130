# SPDX-License-Identifier: Apache-2.0
"""A section is declared once: text, JSON, its schema and the docs say what it declares."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from balloontrace.analysis import base, json_schema, report
from balloontrace.analysis.base import Question, Result, Section
from balloontrace.analysis.fields import Field, Table, Unit
from balloontrace.analysis.json import report_json
from balloontrace.analysis.report import Report, build
from balloontrace.analysis.text.report import first_screen, report_text
from balloontrace.analysis.trace.trace import Trace, read_trace
from balloontrace.analysis.trace.window import Window
from tests.unit.builders import Built, ns, vmstat
from tests.unit.golden import RECORDINGS

DOCS = Path(__file__).parents[3] / "docs"


def report_of(built: Built, tmp_path: Path) -> Report:
    return build(built.write(tmp_path / "r.btrace"))


def gone_and_back() -> Built:
    """A driver that was not there for a while, in which pages moved."""
    built = Built().target(1, 400, 0).fill(1, 0.5, 256)
    built.call("remove", 3, 1, 0, 0, tid=9, comm=b"rmmod")
    built.leak(3.5, 0.4, 256, within="remove leak", tid=9, comm=b"rmmod")
    built.gone(5, vmstat(256, 256)).attached(6.5, vmstat(556, 256))
    return built.ends(9, vmstat(556, 256))


def closed(schema: Any) -> Any:
    """The same schema, which allows no key that it does not name: but for objects without any."""
    if isinstance(schema, list):
        return [closed(value) for value in schema]
    if not isinstance(schema, dict):
        return schema
    inner = {key: closed(value) for key, value in schema.items()}
    if inner.get("properties"):
        inner["additionalProperties"] = False
    return inner


def faults(report: str) -> list[str]:
    """What of a report is not as declared."""
    validator = Draft202012Validator(closed(json_schema.report_schema()))
    return [f"{e.json_path}: {e.message}" for e in validator.iter_errors(json.loads(report))]


@pytest.mark.parametrize("recording", RECORDINGS, ids=lambda path: path.stem)
def test_reports_of_real_guests_say_what_is_declared_and_no_more(recording: Path) -> None:
    assert faults(report_json(build(str(recording)))) == []


def test_so_do_those_of_a_driver_that_was_gone_and_of_next_to_nothing(tmp_path: Path) -> None:
    for built in (gone_and_back(), Built(), Built().ends(1)):
        assert faults(report_json(report_of(built, tmp_path))) == []


def test_so_do_those_of_a_window_and_of_marks(tmp_path: Path) -> None:
    built = gone_and_back()
    built.samples.append({"t_ns": ns(4.0), "mark": "now"})
    whole = read_trace(built.write(tmp_path / "r.btrace"))
    for since, until in ((1.2, 4.5), (5.5, 6.0), (7.0, 8.0)):
        window = Window(whole, ns(since), ns(until))
        assert faults(report_json(report.report_of(window))) == []


def test_what_is_not_declared_is_noticed(tmp_path: Path) -> None:
    report = report_of(Built().ends(1), tmp_path)
    report.results["totals"].scalars["rain_mm"] = 3
    report.results["oom"].scalars["killed"] = "nobody"
    places = {fault.split(":")[0] for fault in faults(report_json(report))}
    assert places == {"$.oom.killed", "$.totals"}


def test_what_is_published_is_up_to_date() -> None:
    assert (DOCS / "report.schema.json").read_text() == json_schema.schema_text()
    assert (DOCS / "report-json.md").read_text() == json_schema.markdown()


@pytest.fixture
def weather(monkeypatch: pytest.MonkeyPatch) -> None:
    """A question more."""
    base.sections()  # all others are there
    monkeypatch.setattr(base, "SECTIONS", dict(base.SECTIONS))
    monkeypatch.setattr(Question, "registered", dict(Question.registered))

    class Weather(Question):
        section = Section(
            "weather",
            "Weather",
            45,
            "what the sky did",
            (Field("rain_mm", Unit.NUMBER, "fallen"),),
            (Table("clouds", (Field("kind", Unit.TEXT, title="kind"),), "clouds"),),
            first_screen=base.always,
        )

        def run(self, trace: Trace) -> Result:
            clouds = [{"kind": f"cirrus {number}"} for number in range(12)]
            return Result(self.name, {"rain_mm": 3}, {"clouds": clouds})


@pytest.mark.usefixtures("weather")
def test_a_question_is_one_class(tmp_path: Path) -> None:
    report = report_of(Built().ends(1), tmp_path)
    text = first_screen(report)
    assert "\nWeather\n  rain_mm: 3\n  kind\n  cirrus 0\n" in text
    assert "cirrus 9\n  and 2 more clouds (-v shows all)\n" in text
    assert "cirrus 11" in report_text(report, verbose=True)
    # Its place is after the episodes.
    assert text.index("\nEpisodes\n") < text.index("\nWeather\n")
    content = json.loads(report_json(report))
    assert content["weather"]["rain_mm"] == 3
    assert faults(json.dumps(content)) == []
    assert "| `clouds[].kind` | text |  |" in json_schema.markdown()


def test_two_sections_cannot_have_one_place() -> None:
    with pytest.raises(ValueError, match="weather and findings are at 5"):
        base.declared(Section("weather", "Weather", 5, ""))
