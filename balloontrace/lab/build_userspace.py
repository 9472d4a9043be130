# SPDX-License-Identifier: Apache-2.0
"""Builds a userspace's image: a disk with one Debian tree, and the key that lets root in."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from balloontrace.lab import debian
from balloontrace.lab.debian import Progress
from balloontrace.lab.host import as_root, require_tools, tool
from balloontrace.lab.userspaces import Userspace

_SIZE = "2G"  # sparse; what a guest writes goes to its overlay


def recipe_files(_: Userspace) -> list[Path]:
    """Return our own files the image depends on, this one included."""
    scripts = sorted(path for path in debian.ROOTFS.iterdir() if path.is_file())
    return [Path(__file__), Path(debian.__file__), *scripts]


def build_userspace(userspace: Userspace, work: Path, progress: Progress) -> Path:
    """Build the image below ``work`` and return its directory, owned by the caller.

    Raises UserError when a tool is missing or a step fails.
    """
    require_tools(debian.TOOLS)
    out, root = work / "image", work / "root"
    out.mkdir()
    debian.make_key(out)
    progress(f"userspace {userspace.name}: downloading and unpacking Debian {userspace.suite}")
    command = debian.guest_tree(userspace, userspace.packages, out / "ssh_key.pub", root)
    debian.download(userspace, command, root, work / "rootfs.log", progress)
    disk = out / "rootfs.ext4"
    make = [tool("mke2fs"), "-q", "-t", "ext4", "-E", "lazy_itable_init=1", "-d", root, disk, _SIZE]
    debian.run_logged(userspace, as_root(list(map(str, make))), work / "disk.log", progress)
    subprocess.run(as_root(["chown", "-R", f"{os.getuid()}:{os.getgid()}", out]), check=True)
    return out
