# SPDX-License-Identifier: Apache-2.0
"""A directory for as long as one process lives, however it ends."""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from pathlib import Path

_PREFIX = "balloontrace-lab-"


def own_directory() -> tuple[Path, int]:
    """Make a directory for one run, locked as long as this process lives.

    Directories whose process was killed are removed on the way.
    """
    for stale in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*"):
        _remove_if_dead(stale)
    directory = Path(tempfile.mkdtemp(prefix=_PREFIX))
    descriptor = os.open(directory / "alive", os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    return directory, descriptor


def _remove_if_dead(directory: Path) -> None:
    try:
        descriptor = os.open(directory / "alive", os.O_WRONLY | os.O_CLOEXEC)
    except OSError:
        return  # another user's, or just being made
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        shutil.rmtree(directory, ignore_errors=True)
    except BlockingIOError:
        pass
    finally:
        os.close(descriptor)
