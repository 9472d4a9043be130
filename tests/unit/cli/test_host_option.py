# SPDX-License-Identifier: Apache-2.0
"""`--host` on the command line, and the host's view that is used by itself."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from balloontrace.errors import EXIT_USAGE, UserError
from tests.unit.builders import ATTACHED_NS, stock_like
from tests.unit.command_line import balloontrace

CLOCK = {"event": "clock", "t_ns": ATTACHED_NS, "guest_monotonic_ns": ATTACHED_NS, "error_ns": 1}


@pytest.fixture
def recording(tmp_path: Path) -> Path:
    """One without a host's view."""
    return Path(stock_like().write(tmp_path / "guest.btrace"))


def host_of(path: Path, target_pages: int, boot_id: str = "0") -> Path:
    """A host's view with one target, at 0.98 s."""
    lines: list[dict[str, Any]] = [
        {"event": "begin", "t_ns": ATTACHED_NS - 1, "format": 1, "tells": ["target", "clock"]},
        {**CLOCK, "boot_id": boot_id},
        {"event": "target", "t_ns": ATTACHED_NS + 980_000_000, "bytes": target_pages * 4096},
    ]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def targets(
    capsys: pytest.CaptureFixture[str], recording: Path, *options: str | Path
) -> list[int] | None:
    """The targets of the host that the report has; None: it has no host's view."""
    balloontrace("report", recording, "--json", *options)
    told = json.loads(capsys.readouterr().out)["host_side"]
    return told and [row["target_pages"] for row in told["targets"]]


def test_the_one_of_the_recording_s_name_is_used_by_itself(
    recording: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert targets(capsys, recording) is None
    host_of(recording.with_suffix(".host.jsonl"), 7)
    assert targets(capsys, recording) == [7]
    balloontrace("report", recording)
    assert "guest.host.jsonl" in capsys.readouterr().out


def test_the_one_that_is_named_counts(
    recording: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    host_of(recording.with_suffix(".host.jsonl"), 7)
    assert targets(capsys, recording, "--host", host_of(tmp_path / "other.jsonl", 8)) == [8]


def test_one_that_cannot_be_used_is_left_out_and_said_if_nobody_named_it(
    recording: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = host_of(recording.with_suffix(".host.jsonl"), 7, boot_id="1")
    balloontrace("report", recording, "--json")
    captured = capsys.readouterr()
    assert "guest.host.jsonl is left out" in captured.err
    assert json.loads(captured.out)["host_side"] is None
    with pytest.raises(UserError, match="another boot") as error:
        balloontrace("report", recording, "--host", other)
    assert error.value.exit_code == EXIT_USAGE


def test_export_takes_it_too(recording: Path, tmp_path: Path) -> None:
    host = host_of(tmp_path / "other.jsonl", 7)
    out = tmp_path / "guest.pftrace"
    balloontrace("export", recording, "--format", "perfetto", "-o", out, "--host", host)
    assert b"target set by the host" in out.read_bytes()


def test_it_is_for_one_recording(recording: Path, tmp_path: Path) -> None:
    host = host_of(tmp_path / "other.jsonl", 7)
    with pytest.raises(UserError, match="for one recording"):
        balloontrace("report", recording, recording, "--host", host)
