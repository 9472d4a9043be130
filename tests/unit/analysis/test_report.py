# SPDX-License-Identifier: Apache-2.0
"""The report as a whole: the JSON contract, the text, hostile names, damaged and empty files."""

from __future__ import annotations

import importlib.util
import json
import unicodedata
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from balloontrace.analysis import dependencies
from balloontrace.analysis.compare import compare
from balloontrace.analysis.findings.base import Finding
from balloontrace.analysis.json import compare_json, report_json
from balloontrace.analysis.report import Report, build
from balloontrace.analysis.text.compare import compare_text
from balloontrace.analysis.text.report import report_text
from balloontrace.cli.app import app
from balloontrace.errors import EXIT_UNSUPPORTED, UserError
from balloontrace.escape import plain, visible
from balloontrace.sums import SLOTS
from tests.unit.builders import Built, ns, shrinker_like, stock_like
from tests.unit.command_line import balloontrace

EPISODE_KEYS = {
    *("start_s", "end_s", "direction", "target_pages", "outcome", "inflated_pages"),
    *("deflated_pages", "amplification", "churn_ratio", "longest_no_progress_s", "no_progress"),
}


def report_of(built: Built, tmp_path: Path, name: str = "r.btrace") -> Report:
    return build(built.write(tmp_path / name))


