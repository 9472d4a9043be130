# SPDX-License-Identifier: Apache-2.0
"""What is found where, under names that are harmless and find it again."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from balloontrace.errors import UserError
from balloontrace.fleet import sources
from balloontrace.fleet.batches import MOST_BYTES, MOST_FILES, batches_of
from balloontrace.fleet.sources import Source, Unreachable, found, local, name_of, named, path_of


def made(directory: Path, *names: str) -> None:
    for name in names:
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(name.encode())


def names(directory: Path, *words: str) -> list[str]:
    return [os.path.relpath(path_of(one.name), directory) for one in found(words)]


def test_files_directories_and_patterns(tmp_path: Path) -> None:
    made(tmp_path, "a/1.btrace", "a/b/2.btrace", "a/notes.txt", "3.btrace", "other")
    where = str(tmp_path)
    assert names(tmp_path, where) == ["3.btrace", "a/1.btrace", "a/b/2.btrace"]
    assert names(tmp_path, f"{where}/*.btrace") == ["3.btrace"]
    assert names(tmp_path, f"{where}/**/*.btrace") == ["3.btrace", "a/1.btrace", "a/b/2.btrace"]
    assert names(tmp_path, f"{where}/other", where, f"{where}/a/") == [
        *("3.btrace", "a/1.btrace", "a/b/2.btrace", "other")
    ]


def test_what_is_named_is_there_or_said_not_to_be(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    os.mkfifo(tmp_path / "pipe")
    for word in ("none", "empty", "*.btrace", "pipe"):
        with pytest.raises(UserError) as raised:
            found([str(tmp_path / word)])
        assert raised.value.exit_code == 2
        assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    "name", [b"\x1b[2J.btrace", b"\xff\xfe.btrace", b"a\nb.btrace", b"\\.btrace"]
)
def test_hostile_names_are_harmless_and_find_the_file(tmp_path: Path, name: bytes) -> None:
    path = os.path.join(os.fsencode(tmp_path), name)
    with open(path, "wb") as file:
        file.write(b"x")
    (one,) = found([str(tmp_path)])
    assert one.name.isprintable()
    assert one.name.encode()
    assert os.fsencode(path_of(one.name)) == path
    assert named(one.name) == one
    with local(one) as here, open(here, "rb") as file:
        assert file.read() == b"x"


def test_a_path_that_is_plain_is_its_own_name(tmp_path: Path) -> None:
    for path in (str(tmp_path / "ö x%20.btrace"), "/a/b"):
        assert name_of(path) == path == path_of(path)


def test_a_file_that_changes_is_not_taken_for_what_was_found(tmp_path: Path) -> None:
    made(tmp_path, "a.btrace")
    (one,) = found([str(tmp_path)])
    with pytest.raises(Unreachable, match="changed"), local(one):
        (tmp_path / "a.btrace").write_bytes(b"more of it")
    with pytest.raises(Unreachable, match="changed"), local(one):
        pass


@pytest.mark.parametrize(
    ("pattern", "fits", "not_those"),
    [
        ("2026/**.btrace", ["2026/a.btrace", "2026/b/c.btrace"], ["2025/a.btrace", "2026/a.txt"]),
        ("2026/*.btrace", ["2026/a.btrace"], ["2026/b/c.btrace"]),
        ("a/**/b.btrace", ["a/b.btrace", "a/x/y/b.btrace"], ["a/xb.btrace"]),
        ("[!a]?.x", ["bc.x"], ["ab.x", "b.x", "b/.x"]),
        ("a[^.]*", ["a^", "a.x"], ["ab"]),
    ],
)
def test_patterns_of_keys(pattern: str, fits: list[str], not_those: list[str]) -> None:
    matches = sources._matches(pattern)
    assert [key for key in fits + not_those if matches(key)] == fits


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("s3://key:secret@bucket/a", "credentials"),
        ("https://host/a.btrace?X-Amz-Signature=1", "credentials"),
        ("ftp://host/a", "no store is known"),
        ("s3:///a", "names no store"),
        ("az://", "names no store"),
    ],
)
def test_urls_that_are_refused(url: str, why: str) -> None:
    with pytest.raises(UserError, match=why):
        found([url])


def test_files_need_no_obstore_and_urls_say_what_they_need(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made(tmp_path, "a.btrace")
    monkeypatch.setitem(sys.modules, "obstore", None)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert len(found([str(tmp_path)])) == 1
    with pytest.raises(UserError, match=r"pip install 'balloontrace\[fleet\]'"):
        found(["s3://bucket/a"])


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server(tmp_path: Path) -> Iterator[str]:
    """Serves a directory, as any web server does."""
    handler = partial(Quiet, directory=str(tmp_path))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as http:
        thread = threading.Thread(target=http.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{http.server_address[1]}"
        http.shutdown()


def test_a_file_behind_http(tmp_path: Path, server: str) -> None:
    made(tmp_path, "in/a b.btrace")
    (one,) = found([f"{server}/in/a b.btrace"])
    assert (one.name, one.size_bytes) == (f"{server}/in/a b.btrace", 13)
    assert named(one.name) == one
    with local(one) as path, open(path, "rb") as file:
        assert file.read() == b"in/a b.btrace"
    (tmp_path / "in/a b.btrace").write_bytes(b"other, longer")
    os.utime(tmp_path / "in/a b.btrace", (0, 0))
    with pytest.raises(Unreachable, match="changed"), local(one):
        pass
    (tmp_path / "in/a b.btrace").unlink()
    with pytest.raises(Unreachable, match="cannot read it"), local(one):
        pass
    with pytest.raises(Unreachable, match="cannot read http"):
        named(one.name)


def test_batches_are_of_a_day_and_bounded(tmp_path: Path) -> None:
    made(tmp_path, "a.btrace")
    (one,) = found([str(tmp_path)])

    def sized(number: int, size: int, day: int) -> Source:
        return Source(f"/{number}", size, "v", one.written.replace(day=day))

    small = [sized(number, 1 << 10, number % 2 + 1) for number in range(300)]
    large = [sized(1000, MOST_BYTES * 3, 1), sized(1001, MOST_BYTES // 2 + 1, 2)]
    batches = batches_of(small + large, "1")
    assert sorted(s.name for b in batches for s in b.sources) == sorted(
        s.name for s in small + large
    )
    for batch in batches:
        assert len(batch.sources) <= MOST_FILES
        assert batch.size_bytes <= MOST_BYTES or len(batch.sources) == 1
        assert len({source.written for source in batch.sources}) == 1
    sizes = [batch.size_bytes for batch in batches]
    assert sizes == sorted(sizes, reverse=True)
    assert batches_of(reversed(small + large), "1") == batches
    assert {b.name for b in batches}.isdisjoint(b.name for b in batches_of(small + large, "2"))
    assert len(batches_of(small[:8], "1", workers=4)) == 4


def test_one_file_has_one_name(tmp_path: Path) -> None:
    made(tmp_path, "2026-11-26/1.btrace")
    (tmp_path / "latest").symlink_to("2026-11-26")
    once = ["2026-11-26/1.btrace"]
    assert names(tmp_path, f"{tmp_path}/*") == names(tmp_path, f"{tmp_path}/latest") == once


def test_a_directory_that_cannot_be_looked_into_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made(tmp_path, "a/1.btrace", "b/2.btrace")
    look = os.scandir

    def refuse(path: str) -> object:
        if path.endswith("/b"):  # root may look everywhere
            raise PermissionError(13, "Permission denied", path)
        return look(path)

    monkeypatch.setattr("os.scandir", refuse)
    with pytest.raises(UserError, match=r"cannot look into .*/b: Permission denied"):
        found([str(tmp_path)])
