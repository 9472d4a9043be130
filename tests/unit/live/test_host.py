# SPDX-License-Identifier: Apache-2.0
"""The host's side in `live`: beside the guest's at each moment, as the report has it."""

from __future__ import annotations

import json
import random
import tracemalloc
from pathlib import Path
from typing import Any

import pytest

from balloontrace.errors import UserError
from balloontrace.live import json_lines
from balloontrace.live.host import AT_ONCE, HostFile, HostSide
from balloontrace.live.model import Model
from balloontrace.live.plain import WIDTH, Lines
from balloontrace.live.screen.layout import Shown, lines
from balloontrace.live.session import Session
from balloontrace.live.sources import GrowingFile
from balloontrace.live.view import View
from tests.unit.analysis.questions.test_host_side import (
    GIB,
    PAGES,
    Host,
    both,
    ordinary,
    side,
)
from tests.unit.builders import ATTACHED_NS, Built, stock_like
from tests.unit.command_line import balloontrace
from tests.unit.live.test_session import over, until


def told(host: Host) -> bytes:
    """The lines, as they stand in the file."""
    in_order = sorted(host.lines, key=lambda line: int(line["t_ns"]))
    return "".join(json.dumps(line) + "\n" for line in in_order).encode()


def model_of(tmp_path: Path, host: Host, built: Built | None = None) -> Model:
    """What is known when all of both has come."""
    data = Path((built or stock_like()).write(tmp_path / "guest.btrace")).read_bytes()
    model = Model("guest", HostSide("guest.host.jsonl"))
    assert model.host is not None
    model.host.feed(told(host), 0.0)
    model.feed(data, 0.0)
    model.close()
    return model


