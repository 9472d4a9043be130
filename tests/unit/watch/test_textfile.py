# SPDX-License-Identifier: Apache-2.0
"""The page as a file: whole or not at all, whatever is in its way."""

from __future__ import annotations

import errno
import os
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from balloontrace.errors import UserError
from balloontrace.watch import textfile

OLD, NEW = b"balloontrace_attached 0\n" * 99, b"balloontrace_attached 1\n" * 99


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    textfile.write(str(tmp_path), OLD)
    return tmp_path


def page_of(directory: Path) -> bytes:
    """What the collector reads: every file whose name ends so."""
    return b"".join(path.read_bytes() for path in sorted(directory.glob("*.prom")))


def temporary(directory: Path) -> Path:
    return directory / f"balloontrace.prom.{os.getpid()}"


def test_a_reader_never_sees_a_part(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []

    def write_a_little(descriptor: int, data: bytes) -> int:
        seen.append(page_of(directory))
        return os_write(descriptor, data[:7])

    os_write = os.write
    monkeypatch.setattr(os, "write", write_a_little)
    textfile.write(str(directory), NEW)
    assert len(seen) > 100
    assert set(seen) == {OLD}
    assert page_of(directory) == NEW
    assert os.listdir(directory) == ["balloontrace.prom"]


def test_another_user_can_read_it(tmp_path: Path) -> None:
    before = os.umask(0o077)
    try:
        textfile.write(str(tmp_path), NEW)
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "balloontrace.prom").stat().st_mode) == 0o644


@pytest.mark.parametrize("target", ["victim", "nothing"])
def test_a_link_in_place_of_the_temporary_file_is_refused(directory: Path, target: str) -> None:
    (directory / "victim").write_bytes(b"precious")
    temporary(directory).symlink_to(directory / target)
    with pytest.raises(UserError, match=r"balloontrace\.prom\.\d+ is there, and is no file"):
        textfile.write(str(directory), NEW)
    assert (directory / "victim").read_bytes() == b"precious"
    assert not (directory / "nothing").exists()
    assert temporary(directory).is_symlink()
    assert page_of(directory) == OLD


def test_a_link_in_place_of_the_file_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "victim").write_bytes(b"precious")
    (tmp_path / "balloontrace.prom").symlink_to("victim")
    textfile.write(str(tmp_path), NEW)
    assert (tmp_path / "victim").read_bytes() == b"precious"
    assert not (tmp_path / "balloontrace.prom").is_symlink()
    assert page_of(tmp_path) == NEW


def test_what_one_that_was_killed_left_behind_is_replaced(directory: Path) -> None:
    temporary(directory).write_bytes(b"half a pa")
    textfile.write(str(directory), NEW)
    assert page_of(directory) == NEW
    assert os.listdir(directory) == ["balloontrace.prom"]


def test_a_full_disk_leaves_the_old_page(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int, data: bytes) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(UserError, match="No space left on device"):
        textfile.write(str(directory), NEW)
    assert page_of(directory) == OLD
    assert os.listdir(directory) == ["balloontrace.prom"]


def test_a_file_that_cannot_be_replaced_leaves_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "balloontrace.prom").mkdir()
    with pytest.raises(UserError, match="Is a directory"):
        textfile.write(str(tmp_path), NEW)
    assert os.listdir(tmp_path) == ["balloontrace.prom"]


def test_a_directory_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"cannot write .*nowhere: No such file or directory"):
        textfile.write(str(tmp_path / "nowhere"), NEW)
    assert os.listdir(tmp_path) == []


def test_a_file_in_place_of_the_directory(directory: Path) -> None:
    with pytest.raises(UserError, match="Not a directory"):
        textfile.write(str(directory / "balloontrace.prom"), NEW)
    assert page_of(directory) == OLD


@pytest.fixture
def others_directory() -> Iterator[Path]:
    """A directory in which this process can do nothing but look: root becomes nobody for it."""
    with tempfile.TemporaryDirectory() as name:
        os.chmod(name, 0o555)
        user = os.geteuid()
        if not user:
            os.seteuid(65534)
        try:
            yield Path(name)
        finally:
            os.seteuid(user)
            os.chmod(name, 0o755)


def test_a_directory_that_cannot_be_written(others_directory: Path) -> None:
    with pytest.raises(UserError, match="Permission denied"):
        textfile.write(str(others_directory), NEW)
    assert os.listdir(others_directory) == []
