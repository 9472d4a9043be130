# SPDX-License-Identifier: Apache-2.0
"""The overview as text, page and JSON, and the commands for a dataset."""

from __future__ import annotations

import json
import shutil
from html.parser import HTMLParser
from pathlib import Path

import pytest

from balloontrace.errors import EXIT_USAGE, UserError
from balloontrace.fleet.text import report_command
from tests.unit.command_line import balloontrace
from tests.unit.fleet.datasets import Row, dataset, episode, failure, finding, guest

DATA = Path(__file__).parents[2] / "data"
HOSTILE = "<script>alert(1)</script>&\"'"


def hostile(path: Path) -> Path:
    """Of everything one, with names as bad as they get into a dataset."""
    guests = [
        guest(f"/{HOSTILE}.btrace", host_name=HOSTILE, kernel=HOSTILE, findings=1),
        guest("/b", longest_no_progress_s=4.0, driver_version=HOSTILE, analysed_by=HOSTILE),
    ]
    found = [finding(f"/{HOSTILE}.btrace", HOSTILE)]
    failures = [failure(f"/{HOSTILE}", HOSTILE, HOSTILE)]
    return dataset(path, guest=guests, finding=found, failure=failures)


def slow_fleet(path: Path, still_s: float) -> Path:
    guests: list[Row] = [
        guest(f"/r{n}", kernel="6.1", host_name=f"h{n}", no_progress_s=still_s + n / 100)
        for n in range(30)
    ]
    moved = {"inflated_pages": 8, "deflated_pages": 8}
    guests.append(guest("/n", episodes=1, findings=1, inflated_pages=8))
    return dataset(path, guest=guests, episode=[episode("/n", **moved)])


