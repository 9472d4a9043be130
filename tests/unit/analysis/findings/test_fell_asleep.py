# SPDX-License-Identifier: Apache-2.0
"""A guest that was suspended before its balloon had reached the target."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from balloontrace.analysis.report import build
from tests.unit.builders import Built

PM = {"within": "", "tid": 70, "comm": b"systemd-sleep"}


def fell_asleep(taken: int, suspended_s: float, call: str = "freeze") -> Built:
    """Of 51,200 pages `taken` were in the balloon when the guest was suspended."""
    built = Built().target(1, 51_200, 0).fill(1, 1, taken).call(call, 2.5, 0.1, 0, 0, **PM)
    built.leak(2.51, 0.05, taken, **{**PM, "within": f"{call} leak"})
    if call == "freeze":
        built.call("restore", 3, 0.1, 0, 0, **PM)
    else:
        built.call("bind", 3, 0.1, 0, 1, **PM)
    built.fill(3.2, 0.5, 51_200)
    assert built.trailer is not None
    built.trailer["suspended_ns"] = round(suspended_s * 1e9)
    return built.ends(5)


def found(built: Built, tmp_path: Path) -> dict[str, Any] | None:
    rows = build(built.write(tmp_path / "r.btrace")).results["findings"].tables["findings"]
    return next((row for row in rows if row["id"] == "worker-at-rest"), None)


def test_short_of_its_target(tmp_path: Path) -> None:
    row = found(fell_asleep(1280, 600), tmp_path)
    assert row is not None
    evidence = row["evidence"]
    assert (evidence["episode"], evidence["end_s"], evidence["short_pages"]) == (1, 2.5, 49_920)
    assert (evidence["suspended"], evidence["suspended_s"]) == (1, 600)
    assert "the guest was suspended at 2.5 s, 49,920 pages short of its target" in row["summary"]
    assert "b12fbc3f787e" in row["remedy"]


@pytest.mark.parametrize(
    ("taken", "suspended_s", "call"),
    [(51_200, 600, "freeze"), (1280, 3, "freeze"), (1280, 600, "remove")],
)
def test_at_its_target_or_for_a_moment_or_without_its_driver(
    tmp_path: Path, taken: int, suspended_s: float, call: str
) -> None:
    assert found(fell_asleep(taken, suspended_s, call), tmp_path) is None
