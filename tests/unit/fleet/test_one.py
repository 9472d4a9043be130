# SPDX-License-Identifier: Apache-2.0
"""The rows of one recording are what its report says."""

from __future__ import annotations

import json
from datetime import date
from pathlib import Path

import pytest

from balloontrace.analysis.json import report_json
from balloontrace.analysis.report import build
from balloontrace.errors import UserError
from balloontrace.fleet.one import rows_of
from balloontrace.fleet.schema import EPISODES, GUEST, TEXT_CHARS
from tests.unit.builders import Built

DATA = Path(__file__).parents[2] / "data"
WRITTEN = date(2020, 2, 29)


def test_a_row_is_what_the_report_says() -> None:
    path = str(DATA / "6.1-tour.btrace")
    said = json.loads(report_json(build(path)))
    guest, episodes, findings = rows_of(path, WRITTEN)
    assert guest["day"] == date(2026, 11, 27)
    assert guest["kernel"] == said["guest"]["kernel"]
    assert guest["inflated_pages"] == said["totals"]["inflated_pages"] == 497787
    assert guest["agrees"] is True
    assert guest["is_balloon"] is said["verdict"]["is_balloon"]
    assert guest["oom_kills"] == said["memory"]["oom_kills"]
    toward = [row for row in said["episodes"] if row["kind"] == "target"]
    assert guest["episodes"] == len(toward) > 0
    assert guest["episodes"] == sum(
        guest[key] for key in ("reached", "settled", "superseded", "unfinished")
    )
    longest = max(row["longest_no_progress_s"] for row in toward)
    assert guest["longest_no_progress_s"] == longest
    assert longest in [row["longest_no_progress_s"] for row in episodes]
    assert len(episodes) <= EPISODES
    assert [row["id"] for row in findings] == [row["id"] for row in said["findings"]]
    assert [json.loads(row["evidence"]) for row in findings] == [
        row["evidence"] for row in said["findings"]
    ]
    assert guest["findings"] == len(findings)
    assert set(said["findings_checked"]) == set(guest["checked"])


def test_waits_of_a_known_length_have_known_percentiles(tmp_path: Path) -> None:
    built = Built()
    for number in range(100):
        built.fill(number * 1.0, 0.5, 256)
        built.ack(number * 1.0, (number + 1) / 1000, 256, "inflate", "worker")
    path = built.write(tmp_path / "acks.btrace")
    guest = rows_of(str(path), WRITTEN).guest
    assert guest["host_acks"] == 100
    assert guest["host_ack_median_s"] == pytest.approx(0.0505)
    assert guest["host_ack_p99_s"] == pytest.approx(0.099)
    assert guest["host_ack_longest_s"] == pytest.approx(0.1)


def test_names_of_guests_are_harmless_and_bounded(tmp_path: Path) -> None:
    built = Built()
    built.header["guest"]["hostname"] = "\x1b[2J\u202e" + "x" * 100_000
    built.header["guest"]["kernel"] = "<script>'\";--"
    guest = rows_of(str(built.write(tmp_path / "a.btrace")), WRITTEN).guest
    assert "\x1b" not in guest["host_name"]
    assert "\u202e" not in guest["host_name"]
    assert len(guest["host_name"]) == TEXT_CHARS
    assert guest["kernel"] == "<script>'\";--"  # HTML is escaped by who makes it


def test_a_recording_without_a_clock_has_the_day_on_which_it_was_written(tmp_path: Path) -> None:
    built = Built()
    built.header.pop("clock", None)
    guest = rows_of(str(built.write(tmp_path / "a.btrace")), WRITTEN).guest
    assert (guest["day"], guest["begin_utc"]) == (WRITTEN, None)


def test_every_column_has_a_value_or_null(tmp_path: Path) -> None:
    guest = rows_of(str(Built().write(tmp_path / "a.btrace")), WRITTEN).guest
    of_the_file = {"source", "batch", "size_bytes", "version", "analysed_by"}
    assert guest.keys() == {column.name for column in GUEST.columns} - of_the_file
    for column in GUEST.columns:
        if column.known and column.name in guest:
            assert guest[column.name] is not None, column.name


def test_what_is_no_recording_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.btrace").write_bytes(b"PK\x03\x04" * 100)
    with pytest.raises(UserError, match="is not a balloontrace recording"):
        rows_of(str(tmp_path / "a.btrace"), WRITTEN)


def test_the_hypervisor_is_the_hosts_word_else_that_of_the_dmi_table(tmp_path: Path) -> None:
    built = Built().fill(1.0, 0.5, 256)
    built.header["guest"]["boot_id"] = "a"
    assert rows_of(str(built.write(tmp_path / "a.btrace")), WRITTEN).guest["hypervisor"] is None
    built.header["guest"]["dmi_vendor"] = "Amazon EC2"
    path = Path(built.write(tmp_path / "b.btrace"))
    assert rows_of(str(path), WRITTEN).guest["hypervisor"] == "Amazon EC2"
    begin = {"event": "begin", "t_ns": 0, "format": 1, "hypervisor": "firecracker"}
    clock = {"event": "clock", "t_ns": 1, "utc_ns": 1, "guest_monotonic_ns": 1, "error_ns": 1}
    for boot, said in (("a", "firecracker"), ("another", "Amazon EC2")):
        lines = [begin, clock | {"guest_utc_ns": 1, "boot_id": boot}]
        text = "".join(f"{json.dumps(line)}\n" for line in lines)
        path.with_suffix(".host.jsonl").write_text(text)
        assert rows_of(str(path), WRITTEN).guest["hypervisor"] == said
