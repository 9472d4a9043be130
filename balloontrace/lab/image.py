# SPDX-License-Identifier: Apache-2.0
"""The cache of images: one directory per recipe, found by the recipe's hash."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import subprocess
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TypeVar

from balloontrace.errors import UserError
from balloontrace.lab import build, build_userspace
from balloontrace.lab.host import as_root, require_free_space
from balloontrace.lab.kernels import Kernel
from balloontrace.lab.tables import Table
from balloontrace.lab.userspaces import Userspace

Progress = Callable[[str], None]
T = TypeVar("T", bound=Table)

IMAGE_DISK_BYTES = 6 << 30
"""The size of every image's root disk, as build.py has it. Not taken from there: that file is part
of the recipe, and a word changed in it builds all images anew."""

_BUILD_BYTES = 3 << 30
_WORK_PREFIX = "building-"


@dataclass(frozen=True)
class Image:
    """A built image: a directory of read-only files.

    userspace is the directory of another userspace's image than the kernel's own.
    """

    directory: Path
    userspace: Path | None = None

    @property
    def rootfs(self) -> Path:
        """The root disk, raw ext4, sparse."""
        return (self.userspace or self.directory) / "rootfs.ext4"

    @property
    def modules(self) -> Path:
        """A disk with the kernel's modules in /lib/modules, for userspaces of others."""
        return self.directory / "rootfs.ext4"

    @property
    def headers(self) -> Path:
        """The optional disk with the kernel's headers, for /usr/src."""
        return self.directory / "headers.ext4"

    @property
    def vmlinuz(self) -> Path:
        """The kernel."""
        return self.directory / "vmlinuz"

    @property
    def initrd(self) -> Path:
        """The initial RAM disk."""
        return self.directory / "initrd.img"

    @property
    def ssh_key(self) -> Path:
        """The private key that logs in as root."""
        return (self.userspace or self.directory) / "ssh_key"

    @property
    def release(self) -> str:
        """The kernel's ``uname -r``."""
        facts = json.loads((self.directory / "image.json").read_text(encoding="utf-8"))
        return str(facts["release"])


def cache_directory() -> Path:
    """Return the directory of all images (``$XDG_CACHE_HOME/balloontrace``); it may not exist."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "balloontrace"


def recipe_key(table: Table, files: Iterable[Path]) -> str:
    """Return the hash of everything an image is made from: a table's entry and our own files."""
    digest = hashlib.sha256(json.dumps(asdict(table), sort_keys=True).encode())
    for path in files:
        digest.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()[:16]


def find_image(kernel: Kernel) -> Image | None:
    """Return the kernel's image if it has been built, else None."""
    directory = _directory(kernel, build.recipe_files(kernel))
    return Image(directory) if directory.is_dir() else None


def ensure_image(kernel: Kernel, progress: Progress) -> Image:
    """Return the kernel's image, building it first if need be.

    progress gets one line at a time. Raises UserError when the host lacks a tool, the disk is
    full, the archive is out of reach, or the build fails.
    """
    directory = _directory(kernel, build.recipe_files(kernel))
    return Image(_ensure(directory, kernel, build.build_image, progress))


def ensure_userspace(userspace: Userspace, progress: Progress) -> Path:
    """Return the directory of the userspace's image, as `ensure_image` does a kernel's."""
    directory = _directory(userspace, build_userspace.recipe_files(userspace))
    return _ensure(directory, userspace, build_userspace.build_userspace, progress)


def _directory(table: Table, files: Iterable[Path]) -> Path:
    return cache_directory() / f"{table.name}-{recipe_key(table, files)}"


def _ensure(
    directory: Path,
    table: T,
    make: Callable[[T, Path, Progress], Path],
    progress: Progress,
) -> Path:
    """Return the directory once it is there. What `make` makes becomes it."""
    if directory.is_dir():
        return directory
    cache = cache_directory()
    cache.mkdir(parents=True, exist_ok=True)
    with _exclusive(cache / f"lock-{table.name}", progress):
        if directory.is_dir():
            return directory
        prefix = f"{_WORK_PREFIX}{table.name}-"
        for leftover in cache.glob(f"{prefix}*"):
            _remove_tree(leftover)
        require_free_space(cache, _BUILD_BYTES, "building an image")
        work = Path(tempfile.mkdtemp(prefix=prefix, dir=cache))
        work.chmod(0o755)  # apt's own user must get in
        try:
            make(table, work, progress).rename(directory)
        finally:
            _remove_tree(work)
        return directory


@contextmanager
def _exclusive(path: Path, progress: Progress) -> Iterator[None]:
    """Hold a lock that ends with the process and with whatever it left running.

    The build's programs inherit the lock: after a kill, the next build waits for their end.
    """
    with path.open("w") as file:
        os.set_inheritable(file.fileno(), True)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            progress("the same image is being built, waiting for it")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _remove_tree(path: Path) -> None:
    """Remove a work directory, parts of which belong to root."""
    done = subprocess.run(as_root(["rm", "-rf", "--one-file-system", path]), check=False)
    if done.returncode != 0:
        raise UserError(f"cannot remove {path}", "remove it as root")
