# SPDX-License-Identifier: Apache-2.0
"""Programs that no test runs, for they take minutes, still ask reports for what is in them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import pytest

from balloontrace.analysis.base import Result
from balloontrace.analysis.report import build

ROOT = Path(__file__).parents[2]
PROGRAMS = [
    path for folder in ("bench", "tools", "tests/stress") for path in (ROOT / folder).glob("*.py")
]
_ASKED = re.compile(
    r'(?:results\["(?P<name>\w+)"\]|(?P<recording>recording))'
    r'\.(?P<part>scalars|tables)\["(?P<key>\w+)"\]'
)
_NAMED = re.compile(r'results\["(?P<name>\w+)"\]')


@pytest.fixture(scope="module")
def results() -> Mapping[str, Result]:
    return build(str(ROOT / "tests" / "data" / "6.1-tour.btrace")).results


@pytest.mark.parametrize("path", PROGRAMS, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_programs_ask_for_what_a_report_has(path: Path, results: Mapping[str, Result]) -> None:
    program = path.read_text()
    assert {found["name"] for found in _NAMED.finditer(program)} <= set(results)
    for found in _ASKED.finditer(program):
        part = getattr(results[found["name"] or "recording"], found["part"])
        assert found["key"] in part, found[0]
