# SPDX-License-Identifier: Apache-2.0
"""Segments: each a recording, and all of them one, whatever became of the watcher or the disk."""

from __future__ import annotations

import errno
import os
import random
import resource
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn

import pytest

from balloontrace import events
from balloontrace.errors import UserError
from balloontrace.recording.reader import Recording, read_recording
from balloontrace.sums import SLOTS, Sum
from balloontrace.watch.boundary import Boundary
from balloontrace.watch.dumps import MOST_AN_HOUR, Dumps
from balloontrace.watch.segments import PARTS, Keep, Segments
from balloontrace.watch.watcher import Kept

KEEP = Keep(size=1 << 20)
PART = KEEP.size // PARTS
NOISE = random.Random(1).randbytes(1000 * 64)
"""As long as so many events, and not to be compressed."""


def boundary(done: int, summed: bool = True) -> Boundary:
    """Where so many fills had been made."""
    counters = {"fill": dict.fromkeys(("entered", "written", "lost", "missed", "untracked"), 0)}
    counters["fill"] |= {"entered": done, "written": done - done // 10, "lost": done // 10}
    sums = {"fill": Sum(done, 0, done * 256, done, [0] * 5 + [done] + [0] * (SLOTS - 6))}
    readings = {"balloon_inflate": done}
    vmstat = {"before": readings, "after": readings}
    return Boundary(1000 + done, done, counters, sums if summed else None, vmstat, {}, {})


class Watched:
    """Segments, and a number of events that were written to them."""

    def __init__(self, segments: Segments, written: int = 0) -> None:
        self.segments, self.written = segments, written
        self.begin()

    def begin(self, summed: bool = True) -> None:
        """Begin a segment."""
        begun = boundary(self.written, summed).as_begin()
        self.segments.begin({"kinds": {"fill": 1}, **begun}, float(self.written))

    def write(self, number: int) -> None:
        """So many events, and a sample."""
        made = range(self.written, self.written + number)
        self.segments.events(b"".join(events.pack(start_ns=one, kind=1) for one in made))
        self.segments.sample({"t_ns": self.written, "vmstat": {"balloon_inflate": self.written}})
        self.segments.write_held()
        self.written += number

    def fill_up(self) -> None:
        """Write until the segment is as long as one is to be; begin another."""
        while not self.segments.is_due(0.0):
            self.segments.events(NOISE)
        self.end()
        self.begin()

    def end(self) -> None:
        """End the segment."""
        self.segments.end({"reason": "segment", **boundary(self.written).as_end()})


def numbers(recording: Recording) -> list[int]:
    """Of the events in it."""
    size = events.RING_HEADER_BYTES + events.record_bytes()
    rows = b"".join(recording.events)
    places = range(events.RING_HEADER_BYTES, len(rows), size)
    return [int.from_bytes(rows[place : place + 8], "little") for place in places]


def paths(directory: Path) -> list[Path]:
    """The segments."""
    return sorted(directory.glob("segment-*"))


def kept_in(directory: Path) -> tuple[Kept, list[str]]:
    """What the next watcher keeps there, and what it will have said."""
    return Kept(Segments(str(directory), KEEP), Dumps(str(directory), KEEP.size), 0.0), []


@pytest.fixture
def three(tmp_path: Path) -> Watched:
    """Three segments that have ended, of 100, 50 and 70 events."""
    watched = Watched(Segments(str(tmp_path), KEEP))
    for number in (100, 50, 70):
        watched.write(number)
        watched.end()
        watched.begin()
    return watched


def test_each_is_a_recording_of_its_own(three: Watched, tmp_path: Path) -> None:
    first, second, third, last = map(read_recording, map(str, paths(tmp_path)))
    assert [numbers(one) for one in (first, second, third)] == [
        [*range(100)], [*range(100, 150)], [*range(150, 220)],
    ]  # fmt: skip
    assert all(one.complete for one in (first, second, third))
    assert last.trailer is None
    assert second.trailer is not None
    assert second.trailer["counters"]["fill"] == {
        "entered": 50, "written": 45, "lost": 5, "missed": 0, "untracked": 0, "open": 0,
    }  # fmt: skip
    assert second.trailer["sums"]["fill"]["calls"] == 50
    assert second.trailer["sums"]["fill"]["slots"][5] == 50
    assert (second.trailer["events"], second.trailer["lost_events"]) == (50, 5)
    assert second.trailer["vmstat_detach"]["before"] == {"balloon_inflate": 150}


def test_together_they_are_one(three: Watched, tmp_path: Path) -> None:
    three.write(30)
    three.end()
    three.segments.join(str(tmp_path / "all.btrace"), {"watch": {"fired": []}})
    whole = read_recording(str(tmp_path / "all.btrace"))
    assert whole.complete
    assert numbers(whole) == [*range(250)]
    assert len(whole.samples) == 4
    assert whole.header["watch"] == {"fired": []}
    assert whole.trailer is not None
    assert whole.trailer["events"] == whole.trailer["counters"]["fill"]["entered"] == 250
    assert whole.trailer["sums"]["fill"]["slots"][5] == 250


def test_some_of_them_are_one_that_begins_later(three: Watched, tmp_path: Path) -> None:
    three.segments.kept.pop(0)
    three.end()
    three.segments.join(str(tmp_path / "all.btrace"), {})
    whole = read_recording(str(tmp_path / "all.btrace"))
    assert whole.complete
    assert numbers(whole) == [*range(100, 220)]
    assert whole.trailer is not None
    assert whole.trailer["events"] == whole.trailer["counters"]["fill"]["entered"] == 120


@pytest.mark.parametrize("ended", [True, False])
def test_what_an_earlier_watcher_left_is_one_recording(
    three: Watched, tmp_path: Path, ended: bool
) -> None:
    three.write(30)
    if ended:
        three.end()
    three.segments.release()
    again, said = kept_in(tmp_path)
    again.take_over(said.append)
    assert paths(tmp_path) == []
    (left,) = tmp_path.glob("dump-*-restart.btrace")
    assert said == [f"what was kept before is in {left}"]
    whole = read_recording(str(left))
    assert numbers(whole) == [*range(250)]
    assert (whole.missing_blocks, whole.damage) == (0, [])
    if ended:
        assert whole.trailer is not None
        assert whole.trailer["events"] == 250
    else:  # the trailers of those before it are not its own
        assert whole.trailer is None
    again.take_over(said.append)
    assert len(said) == 1


def test_another_begins_beside_what_was_left(three: Watched, tmp_path: Path) -> None:
    three.segments.release()
    again, said = kept_in(tmp_path)
    again.take_over(said.append)
    watched = Watched(again.segments, written=1000)
    watched.write(20)
    watched.end()
    again.segments.join(str(tmp_path / "all.btrace"), {})
    again.segments.delete()
    assert numbers(read_recording(str(tmp_path / "all.btrace"))) == [*range(1000, 1020)]
    assert len([*tmp_path.glob("dump-*")]) == 1


def test_where_there_is_no_room_for_one_recording_of_all_each_becomes_one(
    three: Watched, tmp_path: Path
) -> None:
    three.end()
    three.segments.release()
    most = max(path.stat().st_size for path in paths(tmp_path))
    again, said = kept_in(tmp_path)
    with files_no_larger_than(most + 1):
        again.take_over(said.append)
    assert paths(tmp_path) == []
    dumps = sorted(tmp_path.glob("dump-*"))
    assert [numbers(read_recording(str(path))) for path in dumps] == [
        [*range(100)], [*range(100, 150)], [*range(150, 220)], [],
    ]  # fmt: skip
    assert "and 3 more, for the disk has no room" in said[0]


def test_what_cannot_be_kept_is_said_and_stays(
    three: Watched, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: str) -> NoReturn:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    three.segments.release()
    again, said = kept_in(tmp_path)
    monkeypatch.setattr(os, "rename", refuse)
    with pytest.raises(UserError, match="Read-only file system"):
        again.take_over(said.append)
    assert len(paths(tmp_path)) == 4


def test_a_segment_that_was_not_begun_costs_none_of_the_others(
    three: Watched, tmp_path: Path
) -> None:
    three.segments.release()
    paths(tmp_path)[0].write_bytes(b"")
    again, said = kept_in(tmp_path)
    again.take_over(said.append)
    (left,) = tmp_path.glob("dump-*")
    assert numbers(read_recording(str(left))) == [*range(100, 220)]


def test_what_killed_recorders_left_stays_however_much_it_is(tmp_path: Path) -> None:
    for number in range(3):
        watched = Watched(Segments(str(tmp_path), KEEP), written=number)
        watched.write(10)
        watched.segments.release()
        left = Kept(Segments(str(tmp_path), Keep(size=1)), Dumps(str(tmp_path), 1), 0.0)
        left.take_over(lambda _: None)
        left.segments.release()
    assert len([*tmp_path.glob("dump-*")]) == 3


def test_recordings_that_cannot_be_deleted_do_not_keep_a_watcher_from_beginning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse() -> NoReturn:
        raise UserError("cannot tidy")

    again, said = kept_in(tmp_path)
    monkeypatch.setattr(again.dumps, "delete_old", refuse)
    again.tidy(said.append)
    assert said == ["cannot tidy"]


def test_where_sums_were_not_known_at_either_end_they_are_not_known(tmp_path: Path) -> None:
    watched = Watched(Segments(str(tmp_path), KEEP))
    watched.write(10)
    watched.end()
    watched.begin(summed=False)
    watched.write(10)
    watched.end()
    trailer = read_recording(str(paths(tmp_path)[1])).trailer
    assert trailer is not None
    assert trailer["sums"] is None


def test_as_much_as_was_asked_for_is_kept_and_not_much_more(tmp_path: Path) -> None:
    watched = Watched(Segments(str(tmp_path), KEEP))
    for _ in range(40):
        watched.fill_up()
        assert watched.segments.size <= KEEP.size + 2 * PART
    on_disk = sum(path.stat().st_size for path in paths(tmp_path))
    assert KEEP.size <= on_disk <= KEEP.size + 2 * PART
    assert {str(path) for path in paths(tmp_path)} == {s.path for s in watched.segments.kept}


def test_of_minutes_as_many_are_kept(tmp_path: Path) -> None:
    watched = Watched(Segments(str(tmp_path), Keep(seconds=80.0)))
    for _ in range(30):
        watched.write(10)  # which is 10 s
        assert watched.segments.is_due(float(watched.written))
        watched.end()
        watched.begin()
    (first, *_), last = watched.segments.kept, watched.written
    assert 80.0 <= last - first.begun_s <= 90.0


def test_what_is_held_is_not_deleted_until_it_is_too_much(tmp_path: Path) -> None:
    watched = Watched(Segments(str(tmp_path), KEEP))
    watched.segments.held = True
    for _ in range(80):
        watched.fill_up()
    assert 3 * KEEP.size < watched.segments.size <= 4 * KEEP.size + 2 * PART


@contextmanager
def files_no_larger_than(size: int) -> Iterator[None]:
    """A disk that takes no more of any file."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, before)


def test_a_disk_that_is_full_costs_what_comes_meanwhile_and_says_so(tmp_path: Path) -> None:
    watched = Watched(Segments(str(tmp_path), KEEP))
    watched.write(100)
    with files_no_larger_than(paths(tmp_path)[0].stat().st_size + 100):
        watched.write(500)
        watched.write(7)
        assert not watched.segments.is_open
        assert watched.segments.events_left_out == 507
        assert [text for text in watched.segments.failures if "cannot go on writing" in text]
    watched.begin()
    watched.write(20)
    watched.end()
    watched.segments.join(str(tmp_path / "all.btrace"), {})
    whole = read_recording(str(tmp_path / "all.btrace"))
    assert numbers(whole) == [*range(100), *range(607, 627)]
    assert whole.missing_blocks == 1
    assert not whole.complete


def test_a_recording_that_does_not_fit_leaves_nothing(three: Watched, tmp_path: Path) -> None:
    three.end()
    with (
        files_no_larger_than(1000),
        pytest.raises(UserError, match=r"cannot write .*all\.btrace"),
    ):
        three.segments.join(str(tmp_path / "all.btrace"), {})
    assert sorted(path.name for path in tmp_path.iterdir()) == [p.name for p in paths(tmp_path)]


def test_a_disk_without_room_for_a_segment_gets_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("balloontrace.watch.segments._free", lambda _: PART)
    with pytest.raises(UserError, match="nothing is kept until there are"):
        Watched(Segments(str(tmp_path), KEEP))
    assert paths(tmp_path) == []


def test_where_others_can_write_nothing_is_kept(tmp_path: Path) -> None:
    (tmp_path / "theirs").mkdir()
    (tmp_path / "theirs").chmod(0o777)
    (tmp_path / "link").symlink_to(tmp_path)
    for name in ("theirs", "link"):
        with pytest.raises(UserError, match="others can write"):
            Segments(str(tmp_path / name), KEEP)


def test_two_do_not_keep_in_the_same_place(three: Watched, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="another watcher"):
        Segments(str(tmp_path), KEEP)
    assert len(paths(tmp_path)) == 4
    three.segments.release()
    Segments(str(tmp_path), KEEP).release()


def test_where_nothing_is_kept_there_is_nothing_to_join(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="nothing was kept"):
        Segments(str(tmp_path), KEEP).join(str(tmp_path / "all.btrace"), {})
    assert list(tmp_path.iterdir()) == []


def test_what_was_not_finished_goes(tmp_path: Path) -> None:
    (tmp_path / ".dump-1.btrace.unfinished").write_bytes(bytes(10))
    Segments(str(tmp_path), KEEP).release()
    assert list(tmp_path.iterdir()) == []


def test_there_are_only_so_many_recordings_an_hour(tmp_path: Path) -> None:
    dumps = Dumps(str(tmp_path), KEEP.size)
    assert all(dumps.may_have_another(float(at)) for at in range(MOST_AN_HOUR))
    assert not dumps.may_have_another(3599.0)
    assert dumps.left_out == 1
    assert dumps.may_have_another(3600.5)


def test_the_oldest_recordings_go(tmp_path: Path) -> None:
    dumps = Dumps(str(tmp_path), 1000)
    made = [tmp_path / f"dump-{number}-asked.btrace" for number in range(12, 0, -1)]
    for number, path in enumerate(made):
        path.write_bytes(bytes(1000))
        os.utime(path, (number, number))
    dumps.delete_old()
    assert [path for path in made if path.exists()] == made[-8:]
    assert Path(dumps.path("asked")).parent == tmp_path
