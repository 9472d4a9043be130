# SPDX-License-Identifier: Apache-2.0
"""What the lab asks of the host: programs, root, disk space."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path

from balloontrace.errors import EXIT_UNSUPPORTED, UserError

_DEBIAN_PACKAGES = {
    "apt-get": "apt",
    "dpkg-deb": "dpkg",
    "mke2fs": "e2fsprogs",
    "mmdebstrap": "mmdebstrap",
    "qemu-img": "qemu-utils",
    "qemu-system-x86_64": "qemu-system-x86",
    "setpriv": "util-linux",
    "strace": "strace",
    "ssh": "openssh-client",
    "ssh-keygen": "openssh-client",
    "sudo": "sudo",
    "unshare": "util-linux",
    "vagrant": "vagrant vagrant-libvirt",
    "virsh": "libvirt-clients",
    "xz": "xz-utils",
}
_ROOT_PATH = "/usr/local/sbin:/usr/sbin:/sbin"


def tool(name: str) -> str:
    """Return the path of a program of the host, also from the directories of root's PATH.

    Raises UserError naming the Debian package when it is missing.
    """
    path = shutil.which(name, path=f"{os.environ.get('PATH', os.defpath)}:{_ROOT_PATH}")
    if path is None:
        package = _DEBIAN_PACKAGES[name]
        raise UserError(
            f"the lab needs {name}, which is not installed",
            f"apt-get install {package}",
            EXIT_UNSUPPORTED,
        )
    return path


def require_tools(names: Iterable[str]) -> None:
    """Raise UserError for the first program that is missing."""
    for name in names:
        tool(name)


def as_root(argv: Sequence[str | Path]) -> list[str]:
    """Return the command prefixed with sudo unless this process is root.

    Raises UserError when sudo is needed and missing.
    """
    command = [str(word) for word in argv]
    return command if os.geteuid() == 0 else [tool("sudo"), "--", *command]


def require_memory(needed_bytes: int) -> None:
    """Raise UserError unless this machine has that much memory in all."""
    has = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    if has < needed_bytes:
        raise UserError(
            f"the guest wants {needed_bytes >> 20} MiB, this machine has {has >> 20} MiB",
            "give --memory; a scenario's sizes are fractions of it",
            EXIT_UNSUPPORTED,
        )


def require_free_space(directory: Path, needed_bytes: int, purpose: str) -> None:
    """Raise UserError unless the directory's file system has room for ``needed_bytes``."""
    free = shutil.disk_usage(directory).free
    if free < needed_bytes:
        raise UserError(
            f"{purpose} needs {needed_bytes >> 20} MiB in {directory}, {free >> 20} MiB are free",
            "free some, or set XDG_CACHE_HOME to a larger disk",
        )
