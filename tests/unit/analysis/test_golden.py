# SPDX-License-Identifier: Apache-2.0
"""Reports of real recordings say what they said before (see golden.py)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.unit.golden import RECORDINGS, known, reported


def differences(before: Any, now: Any, path: str = "") -> Iterator[str]:
    """Where two reports differ, one line each."""
    if isinstance(before, dict) and isinstance(now, dict):
        for key in before.keys() | now.keys():
            yield from differences(before.get(key), now.get(key), f"{path}.{key}")
    elif isinstance(before, list) and isinstance(now, list) and len(before) == len(now):
        for place, pair in enumerate(zip(before, now, strict=True)):
            yield from differences(*pair, f"{path}[{place}]")
    elif before != now and before != pytest.approx(now, rel=1e-12):
        yield f"{path}: {before!r:.80} is now {now!r:.80}"


@pytest.mark.parametrize("recording", RECORDINGS, ids=lambda path: path.stem)
def test_a_report_says_what_it_said(recording: Path) -> None:
    found = sorted(differences(known()[recording.stem], reported(recording)))
    assert found == [], "if that is meant: make golden"