def as_json(built: Built, tmp_path: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(report_json(report_of(built, tmp_path)))
    return content


def test_the_json_contract(tmp_path: Path) -> None:
    content = as_json(shrinker_like(), tmp_path)
    assert content["schema"] == 2
    guest = {"kernel", "page_size", "memory_bytes", "cpus", "features", "driver_behaviour"}
    assert guest <= set(content["guest"])
    assert (content["lost_events"], content["complete"]) == (0, True)
    assert content["duration_s"] == 43.5
    assert content["totals"] == {
        "inflated_pages": 128_000,
        "deflated_pages": 102_400,
        "net_pages": 25_600,
        "migrated_pages": 0,
        **dict.fromkeys(("churn_ratio", "round_trip_ratio"), pytest.approx(1 - 25_600 / 230_400)),
    }
    assert content["reconciliation"]["agrees"] is True
    assert {"vmstat_inflate", "vmstat_deflate"} <= set(content["reconciliation"])
    assert set(content["episodes"][0]) >= EPISODE_KEYS
    assert set(content["episodes"][0]["no_progress"][0]) == {"start_s", "end_s", "rest_s"}
    assert {"cause", "actor", "calls", "pages", "busy_s"} <= set(content["causes"][0])
    assert {"fill", "leak"} <= set(content["phases"])
    keys = {"id", "severity", "certainty", "certainty_because", "title", "evidence", "remedy"}
    assert keys <= set(content["findings"][0])
    assert "busy-no-op" in content["findings_checked"]
    lacking = ["oom.notifier_calls"]
    # Without samples nobody knows what swapped.
    swap = [f"memory.inflation_swapped_{way}" for way in ("out", "in")]
    assert content["findings_unchecked"] == {
        "oom-ping-pong": lacking,
        "oom-thrash": lacking,
        "swapped-by-inflation": swap,
    }


def test_an_empty_recording_has_zeros_where_it_watched(tmp_path: Path) -> None:
    report = report_of(Built().ends(2), tmp_path)
    content = json.loads(report_json(report))
    assert content["totals"]["inflated_pages"] == 0
    assert content["totals"]["churn_ratio"] is None
    assert content["episodes"] == content["causes"] == content["findings"] == []
    assert content["reconciliation"]["agrees"] is True
    assert "the target did not change" in report_text(report)


def test_a_seam_that_was_not_attached_is_null(tmp_path: Path) -> None:
    built = Built().fill(1, 1, 256).ends(3)
    built.header["seams"]["target"] = {"rung": None, "loses": "", "not": ["no BTF"]}
    report = report_of(built, tmp_path)
    content = json.loads(report_json(report))
    assert content["episodes"] is None
    assert content["not_recorded"]["episodes"] == ["target (no BTF)"]
    assert "busy-no-op" not in content["findings_checked"]
    assert content["findings_unchecked"]["busy-no-op"] == ["episodes"]
    text = report_text(report)
    assert "not recorded: target (no BTF)" in text
    assert "could not look for busy-no-op" in text


def test_unknown_fields_and_kinds_are_ignored(tmp_path: Path) -> None:
    built = stock_like(chunks=10)
    built.header["kinds"] = {**built.header["kinds"], "later": 77}
    built.header["record"] = [
        [{"reserved": "of_later"}.get(name, name), fmt] for name, fmt in built.header["record"]
    ]
    assert as_json(built, tmp_path)["totals"]["inflated_pages"] == 2560


def test_kinds_and_bits_are_numbered_by_the_recording(tmp_path: Path) -> None:
    built = Built(base=9).fill(1, 0.1, 4, within="").leak(2, 0.1, 9, within="oom leak").ends(3)
    kinds, within = dict(built.header["kinds"]), dict(built.header["within"])
    kinds["fill"], kinds["leak"] = kinds["leak"], kinds["fill"]
    within["oom"], within["remove"] = within["remove"], within["oom"]
    built.header |= {"kinds": kinds, "within": within}
    built.header["seams"] = {}
    content = as_json(built, tmp_path)
    assert content["totals"]["inflated_pages"] == 9
    assert content["causes"][0]["cause"] == "unknown"


@pytest.mark.parametrize(
    "record",
    [
        [["start_ns", "<u8"]],
        [["start_ns", "nonsense"]],
        "nonsense",
        None,
        [["start_ns", "<f8"], ["duration_ns", "<u8"]],
    ],
)
def test_a_header_that_does_not_describe_its_events(tmp_path: Path, record: Any) -> None:
    built = Built().ends(1)
    built.header["record"] = record
    with pytest.raises(UserError):
        report_of(built, tmp_path)


@pytest.mark.parametrize(("field", "kind"), [("comm", "S0"), ("tid", "V4"), ("asked", "(2,)<u4")])
def test_a_field_that_cannot_be_read_as_it_is_meant(tmp_path: Path, field: str, kind: str) -> None:
    built = Built().fill(1, 0.1, 4).ends(2)
    built.header["record"] = [
        [name, kind if name == field else form] for name, form in built.header["record"]
    ]
    with pytest.raises(UserError, match=f"no usable field '{field}'"):
        report_of(built, tmp_path)


def test_a_torn_file_is_reported_as_far_as_it_goes(tmp_path: Path) -> None:
    path = Path(stock_like().write(tmp_path / "r.btrace"))
    data = path.read_bytes()
    path.write_bytes(data[: len(data) * 2 // 3])
    report = build(str(path))
    assert report.recording.scalars["complete"] is False
    assert report.results["totals"].scalars["inflated_pages"] > 0
    assert "TRUNCATED" in report_text(report)


def test_a_hole_in_the_file_is_reported(tmp_path: Path) -> None:
    built = stock_like()
    assert built.trailer is not None
    built.trailer["events"] = 1602
    path = Path(built.write(tmp_path / "r.btrace"))
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0xFF
    path.write_bytes(data)
    report = build(str(path))
    assert report.recording.scalars["missing_events"] == 100
    text = report_text(report)
    assert "DAMAGED" in text
    assert "1 blocks missing" in text
    assert "and with them 100 events" in text
    assert "DISAGREE" in text


HOSTILE = [
    b"\x1b[31mred\x07",
    "\u202etac".encode(),
    b"\xff\xfe[bold]",
    "\u05d0\u05d1".encode(),
    b"a\nb\tc\\x1b",
    "e\u0301\u0301".encode(),
    "\u200b\x85".encode(),
]


@pytest.mark.parametrize("comm", HOSTILE)
def test_hostile_names_are_shown_and_do_nothing(tmp_path: Path, comm: bytes) -> None:
    built = Built(base=100).leak(1, 0.1, 50, within="scan leak", tid=7, comm=comm)
    for at, kind in enumerate(("reclaim", "compact", "oom_notify", "oom_kill", "migrate"), start=2):
        built.call(kind, at, 0.1, 0, 0, tid=8, comm=comm)
    built.header["guest"]["hostname"] = comm.decode("utf-8", "surrogateescape")
    report = report_of(built.ends(9), tmp_path)
    text = report_text(report)
    assert all(char == "\n" or char.isprintable() for char in text)
    assert not any(unicodedata.bidirectional(char) in {"R", "AL", "RLO"} for char in text)
    text.encode()
    json.loads(report_json(report))
    shown = visible(comm.decode("utf-8", "surrogateescape"))
    assert f"task {shown}" in text
    assert "[bold]" not in comm.decode("latin-1") or "[bold]" in text


def test_escapes_stay_different() -> None:
    assert visible("\\x1b") == "\\\\x1b"
    assert visible("\x1b") == "\\x1b"
    assert visible("\udcff") == "\\xff"
    assert visible("\xff\x85") == "\xff\\u0085"
    assert visible("na\u00efve") == "na\u00efve"


@given(st.text(st.characters(exclude_categories=())))
def test_whatever_is_made_visible_is_printable_text(text: str) -> None:
    shown = visible(text)
    assert shown.isprintable()
    shown.encode()


def test_json_has_no_nan_and_no_numpy() -> None:
    import numpy as np

    content = plain({"a": np.int64(3), "b": np.float64("nan"), "c": (float("inf"), 1.5, True)})
    assert content == {"a": 3, "b": None, "c": [None, 1.5, True]}
    assert type(content["a"]) is int


def many_causes() -> Built:
    built = shrinker_like()
    for i in range(30):
        comm = f"task-{i:02}".encode() + b"\xff" * 9
        built.leak(60 + i, 0.1, 1, within="scan leak", tid=7, comm=comm)
    return built.ends(100)


@pytest.mark.parametrize("verbose", [False, True])
@pytest.mark.parametrize("make", [stock_like, shrinker_like, many_causes])
def test_text_stays_under_100_columns(tmp_path: Path, make: Any, verbose: bool) -> None:
    report = report_of(make(), tmp_path)
    text = report_text(report, verbose=verbose)
    assert max(map(len, text.splitlines())) < 100
    assert text == report_text(report, verbose=verbose)


def test_text_of_a_huge_balloon_loses_no_digit(tmp_path: Path) -> None:
    built = Built().target(0, 4_000_000_000).fill(1, 99_999.0, 3_999_999_999).ends(100_000)
    text = report_text(report_of(built, tmp_path))
    assert max(map(len, text.splitlines())) < 100
    assert "…" not in text
    assert "3,999,999,999" in text


def test_rows_left_out_are_counted(tmp_path: Path) -> None:
    report = report_of(many_causes(), tmp_path)
    assert "and 23 more causes" in report_text(report)
    assert "task-29" in report_text(report, verbose=True)


def test_colour_only_when_asked(tmp_path: Path) -> None:
    report = report_of(shrinker_like(), tmp_path)
    assert "\x1b[" not in report_text(report, colour=False)
    assert "\x1b[" in report_text(report, colour=True)


def test_compare_prints_the_founding_table(tmp_path: Path) -> None:
    before = report_of(shrinker_like(rounds=400), tmp_path, "before.btrace")
    after = report_of(stock_like(chunks=1000), tmp_path, "after.btrace")
    comparison = compare(before, after)
    content = json.loads(compare_json(comparison))
    rows = {row["name"]: row for row in content["rows"]}
    assert rows["inflation_duration_s"]["before"] == 43.0
    assert rows["inflation_duration_s"]["after"] == 10.0
    assert rows["inflation_duration_s"]["ratio"] == 4.3
    assert rows["inflation_duration_s"]["before_at_least"] is True
    assert rows["inflation_duration_s"]["after_at_least"] is False
    assert rows["longest_no_progress_s"]["before"] == 41.0
    assert (rows["balloon_inflate"]["before"], rows["balloon_inflate"]["after"]) == (
        128_000,
        256_000,
    )
    assert rows["balloon_inflate"]["ratio"] == 0.5
    assert rows["churn_ratio"]["ratio"] is None
    assert rows["outcome"]["before"] == "unfinished"
    assert content["before"]["findings"] == ["busy-no-op"]
    text = compare_text(comparison)
    assert "> 43.0 s" in text
    assert "> 4.3x" in text
    assert max(map(len, text.splitlines())) < 100


def test_compare_without_an_inflation(tmp_path: Path) -> None:
    empty = report_of(Built().ends(1), tmp_path)
    rows = {row["name"]: row for row in compare(empty, empty).tables["rows"]}
    assert rows["inflation_duration_s"]["before"] is None
    assert rows["inflation_duration_s"]["ratio"] is None
    compare_text(compare(empty, empty))


def test_the_commands_print_data_on_stdout(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = Path(shrinker_like().write(tmp_path / "before.btrace"))
    after = Path(stock_like().write(tmp_path / "after.btrace"))
    balloontrace("report", before)
    assert capsys.readouterr().out.startswith("verdict    Busy no-op: ")
    balloontrace("report", "--json", before)
    assert json.loads(capsys.readouterr().out)["schema"] == 2
    balloontrace("compare", "--json", before, after)
    assert json.loads(capsys.readouterr().out)["before"]["path"] == str(before)
    balloontrace("compare", before, after)
    captured = capsys.readouterr()
    assert "inflation duration" in captured.out
    assert captured.err == ""


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    real = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "pandas" else real(name)
    )
    with pytest.raises(UserError) as caught:
        dependencies.require("report")
    assert caught.value.message == "report needs pandas, which is not installed here"
    assert "balloontrace[analysis]" in caught.value.hint
    assert caught.value.exit_code == EXIT_UNSUPPORTED


def printed(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> str:
    balloontrace("report", *arguments)
    return capsys.readouterr().out


def sampled(built: Built) -> Built:
    """The same with the samples of a guest that has memory and no swap."""
    for at in (0.0, 9.9):
        pressure = {"memory": {"some_us": 0, "full_us": 0}}
        sizes = {"MemTotal": 4 << 30, "MemAvailable": 2 << 30}
        counters = {"pgmajfault": 0, "allocstall_normal": 0, "oom_kill": 0}
        built.samples.append(
            {"t_ns": ns(at), "vmstat": counters, "meminfo": sizes, "psi": pressure}
        )
    return built


def test_the_first_line_says_whether_the_guest_is_well(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    well = printed(capsys, sampled(stock_like()).write(tmp_path / "well.btrace"))
    of_one_side = [each for each in Finding.registered.values() if not each.of_both_sides]
    assert well.splitlines()[0] == (
        f"verdict    healthy: none of {len(of_one_side)} known pathologies, and nothing is missing"
    )
    assert well.splitlines()[1].startswith("answer     the balloon is not what this guest suffers")
    ill = printed(capsys, shrinker_like().write(tmp_path / "ill.btrace"))
    assert ill.splitlines()[0] == (
        "verdict    Busy no-op: reclaim takes back what inflation just took"
    )
    assert ill.splitlines()[1].startswith(
        "answer     the balloon is the cause (busy-no-op): it held"
    )
    lossy = sampled(stock_like())
    assert lossy.trailer is not None
    lossy.trailer["lost_events"] = 1
    said = printed(capsys, lossy.write(tmp_path / "lossy.btrace"))
    assert said.startswith(
        "verdict    nothing found, but events were lost\n"
        "answer     cannot tell, because events were lost: it held at most 9.8 % of RAM"
    )


def test_the_first_screen_is_short_and_names_the_rest(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = shrinker_like().write(tmp_path / "r.btrace")
    first, everything = printed(capsys, path), printed(capsys, path, "-v")
    titles = [line for line in first.splitlines() if line and not line.startswith(" ")]
    # It has no OOM notifier: a seam that was not traced is told at once.
    assert titles[-4:] == ["Episodes", "After the target was reached", "Causes", "Seams"]
    assert len(first.splitlines()) < 60 < len(everything.splitlines())
    hidden = " ".join(first.split("--section NAME: ")[1].split()).split(", ")
    for name in hidden:
        shown = printed(capsys, path, "--section", name).splitlines()
        assert [line for line in shown if line and not line.startswith(" ")][-1] != titles[-1]
    with pytest.raises(UserError, match="there is no section 'nope'"):
        balloontrace("report", path, "--section", "nope")


def test_the_report_takes_the_width_it_is_given(tmp_path: Path) -> None:
    report = build(shrinker_like().write(tmp_path / "r.btrace"))
    for width in (60, 98, 200):
        for line in report_text(report, width=width, verbose=True).splitlines():
            assert len(line) <= width


@pytest.mark.parametrize(
    ("fail_on", "code"),
    [(["finding"], 5), (["loss"], 0), (["disagree"], 0), (["loss", "finding"], 5), ([], 0)],
)
def test_a_pipeline_can_fail_on_what_a_report_says(
    fail_on: list[str], code: int, tmp_path: Path
) -> None:
    path = shrinker_like().write(tmp_path / "r.btrace")
    options = [word for what in fail_on for word in ("--fail-on", what)]
    for more in ([], ["--json"]):
        done = CliRunner().invoke(app, ["report", path, *more, *options])
        assert done.exit_code == code


def test_loss_and_disagreement_fail_a_pipeline(tmp_path: Path) -> None:
    wrong = stock_like()
    assert wrong.trailer is not None
    wrong.trailer |= {"lost_events": 1}
    path = wrong.ends(9, {"balloon_inflate": 1, "balloon_deflate": 1}).write(tmp_path / "r.btrace")
    for what in ("loss", "disagree"):
        assert CliRunner().invoke(app, ["report", path, "--fail-on", what]).exit_code == 5


def test_events_that_are_not_those_that_were_summed_up_are_a_loss(tmp_path: Path) -> None:
    built = stock_like()
    assert built.trailer is not None
    row = {"calls": 1_000, "asked": 0, "done": 7, "ns": 0, "slots": [0] * SLOTS}
    built.trailer["sums"] = {"fill": row}
    path = built.write(tmp_path / "r.btrace")
    assert "EVENTS MISSING" in CliRunner().invoke(app, ["report", path]).stdout
    assert CliRunner().invoke(app, ["report", path, "--fail-on", "loss"]).exit_code == 5


def test_the_guest_s_wall_clock_is_told(tmp_path: Path) -> None:
    built = stock_like()
    built.header["clock"] = {"monotonic_ns": ns(0), "realtime_ns": 1_800_000_000_123_000_000}
    facts = build(built.write(tmp_path / "r.btrace")).recording.scalars
    assert facts["started_at"] == "2027-01-15 08:00:00.123Z"
    assert facts["ended_at"] == "2027-01-15 08:00:10.123Z"
    del built.header["clock"]
    assert build(built.write(tmp_path / "r.btrace")).recording.scalars["started_at"] is None


def test_several_recordings_are_a_table_and_what_was_found(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ill = shrinker_like().write(tmp_path / "ill.btrace")
    well = sampled(stock_like()).write(tmp_path / "well.btrace")
    said = printed(capsys, ill, well)
    _, *lines = said.splitlines()
    assert " ".join(lines[0].split()) == "ill.btrace 43.5 s 0.49 0.39 0 equal busy-no-op"
    assert " ".join(lines[1].split()) == "well.btrace 10.0 s 0.39 0.39 0 equal nothing"
    assert [line for line in lines if line.endswith(".btrace")] == [ill]
    content = json.loads(printed(capsys, "--json", ill, well))
    assert [report["path"] for report in content] == [ill, well]
    assert content[1] == json.loads(printed(capsys, "--json", well))


def test_one_of_several_that_cannot_be_read_does_not_stop_the_others(tmp_path: Path) -> None:
    well = stock_like().write(tmp_path / "well.btrace")
    gone = str(tmp_path / "gone.btrace")
    done = CliRunner().invoke(app, ["report", well, gone])
    assert done.exit_code == 1
    assert "well.btrace  10.0 s" in done.stdout
    assert f"cannot read {gone}: No such file or directory" in " ".join(done.stdout.split())
    done = CliRunner().invoke(app, ["report", "--json", well, gone])
    assert done.exit_code == 1
    assert list(json.loads(done.stdout)[1]) == ["schema", "path", "error"]
    with pytest.raises(UserError, match="are for one recording"):
        balloontrace("report", well, gone, "-v")
    ill = shrinker_like().write(tmp_path / "ill.btrace")
    assert CliRunner().invoke(app, ["report", well, ill, "--fail-on", "finding"]).exit_code == 5
