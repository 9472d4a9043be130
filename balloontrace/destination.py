# SPDX-License-Identifier: Apache-2.0
"""Where pages, pictures and exports go: a file or a directory that is there whole, or not at all.

It is written beside its place under a name of its own and renamed when it is complete. Like a
recording, it is readable by its owner only: it tells what ran in the guest.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from balloontrace.errors import UserError

MARK = "recording.json"
"""In every directory that an export wrote; without it none is replaced."""

_SUFFIXES = {".parquet", ".csv", ".json"}


@contextlib.contextmanager
def new_file(path: Path, replace: bool) -> Iterator[IO[bytes]]:
    """A file to be written at `path`, there when the block ends without an error.

    replace: whether it may take the place of a regular file. Raises UserError.
    """
    refuse_file(path, replace)
    with _failures(path):
        descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
        try:
            with open(descriptor, "wb") as file:
                yield file
            if replace:
                os.replace(name, path)
            else:
                _take_place(name, path)
        finally:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(name)


@contextlib.contextmanager
def new_directory(path: Path, replace: bool) -> Iterator[Path]:
    """A directory to be filled, at `path` when the block ends without an error.

    replace: whether it may take the place of an earlier export. An empty directory always gives
    way. Raises UserError.
    """
    _refuse_directory(path, replace)
    with _failures(path), _removed(path) as beside:
        filling = beside / "new"
        filling.mkdir(mode=0o700)
        yield filling
        if replace and path.exists():
            _refuse_directory(path, replace)
            os.rename(path, beside / "old")
            try:
                os.rename(filling, path)
            except BaseException:  # an interrupt must not cost the old one either
                os.rename(beside / "old", path)
                raise
        else:
            os.rename(filling, path)


@contextlib.contextmanager
def _removed(path: Path) -> Iterator[Path]:
    """A directory beside `path` that is gone after the block."""
    beside = tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        yield Path(beside)
    finally:
        shutil.rmtree(beside, ignore_errors=True)


@contextlib.contextmanager
def _failures(path: Path) -> Iterator[None]:
    """Failures to write as UserError."""
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror or error}") from None


def _take_place(name: str, path: Path) -> None:
    """Rename `name` to `path` unless something has come to be there meanwhile."""
    try:
        os.link(name, path)
    except FileExistsError:
        raise _exists(path) from None
    except OSError:  # a file system without hard links
        refuse_file(path, replace=False)
        os.rename(name, path)


def refuse_file(path: Path, replace: bool) -> None:
    """Raise UserError if a file must not be put at `path`."""
    if not os.path.lexists(path):
        return
    # A symbolic link is not followed, and a device not replaced: root may well be who exports.
    if not stat.S_ISREG(path.lstat().st_mode):
        raise UserError(f"{path} is no regular file", "name another")
    if not replace:
        raise _exists(path)


def _refuse_directory(path: Path, replace: bool) -> None:
    """Raise UserError if a directory must not be put at `path`."""
    if not os.path.lexists(path):
        return
    if path.is_symlink() or not path.is_dir():
        raise UserError(f"{path} is no directory", "name another")
    try:
        inside = list(os.scandir(path))
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from None
    if not inside:
        return
    if not replace:
        raise _exists(path)
    ours = all(
        e.is_file(follow_symlinks=False) and Path(e.name).suffix in _SUFFIXES for e in inside
    )
    if not ours or MARK not in {entry.name for entry in inside}:
        raise UserError(
            f"{path} holds more than an export, so -f does not replace it", "name another"
        )


def _exists(path: Path) -> UserError:
    return UserError(f"{path} exists", "overwrite it with -f, or name another")