class Page(HTMLParser):
    def __init__(self, content: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.links: list[str] = []
        self.meta: list[str] = []
        self.text = ""
        self.feed(content)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.meta += [v or "" for k, v in attrs if tag == "meta" and k == "content"]
        self.links += [v or "" for k, v in attrs if k in ("href", "src", "srcset", "action")]

    def handle_data(self, data: str) -> None:
        self.text += data


def test_the_page_is_harmless_and_offline(tmp_path: Path) -> None:
    page = tmp_path / "o.html"
    balloontrace("fleet", "overview", hostile(tmp_path / "d"), "--html", page)
    shown = Page(page.read_text())
    assert not {"script", "img", "link", "iframe", "object"} & set(shown.tags)
    assert all(link.startswith("#section-") for link in shown.links)
    assert shown.text.count("<script>alert(1)</script>") >= 5
    assert any("default-src 'none'" in said for said in shown.meta)


def test_page_and_text_say_the_same(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    directory = slow_fleet(tmp_path / "d", 2.0)
    balloontrace("fleet", "overview", directory)
    text = capsys.readouterr().out
    balloontrace("fleet", "overview", directory, "--html", tmp_path / "o.html")
    shown = Page((tmp_path / "o.html").read_text()).text
    for said in ("31", "gained nothing", "host ack, p99", "not known"):
        assert said in text
        assert said in shown
    assert "2.1 s" in text  # the median
    assert capsys.readouterr().out == ""


def test_what_is_worse_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    earlier, now = slow_fleet(tmp_path / "a", 2.0), slow_fleet(tmp_path / "b", 9.0)
    balloontrace("fleet", "overview", now, "--against", earlier)
    text = " ".join(capsys.readouterr().out.split())
    assert "worse: 2 kernel what earlier now now / earlier" in text
    assert "better: nothing that is sure" in text
    balloontrace("fleet", "overview", earlier, "--against", earlier)
    text = capsys.readouterr().out
    assert "worse: nothing that is sure" in text


def test_as_json_nothing_is_infinite(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    directory = slow_fleet(tmp_path / "d", 2.0)
    (tmp_path / "l.csv").write_text("host_name,zone\nh1,north\n")
    balloontrace(
        "fleet", "overview", directory, "--json", "--against", directory,
        "--labels", tmp_path / "l.csv",
    )  # fmt: skip
    said = json.loads(capsys.readouterr().out)
    (worst,) = [row for row in said["worst"] if row["source"] == "/n"]
    assert worst["amplification"] is None
    (spread,) = [
        row
        for row in said["distributions"]
        if (row["measure"], row["by"]) == ("amplification", "all")
    ]
    assert (spread["known"], spread["gained_nothing"], spread["most"]) == (1, 1, None)
    assert said["labels"][0]["value"] == "north"
    assert said["totals"]["unlabelled"] == 30
    assert said["changes"]["only_now"] == []


def test_commands_can_be_pasted(tmp_path: Path) -> None:
    said = report_command("my data", "/a b/$(reboot).btrace")
    assert said == "balloontrace fleet report 'my data' '/a b/$(reboot).btrace'"


def test_a_page_replaces_nothing_unasked(tmp_path: Path) -> None:
    directory = slow_fleet(tmp_path / "d", 2.0)
    labels = tmp_path / "labels.html"
    labels.write_text("host_name,zone\nh1,north\n")
    with pytest.raises(UserError, match="is read as --labels"):
        balloontrace(
            "fleet", "overview", directory, "--labels", labels, "--html", labels, "--force"
        )
    with pytest.raises(UserError, match="exists"):
        balloontrace("fleet", "overview", directory, "--html", labels)
    with pytest.raises(UserError, match=r"ends with \.html"):
        balloontrace("fleet", "overview", directory, "--html", directory / "fleet.json")
    assert labels.read_text().startswith("host_name")


def test_what_is_no_dataset_is_one_line(tmp_path: Path) -> None:
    for verb, *words in (["overview"], ["query", "SELECT 1"], ["report", "x"]):
        with pytest.raises(UserError, match="no dataset") as refused:
            balloontrace("fleet", verb, tmp_path, *words)
        assert refused.value.exit_code == EXIT_USAGE


def test_query_prints_what_was_asked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    directory = slow_fleet(tmp_path / "d", 2.0)
    sql = "SELECT count(*) AS n FROM guest WHERE kernel = '6.1'"
    for option, expected in (("--json", '[\n  {\n    "n": 30\n  }\n]\n'), ("--csv", "n\n30\n")):
        balloontrace("fleet", "query", directory, sql, option)
        assert capsys.readouterr().out == expected
    with pytest.raises(UserError, match="two outputs"):
        balloontrace("fleet", "query", directory, sql, "--json", "--csv")


def a_real_one(tmp_path: Path) -> tuple[Path, Path]:
    """A dataset with two recordings, of which the first is there, and that."""
    recording = tmp_path / "6.1.btrace"
    shutil.copy(DATA / "6.1-stock-idle.btrace", recording)
    state = recording.stat()
    file = {"size_bytes": state.st_size, "version": f"mtime:{state.st_mtime_ns}"}
    guests = [
        guest(str(recording), host_name="a", boot_id="1", **file),
        guest(str(tmp_path / "gone.btrace"), host_name="a", boot_id="2"),
    ]
    return dataset(tmp_path / "d", guest=guests), recording


@pytest.mark.parametrize("name", ["6.1.btrace", "1", None])
def test_one_recording_is_opened_again(
    tmp_path: Path, name: str | None, capsys: pytest.CaptureFixture[str]
) -> None:
    directory, recording = a_real_one(tmp_path)
    balloontrace("fleet", "report", directory, name or recording, "--json")
    said = json.loads(capsys.readouterr().out)
    assert said["guest"]["kernel"] == "6.1.0-56-cloud-amd64"


def test_a_name_that_fits_none_or_several_opens_none(tmp_path: Path) -> None:
    directory, recording = a_real_one(tmp_path)
    with pytest.raises(UserError, match="2 recordings are called a; name one: "):
        balloontrace("fleet", "report", directory, "a")
    with pytest.raises(UserError, match="no recording of the dataset is called"):
        balloontrace("fleet", "report", directory, "btrace")
    with pytest.raises(UserError):
        balloontrace("fleet", "report", directory, "gone.btrace")
    recording.write_bytes(recording.read_bytes() + b"x")
    with pytest.raises(UserError, match=r"6\.1\.btrace: it changed"):
        balloontrace("fleet", "report", directory, "6.1.btrace")