def test_in_the_end_it_is_what_the_report_says(tmp_path: Path) -> None:
    host = ordinary(resident=(3 * GIB, 2 * GIB, 5 * GIB // 2))
    facts, targets = side(both(tmp_path, stock_like(), host))
    said = model_of(tmp_path, host).view(0.0).host
    assert said is not None
    gained = facts["resident_first_bytes"] - facts["resident_last_bytes"]
    assert (said.gained_bytes, said.resident_bytes) == (gained, facts["resident_last_bytes"])
    assert said.target_pages == targets[-1]["target_pages"] == 0
    assert said.hypervisor == "qemu"


def test_each_moment_has_what_the_host_said_until_then(tmp_path: Path) -> None:
    model = model_of(tmp_path, ordinary(resident=(3 * GIB, 2 * GIB, 3 * GIB)))
    found = {at: model.view(0.0, at=at).host for at in (0, 3, 5, 7)}
    assert all(found.values())
    sizes = {at: host and (host.target_pages, host.actual_pages) for at, host in found.items()}
    assert sizes == {
        0: (PAGES, 0),
        3: (PAGES, 0),
        5: (PAGES, PAGES),
        7: (0, PAGES),
    }
    gained = {at: host and host.gained_bytes for at, host in found.items()}
    assert gained == {0: 0, 3: 0, 5: GIB, 7: GIB}


def test_huge_pages_are_the_host_s_memory_too() -> None:
    host = HostSide("file")
    host.feed(told(Host().told(0.0, 0, GIB, hugetlb_bytes=GIB)), 0.0)
    said = host.view({}, 0.0)
    assert said is not None
    assert said.resident_bytes == 2 * GIB


def test_lines_come_in_pieces() -> None:
    data, whole, torn = told(ordinary()), HostSide("file"), HostSide("file")
    whole.feed(data, 0.0)
    for place in range(len(data)):
        torn.feed(data[place : place + 1], 0.0)
    assert torn.view({}, 0.0) == whole.view({}, 0.0)


def test_a_guest_that_is_silent_is_one_that_the_host_paused(tmp_path: Path) -> None:
    host = ordinary().add("state", 0.1, state="running").add("state", 9.5, state="paused")
    model = model_of(tmp_path, host)
    for view in (model.view(0.0), model.view(0.0, at=9)):
        assert view.host is not None
        assert view.host.state == "paused"
    before = model.view(0.0, at=8).host
    assert before is not None
    assert before.state == "running"


def test_over_a_stop_nothing_is_carried(tmp_path: Path) -> None:
    host = Host().clocks(0.0).told(0.5, 0).add("state", 1.0, state="paused")
    host.add("state", 3.0, state="running").told(4.0, 7).told(9.0, 8)
    model = model_of(tmp_path, host)
    assert model.view(0.0, at=8).host is None
    latest = model.view(0.0).host
    assert latest is not None
    assert latest.actual_pages == 8


def test_what_the_host_said_long_ago_is_not_what_it_says(tmp_path: Path) -> None:
    host = Host(interval_s=0.25).clocks(0.0).told(0.5, 7)
    model = model_of(tmp_path, host)
    assert model.view(0.0, at=1).host is not None
    assert model.view(0.0, at=5).host is None


def test_wall_clocks_do_for_want_of_better(tmp_path: Path) -> None:
    built = stock_like()
    built.header["clock"] = {"monotonic_ns": ATTACHED_NS, "realtime_ns": 10**18}
    host = Host(utc_ns=10**18 - 10**9).told(1.5, 7).told(5.5, 8)  # begins 1 s before attach
    model = model_of(tmp_path, host, built)
    found = [model.view(0.0, at=at).host for at in (0, 3, 5)]
    assert [host and host.actual_pages for host in found] == [None, 7, 8]


def test_another_boot_is_no_other_side(tmp_path: Path) -> None:
    model = model_of(tmp_path, Host().clocks(0.0, boot_id="1").told(0.5, 7, GIB))
    host = model.view(0.0).host
    assert host is not None
    assert host.said == "of another guest, or of another boot of this one"
    assert (host.actual_pages, host.resident_bytes) == (None, None)
    assert model.view(0.0, at=3).host is None


def test_a_file_that_grows_no_more_is_said() -> None:
    host = HostSide("file")
    assert host.view({}, 0.0) is None
    host.feed(told(Host(interval_s=0.25).told(0.0, 0)), 10.0)
    assert [said and said.said for said in (host.view({}, 14.0), host.view({}, 18.0))] == [
        "",
        "no line for 8 s",
    ]
    host.feed(b'{"event": "end", "t_ns": 5, "reason": "interrupted"}\n', 19.0)
    said = host.view({}, 90.0)
    assert said is not None
    assert said.said == "ended: interrupted"


@pytest.mark.parametrize("line", [b"7", b'{"event": "actual", "t_ns": 9, "bytes": "x"}', b"\xff"])
def test_lines_that_are_none_are_passed_over(line: bytes) -> None:
    host = HostSide("file")
    host.feed(told(Host().told(0.0, 9)) + line + b"\n" + b"x" * (3 << 20) + b"\n", 0.0)
    host.feed(b'{"event": "target", "t_ns": 9, "bytes": 8192}\n', 0.0)
    said = host.view({}, 0.0)
    assert said is not None
    assert (said.actual_pages, said.target_pages) == (9, 2)


def test_its_memory_does_not_grow_with_the_file() -> None:
    host, sizes = HostSide("file"), []
    host.feed(told(Host()), 0.0)
    tracemalloc.start()
    for second in range(2000):
        several = Host().add("state", second, state=f"state {second % 2}").clocks(second)
        for quarter in range(4):
            several.told(second + quarter / 4, quarter, second)
        host.feed(told(several).split(b"\n", 1)[1], 0.0)
        if second in (1000, 1999):
            sizes.append(tracemalloc.get_traced_memory()[0])
    tracemalloc.stop()
    assert sizes[1] < sizes[0] * 1.1


# ---- outputs ----


def shown(view: View, width: int = 80, height: int = 24) -> str:
    """The screen as text."""
    made = lines(view, Shown(), width, height)
    return "\n".join("".join(part.text for part in line).rstrip() for line in made)


def eventful() -> Host:
    """A host that has gained memory, with old statistics, of a guest that it paused."""
    host = ordinary(resident=(3 * GIB, 2 * GIB, 2 * GIB)).add("state", 9.5, state="pa\x1bused")
    return host.add("statistics", 9.6, values={}, age_s=12.4, polling_interval_s=0)


def test_the_screen_has_both_sides(tmp_path: Path) -> None:
    model = model_of(tmp_path, eventful())
    for size in ((80, 24), (200, 50)):
        text = shown(model.view(0.0), *size)
        assert "host    target 0 B, actual 0 B (0 pages)  pa\\x1bused" in text
        assert "memory 2.0 GiB, gained 1.0 GiB  statistics 12 s old, not asked for" in text
    early = Model("guest", HostSide("file"))
    assert early.host is not None
    early.host.feed(told(eventful()), 0.0)
    assert "pa\\x1bused" in shown(early.view(0.0))


def test_lines_have_it_when_it_changes(tmp_path: Path) -> None:
    model, plain, text = model_of(tmp_path, eventful()), Lines(), []
    for at in model.seconds or ():
        text += plain.of(model.view(0.0, at=at)).splitlines()
    text += plain.of(model.view(0.0)).splitlines()
    said = [line for line in text if line.startswith("    host")]
    assert said[:2] == [
        "    host      0     400  has 3072, gained 0",
        "    host    400     400  has 2048, gained 1024",
    ]
    assert said[-1] == "    host      0       0  has 2048, gained 1024, stats 12 s old, pa\\x1bused"
    assert len(said) == len(set(said))
    assert all(len(line) <= WIDTH and line.isascii() for line in text)


def test_json_has_it_or_null(tmp_path: Path) -> None:
    model = model_of(tmp_path, eventful())
    content: dict[str, Any] = json.loads(json_lines.line(model.view(0.0)))
    assert content["host_side"]["gained_bytes"] == GIB
    assert content["host_side"]["state"] == "pa\\x1bused"
    model.host = None
    assert json.loads(json_lines.line(model.view(0.0)))["host_side"] is None


# ---- files ----


def test_a_file_that_grows_is_followed(tmp_path: Path) -> None:
    data = told(ordinary())
    path, guest = tmp_path / "run.host.jsonl", tmp_path / "guest.btrace"
    recording = Path(stock_like().write(guest)).read_bytes()
    guest.write_bytes(recording[:-300])
    path.write_bytes(b"")
    session = Session(GrowingFile(str(guest)), host=HostFile(str(path)))
    until(session, lambda: session.model.following.bytes == len(recording) - 300)
    assert session.view().host is None
    with path.open("ab") as file:
        file.write(data[:-20])
    until(session, lambda: session.view().host is not None)
    with path.open("ab") as file:
        file.write(data[-20:])
    until(session, lambda: getattr(session.view().host, "actual_pages", None) == 0)
    with guest.open("ab") as file:
        file.write(recording[-300:])
    assert over(session).close() == 0


def test_what_the_host_said_comes_before_the_moment_it_said_it_of(tmp_path: Path) -> None:
    path, guest = tmp_path / "run.host.jsonl", stock_like().write(tmp_path / "guest.btrace")
    early = b'{"event": "later version", "t_ns": 1}\n' * (AT_ONCE // 20)
    begin, _, rest = told(ordinary()).partition(b"\n")
    path.write_bytes(begin + b"\n" + early + rest)
    session = Session(GrowingFile(guest), host=HostFile(str(path)))
    until(session, lambda: session.model.following.bytes > 0)
    assert session.view().host is not None
    assert session.view(at=5).host is not None


def live(*arguments: Path | str, capfd: pytest.CaptureFixture[str]) -> tuple[list[Any], str]:
    """The JSON lines, and what else was said."""
    balloontrace("live", "--json", *arguments)
    out, said = capfd.readouterr()
    return [json.loads(line) for line in out.splitlines()], said


def test_one_that_is_named_as_the_recording_is_used(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    guest = Path(stock_like().write(tmp_path / "guest.btrace"))
    found, _ = live(guest, capfd=capfd)
    assert {line["host_side"] for line in found} == {None}
    ordinary().write(tmp_path / "guest.host.jsonl")
    found, said = live(guest, capfd=capfd)
    assert found[-1]["host_side"]["target_pages"] == 0
    assert said == ""
    other = Host().told(0.0, 7).write(tmp_path / "other.host.jsonl")
    found, _ = live(guest, "--host", other, capfd=capfd)
    assert found[-1]["host_side"]["actual_pages"] == 7


def test_one_that_cannot_be_used_is_left_out_unless_it_was_asked_for(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    guest = Path(stock_like().write(tmp_path / "guest.btrace"))
    named = tmp_path / "guest.host.jsonl"
    named.write_text("nothing of it\n")
    found, said = live(guest, capfd=capfd)
    assert found[-1]["host_side"] is None
    assert "is left out" in said
    with pytest.raises(UserError, match="does not begin as the host's view"):
        balloontrace("live", "--json", guest, "--host", named)
    with pytest.raises(UserError, match="cannot read"):
        balloontrace("live", "--json", guest, "--host", tmp_path / "absent")
    with pytest.raises(UserError, match="no regular file"):
        HostFile("/dev/null")


@pytest.mark.parametrize("seed", range(40))
def test_whatever_a_file_says_is_shown(tmp_path: Path, seed: int) -> None:
    chance = random.Random(seed)
    whole = Host(utc_ns=10**18, interval_s=chance.choice([0, 0.25, 1e18, -5])).clocks(0.0)
    for at in range(12):
        whole.told(at, 256 * at, GIB).add("state", at + 0.1, state=chance.choice(["running", "x"]))
        whole.add("statistics", at + 0.2, values={}, age_s=at, polling_interval_s=1)
    for line in whole.lines[1:]:
        for key in chance.sample(sorted(line), 1) if chance.random() < 0.4 else ():
            line[key] = chance.choice(
                [None, -1, 0, 2**62, 2**80, 1e300, "\x1b[2J\u202e" * 50, [], {}]
            )
    model = Model("guest", HostSide("file"))
    assert model.host is not None
    data = "".join(json.dumps(line) + "\n" for line in whole.lines).encode()
    for begin in range(0, len(data), 700):
        model.host.feed(data[begin : begin + 700], begin / 1000)
    model.feed(Path(stock_like().write(tmp_path / "guest.btrace")).read_bytes(), 0.0)
    for at in (None, *range(0, 10, 3)):
        view = model.view(1000.0, at=at)
        json.loads(json_lines.line(view), parse_constant=pytest.fail)
        assert Lines().of(view).isascii()
        for size in ((80, 24), (200, 50), (60, 16), (40, 8), (10, 2)):
            assert "\x1b" not in shown(view, *size)
