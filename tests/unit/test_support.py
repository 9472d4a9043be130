# SPDX-License-Identifier: Apache-2.0
"""The tour's recordings, one of each kernel of the lab, and the support matrix made from them."""

from __future__ import annotations

from pathlib import Path

import pytest

from balloontrace.analysis.report import Report, build
from balloontrace.lab.kernels import find_kernel, load_kernels
from balloontrace.lab.loads import MIB_PAGES, SUSPEND_SEAMS, TOUR_SEAMS
from tools.support import matrix, recording_of

DOCS = Path(__file__).parents[2] / "docs"
KERNELS = list(load_kernels())


@pytest.fixture(scope="module")
def reports() -> dict[str, Report]:
    """What `report` makes of each kernel's recording."""
    return {kernel: build(str(recording_of(kernel))) for kernel in KERNELS}


@pytest.mark.parametrize("kernel", KERNELS)
def test_a_recording_of_each_kernel(reports: dict[str, Report], kernel: str) -> None:
    report = reports[kernel]
    events = {row["seam"]: row["events"] for row in report.results["seams"].tables["seams"]}
    checked = report.results["reconciliation"].scalars
    assert report.recording.scalars["lost_events"] == 0
    assert checked["exact"] is True
    assert checked["agrees"] is True
    suspends = not find_kernel(kernel).config
    expected = (*TOUR_SEAMS, *(SUSPEND_SEAMS if suspends else ()))
    assert [seam for seam in expected if not events[seam]] == []
    assert kernel in report.results["guest"].scalars["kernel"]
    assert report.results["guest"].scalars["driver_behaviour"] == "oom-notifier"
    pages: dict[str, int] = {}
    for row in report.results["causes"].tables["causes"]:
        pages[row["cause"]] = pages.get(row["cause"], 0) + row["pages"]
    assert pages["remove"] == 20 * MIB_PAGES
    assert pages.get("freeze") == (10 * MIB_PAGES if suspends else None)
    kills = report.results["oom"].tables["kills"]
    assert [(kill["victim"], kill["memcg"]) for kill in kills] == [
        ("python3", True),
        ("python3", False),
    ]


def test_the_support_matrix_is_up_to_date(reports: dict[str, Report]) -> None:
    assert (DOCS / "support.md").read_text(encoding="utf-8") == matrix(reports)
    for kernel in KERNELS:
        said = (DOCS / "doctor" / f"{kernel}.txt").read_text(encoding="utf-8")
        assert said.splitlines()[-1] == "record will work"
