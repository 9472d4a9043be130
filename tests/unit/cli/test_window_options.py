# SPDX-License-Identifier: Apache-2.0
"""`--since` and `--until` on the command line: what can be meant, and what cannot, in one line."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest

from balloontrace.errors import EXIT_USAGE, UserError
from tests.unit.builders import ATTACHED_NS, Built
from tests.unit.command_line import balloontrace

MIDNIGHT = 1_795_651_200
"""2026-11-26 00:00:00 UTC."""


@pytest.fixture
def recording(tmp_path: Path) -> Path:
    """From 23:59:50 to 23:59:58 a day later; a chunk goes in at second 1, 30 and 3600."""
    built = Built().target(0.5, 768, 0)
    for second in (1.0, 30.0, 3600.0):
        built.fill(second, 0.5, 256)
    clock = {"monotonic_ns": ATTACHED_NS, "realtime_ns": (MIDNIGHT - 10) * 10**9}
    built.header["clock"] = clock
    return Path(built.ends(86_408.0).write(tmp_path / "r.btrace"))


def reported(
    capsys: pytest.CaptureFixture[str], recording: Path, *options: str
) -> tuple[float, float, int]:
    """From when to when, and what went in."""
    balloontrace("report", recording, "--json", *options)
    report: dict[str, Any] = json.loads(capsys.readouterr().out)
    return report["since_s"], report["until_s"], report["totals"]["inflated_pages"]


@pytest.mark.parametrize(
    ("options", "meant"),
    [
        (["--since", "10"], (10.0, 86_408.0, 512)),
        (["--since", "10", "--until", "1h"], (10.0, 3600.0, 256)),
        (["--until", "500ms"], (0.0, 0.5, 0)),
        (["--since", "2026-11-26 00:00:20"], (30.0, 86_408.0, 512)),
        (["--since", "2026-11-26T01:00:20+01:00"], (30.0, 86_408.0, 512)),
        (["--since", "2026-11-26T00:00:20.250Z", "--until", "00:01"], (30.25, 70.0, 256)),
        (["--until", "2027-01-01"], (0.0, 86_408.0, 768)),
        (["--since", "2020-01-01", "--until", "1h"], (0.0, 3600.0, 512)),
        (["--until", "01:00:00+01:00"], (0.0, 10.0, 256)),
    ],
)
def test_what_is_meant(
    options: list[str],
    meant: tuple[float, float, int],
    recording: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert reported(capsys, recording, *options) == meant


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--since", "100000"], "--since 100000 is the end of the recording, or after it"),
        (["--since", "86408"], "is the end of the recording"),
        (["--until", "0"], "is the begin of the recording, or before it"),
        (["--since", "2030-01-01"], "is the end of the recording"),
        (["--since", "20", "--until", "20"], "--since 20 is not before --until 20"),
        (["--since", "soon"], "--since soon is neither seconds nor a time"),
        (["--since", "-5"], "is neither seconds nor a time"),
        (["--since", "nan"], "is neither seconds nor a time"),
        (["--since", "\x1b[2J"], "--since \\x1b[2J is neither"),
        (["--since", "23:59:55"], "is on more than one day"),
    ],
)
def test_what_cannot_be_meant(options: list[str], said: str, recording: Path) -> None:
    with pytest.raises(UserError) as caught:
        balloontrace("report", recording, *options)
    assert caught.value.exit_code == EXIT_USAGE
    line = str(caught.value)
    assert said in line
    assert "it goes from 0 to 86,408.0 s (2026-11-25 23:59:50.000Z to 2026-11-26 23:59:58" in line
    assert "\n" not in line


def test_a_time_of_day_that_the_recording_does_not_have(tmp_path: Path) -> None:
    built = Built().fill(1.0, 0.5, 256)
    built.header["clock"] = {"monotonic_ns": ATTACHED_NS, "realtime_ns": MIDNIGHT * 10**9}
    path = built.ends(60.0).write(tmp_path / "r.btrace")
    with pytest.raises(UserError, match="--since 12:00:00 is not in the recording"):
        balloontrace("report", path, "--since", "12:00:00")


def test_a_recording_without_a_wall_clock(tmp_path: Path) -> None:
    path = Built().fill(1.0, 0.5, 256).ends(60.0).write(tmp_path / "r.btrace")
    with pytest.raises(UserError, match="does not have the guest's wall clock") as caught:
        balloontrace("report", path, "--since", "12:00:00")
    assert caught.value.exit_code == EXIT_USAGE


def test_the_report_says_which_part_it_is_of(
    recording: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    balloontrace("report", recording, "--since", "20", "--until", "1m")
    said = " ".join(capsys.readouterr().out.split())
    assert "window 20.0 s to 60.0 s (2026-11-26 00:00:10.000Z to 2026-11-26 00:00:50.000Z)" in said
    assert "of the recording's 86,408.0 s" in said
    assert "over the whole recording, traced totals equal /proc/vmstat" in said
    assert "at the beginning: 256 pages (1 MiB) in the balloon, target 768 pages" in said
    assert "#1 was under way when the window began" in said
    balloontrace("report", recording)
    assert "window" not in capsys.readouterr().out


def test_of_several_recordings_there_is_no_window(recording: Path) -> None:
    with pytest.raises(UserError, match="--since, --until, --host and -v are for one recording"):
        balloontrace("report", recording, recording, "--since", "1")


def test_exports_have_the_rows_of_the_window(recording: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    balloontrace(
        *("export", recording, "--format", "csv", "-o", out, "--since", "20", "--until", "1m")
    )
    with open(out / "fill.csv", newline="") as file:
        starts = [int(row["start_ns"]) for row in csv.DictReader(file)]
    assert starts == [ATTACHED_NS + 30 * 10**9]
    about = json.loads((out / "recording.json").read_text())
    assert about["since_ns"] == ATTACHED_NS + 20 * 10**9
    assert about["until_ns"] == ATTACHED_NS + 60 * 10**9
    assert about["end_ns"] == ATTACHED_NS + 86_408 * 10**9


@pytest.mark.parametrize("form", ["parquet", "perfetto"])
def test_every_format_takes_a_window(form: str, recording: Path, tmp_path: Path) -> None:
    whole, part = tmp_path / "whole", tmp_path / "part"
    balloontrace("export", recording, "--format", form, "-o", whole)
    balloontrace("export", recording, "--format", form, "-o", part, "--since", "20")
    if form == "parquet":
        whole, part = whole / "fill.parquet", part / "fill.parquet"
    assert part.read_bytes() != whole.read_bytes()
