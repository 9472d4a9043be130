# SPDX-License-Identifier: Apache-2.0
"""Keeps what was compiled, for compiling is most of what `record` takes to begin.

A file is used only by whom it was made by, for this very source, compiler and kernel build, from a
directory that nobody else can write to, and only if its checksum is right. The verifier looks at
what it holds as at any other program.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

from balloontrace.tracers.load import bytecode, packages
from balloontrace.tracers.machine.files import text

DIRECTORY = Path("/var/cache/balloontrace")
KEPT = 8
"""Files, of about 100 KiB; the oldest go first."""

_OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH


def key(digest: str) -> str:
    """The name of what is compiled from the source with this digest, by this BCC and for this
    kernel. Raises UserError if there is no BCC."""
    parts = [digest, packages.find("bcc"), text(Path("/proc/version")), os.uname().machine]
    return _checksum("\0".join(parts).encode()).decode()


def find(name: str, directory: Path = DIRECTORY) -> bytecode.Compiled | None:
    """What is kept under `name`; None if there is nothing, or nothing that can be trusted."""
    try:
        if not _ours(os.lstat(directory)):
            return None
        descriptor = os.open(directory / name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        with open(descriptor, "rb") as file:
            if not _ours(os.fstat(descriptor)):
                return None
            checksum, _, content = file.read().partition(b"\n")
    except OSError:
        return None
    if _checksum(content) != checksum:
        return None
    try:
        return bytecode.from_json(content)
    except (ValueError, KeyError, TypeError):
        return None


def keep(name: str, what: bytecode.Compiled, directory: Path = DIRECTORY) -> None:
    """Keep `what` under `name`. Nothing happens where that cannot be: the cache only saves time."""
    content = what.to_json()
    try:
        directory.mkdir(mode=0o700, exist_ok=True)
        if not _ours(os.lstat(directory)):
            return
        unfinished = directory / f".{os.getpid()}"
        how = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        try:
            with open(os.open(unfinished, how, 0o600), "wb") as file:
                file.write(_checksum(content) + b"\n" + content)
            unfinished.replace(directory / name)
        finally:
            unfinished.unlink(missing_ok=True)
        by_age = sorted(directory.iterdir(), key=lambda path: path.lstat().st_mtime)
        for path in by_age[:-KEPT]:
            path.unlink()
    except OSError:
        return


def _checksum(content: bytes) -> bytes:
    import hashlib  # OpenSSL: the loader can afford it, the command line need not

    return hashlib.sha256(content).hexdigest().encode()


def _ours(status: os.stat_result) -> bool:
    """Nobody but us (and root, who may do anything anyway) can have written it."""
    kind = stat.S_ISREG(status.st_mode) or stat.S_ISDIR(status.st_mode)
    return kind and status.st_uid == os.geteuid() and not status.st_mode & _OTHERS_WRITE
