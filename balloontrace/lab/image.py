# SPDX-License-Identifier: Apache-2.0
"""The cache of guest images: one directory per recipe, found by the recipe's hash."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from balloontrace.errors import UserError
from balloontrace.lab import build
from balloontrace.lab.host import as_root, require_free_space
from balloontrace.lab.kernels import Kernel

Progress = Callable[[str], None]

_BUILD_BYTES = 3 << 30
_WORK_PREFIX = "building-"


@dataclass(frozen=True)
class Image:
    """A built image: a directory of read-only files."""

    directory: Path

    @property
    def rootfs(self) -> Path:
        """The root disk, raw ext4, sparse."""
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
        return self.directory / "ssh_key"

    @property
    def release(self) -> str:
        """The kernel's ``uname -r``."""
        facts = json.loads((self.directory / "image.json").read_text(encoding="utf-8"))
        return str(facts["release"])


def cache_directory() -> Path:
    """Return the directory of all images (``$XDG_CACHE_HOME/balloontrace``); it may not exist."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "balloontrace"


def recipe_key(kernel: Kernel) -> str:
    """Return the hash of everything an image is made from: the kernel entry and our own files."""
    digest = hashlib.sha256(json.dumps(asdict(kernel), sort_keys=True).encode())
    for path in build.recipe_files(kernel):
        digest.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()[:16]


def find_image(kernel: Kernel) -> Image | None:
    """Return the kernel's image if it has been built, else None."""
    directory = _image_directory(kernel)
    return Image(directory) if directory.is_dir() else None


def ensure_image(kernel: Kernel, progress: Progress) -> Image:
    """Return the kernel's image, building it first if need be.

    progress gets one line at a time. Raises UserError when the host lacks a tool, the disk is
    full, the archive is out of reach, or the build fails.
    """
    return find_image(kernel) or _build_once(kernel, progress)


def _image_directory(kernel: Kernel) -> Path:
    return cache_directory() / f"{kernel.name}-{recipe_key(kernel)}"


def _build_once(kernel: Kernel, progress: Progress) -> Image:
    cache = cache_directory()
    cache.mkdir(parents=True, exist_ok=True)
    with _exclusive(cache / f"lock-{kernel.name}", progress):
        image = Image(_image_directory(kernel))
        if image.directory.is_dir():
            return image
        prefix = f"{_WORK_PREFIX}{kernel.name}-"
        for leftover in cache.glob(f"{prefix}*"):
            _remove_tree(leftover)
        require_free_space(cache, _BUILD_BYTES, "building an image")
        work = Path(tempfile.mkdtemp(prefix=prefix, dir=cache))
        work.chmod(0o755)  # apt's own user must get in
        try:
            build.build_image(kernel, work, progress).rename(image.directory)
        finally:
            _remove_tree(work)
        return image


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
