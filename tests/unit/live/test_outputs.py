# SPDX-License-Identifier: Apache-2.0
"""Plain and JSON lines: legible, harmless, and what the documentation lists."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from balloontrace.live import json_lines
from balloontrace.live.plain import WIDTH, Lines
from balloontrace.live.view import View
from tests.unit.builders import Built
from tests.unit.live.test_model import FOUNDING, RECORDINGS, built, fed

ROOT = Path(__file__).parents[3]
HOSTILE = b"\x1b[2J\xff\xe2\x80\xae|;"


def views(path: Path) -> list[View]:
    """Of each second, and the last one."""
    model = fed(path.read_bytes())
    return [*(model.view(0.0, at=second) for second in model.seconds or ()), model.view(0.0)]


@pytest.mark.parametrize("path", RECORDINGS, ids=lambda path: path.stem)
def test_plain_lines_fit_any_terminal(path: Path) -> None:
    lines, text = Lines(), []
    for view in views(path):
        text += lines.of(view).splitlines()
    assert all(len(line) <= WIDTH and line.isascii() and line.isprintable() for line in text)


def test_a_slow_line_takes_them() -> None:
    model = fed(FOUNDING.read_bytes())
    lines = Lines()
    lengths = [len(lines.of(model.view(0.0, at=second))) for second in model.seconds or ()]
    assert max(lengths[1:]) < 9600 / 10


def test_what_is_not_known_is_no_number() -> None:
    nothing = fed(FOUNDING.read_bytes()[:12_000]).view(0.0)
    nothing = replace(nothing, size_pages=None, target_pages=None)
    line = Lines().of(nothing).splitlines()[3]
    assert line.split()[1:3] == ["?", "?"]


def hostile(tmp_path: Path) -> View:
    recording = Built()
    recording.header["guest"]["hostname"] = "evil\x1b]0;\u202e"
    recording.fill(1.0, 0.01, 500).leak(2.0, 0.01, 100, within="scan", comm=HOSTILE)
    return fed(built(recording.ends(4.0), tmp_path)).view(0.0)


def test_names_of_the_guest_do_no_harm(tmp_path: Path) -> None:
    view = hostile(tmp_path)
    text = Lines().of(view)
    assert "evil\\x1b" in text
    line = json_lines.line(view)
    assert line.isascii()
    assert line.isprintable()
    content = json.loads(line)
    assert content["host"] == "evil\\x1b]0;\\u202e"
    assert content["tasks"][0]["comm"].startswith("\\x1b[2J\\xff")


def test_each_finding_is_said_when_it_begins_and_ends() -> None:
    path = next(path for path in RECORDINGS if path.stem == "6.12-tour")
    lines, said = Lines(), []
    for view in views(path):
        said += [line for line in lines.of(view).splitlines() if line.startswith("!")]
    assert any(line.startswith("! out-of-puff since") for line in said)
    assert any(line.startswith("! out-of-puff was last true") for line in said)
    assert len(said) == len(set(said))


def test_a_json_line_has_the_keys_of_the_documentation() -> None:
    line = json_lines.line(views(FOUNDING)[-1])
    assert "\n" not in line
    assert json_lines.markdown() in (ROOT / "docs/live.md").read_text()
    assert [f"`{key}`" in json_lines.markdown() for key in json.loads(line)].count(False) == 0
