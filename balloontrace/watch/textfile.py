# SPDX-License-Identifier: Apache-2.0
"""The page as a file, for the textfile collector of node_exporter, which reads every *.prom."""

from __future__ import annotations

import errno
import os
import stat

from balloontrace.errors import UserError

NAME = "balloontrace.prom"


def write(directory: str, page: bytes) -> None:
    """Put `page` into `directory`, whole or not at all, in place of the one before.

    Raises UserError if the directory is not there, or cannot be written.
    """
    temporary = os.path.join(directory, f"{NAME}.{os.getpid()}")
    try:
        _write_new(temporary, page)
        try:
            os.rename(temporary, os.path.join(directory, NAME))
        except OSError:
            os.unlink(temporary)
            raise
    except OSError as error:
        raise UserError(f"cannot write {NAME} in {directory}: {error.strerror}") from None


def _write_new(path: str, page: bytes) -> None:
    """Make a file that is nobody's yet. Raises OSError; there is no such file then."""
    descriptor = _create(path)
    try:
        os.fchmod(descriptor, 0o644)  # the collector runs as another user, whatever our umask is
        rest = memoryview(page)
        while rest:
            rest = rest[os.write(descriptor, rest) :]
    except OSError:
        os.unlink(path)
        raise
    finally:
        os.close(descriptor)


def _create(path: str) -> int:
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        return os.open(path, flags, 0o600)
    except FileExistsError:
        if not stat.S_ISREG(os.lstat(path).st_mode):
            raise OSError(errno.EEXIST, f"{path} is there, and is no file") from None
        os.unlink(path)  # left behind by one of the same process id that was killed
        return os.open(path, flags, 0o600)
