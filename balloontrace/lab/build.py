# SPDX-License-Identifier: Apache-2.0
"""Builds a kernel's image: two Debian trees side by side, then the driver variant and the disks."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from balloontrace.errors import UserError
from balloontrace.lab import debian
from balloontrace.lab.debian import Progress
from balloontrace.lab.host import as_root, require_tools, tool
from balloontrace.lab.kernels import Kernel

_HERE = Path(__file__).parent
_ROOTFS_SIZE = "6G"  # sparse; what a guest writes goes to its overlay
_GUEST_PACKAGES = (
    "bpftool",
    "bpftrace",
    "python3",
    "python3-bpfcc",
    "python3-pyroute2",
    "python3-typer",
    "rsync",  # this one and sudo for Vagrant
    "sudo",
)
_DRIVER_BUILDER = (
    "binutils",
    "coccinelle",
    "libc6-dev",
    "lz4",
    "make",
    "pahole",
    "xz-utils",
    "zstd",
)
_KERNEL_BUILDER = (
    *("bc", "bison", "flex", "gcc", "kmod", "libc6-dev", "libelf-dev", "make", "pahole", "perl"),
    *("python3", "xz-utils"),
)
_TOOLS = (*debian.TOOLS, "dpkg-deb", "xz")


def recipe_files(kernel: Kernel) -> list[Path]:
    """Return our own files the kernel's image depends on, this one included."""
    scripts = [*debian.ROOTFS.iterdir(), *kernel.recipe.iterdir()]
    ours = [Path(__file__), Path(debian.__file__), _HERE / "assemble"]
    return [*ours, *sorted(p for p in scripts if p.is_file())]


def build_image(kernel: Kernel, work: Path, progress: Progress) -> Path:
    """Build the kernel's image below ``work`` and return its directory, owned by the caller.

    Raises UserError when a tool is missing or a step fails.
    """
    require_tools(_TOOLS)
    out = work / "image"
    out.mkdir()
    debian.make_key(out)

    progress(f"kernel {kernel.name}: downloading and unpacking Debian {kernel.suite}")
    with ThreadPoolExecutor() as pool:
        steps = [
            pool.submit(debian.download, kernel, command, tree, work / f"{name}.log", progress)
            for name, tree, command in (
                ("rootfs", work / "root", _rootfs_command(kernel, work)),
                ("builder", work / "builder", _builder_command(kernel, work)),
            )
        ]
        for step in steps:
            step.result()

    what = "it" if kernel.config else "the shrinker driver"
    progress(f"kernel {kernel.name}: compiling {what}, making the disks")
    script = ["sh", _HERE / "assemble", work, out, _HERE, kernel.recipe, _ROOTFS_SIZE]
    command = as_root([*debian.PRIVATE_MOUNTS, *map(str, script)])
    debian.run_logged(kernel, command, work / "assemble.log", progress)
    subprocess.run(as_root(["chown", "-R", f"{os.getuid()}:{os.getgid()}", out]), check=True)
    _write_facts(kernel, out)
    return out


def _rootfs_command(kernel: Kernel, work: Path) -> list[str]:
    packages = (kernel.image, *_GUEST_PACKAGES)
    key = work / "image" / "ssh_key.pub"
    return debian.guest_tree(kernel, packages, key, work / "root", _pins(kernel))


def _builder_command(kernel: Kernel, work: Path) -> list[str]:
    hook = ["sh", str(kernel.recipe / "fetch-source")]
    packages = _KERNEL_BUILDER if kernel.config else _DRIVER_BUILDER
    return as_root([
        *debian.PRIVATE_MOUNTS,
        # Unpacked, not configured: a compiler needs no maintainer scripts, and it is faster.
        tool("mmdebstrap"), "--variant=extract", "--format=directory", "--include=?essential",
        debian.include(kernel, kernel.headers, *packages),
        *_pins(kernel),
        f'--extract-hook={shlex.join(hook)} "$1" {kernel.source} {kernel.headers}',
        kernel.builder_suite, work / "builder", *kernel.builder_sources,
    ])  # fmt: skip


def _pins(kernel: Kernel) -> list[str]:
    if not kernel.pins:
        return []
    write = f'printf %s {shlex.quote(kernel.pins)} > "$1/etc/apt/preferences.d/lab"'
    return [f'--setup-hook=mkdir -p "$1/etc/apt/preferences.d" && {write}']


def _write_facts(kernel: Kernel, out: Path) -> None:
    """Write image.json, and refuse a driver compiled from another kernel's source."""
    lines = (out / "packages").read_text(encoding="utf-8").splitlines()
    packages = dict(line.split(" ", 1) for line in lines)
    release = (out / "release").read_text(encoding="utf-8").strip()
    source = (out / "source-version").read_text(encoding="utf-8").strip()
    version = packages.get(f"linux-image-{release}", source)  # there is none of one compiled here
    if source != version:
        raise UserError(
            f"{kernel.source} {source} is not the source of the image's kernel {version}",
            f"correct {kernel.place('source *=') or kernel.FILE}",
        )
    facts = {"kernel": kernel.name, "release": release, "version": version, "packages": packages}
    (out / "image.json").write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
    for name in ("packages", "release", "source-version"):
        (out / name).unlink()
