# SPDX-License-Identifier: Apache-2.0
"""Builds one guest image: two Debian trees side by side, then the driver variant and the disks."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from balloontrace.errors import UserError
from balloontrace.lab.diagnosis import is_momentary, step_error
from balloontrace.lab.host import as_root, require_tools, tool
from balloontrace.lab.kernels import KERNELS_FILE, Kernel, place

Progress = Callable[[str], None]

_HERE = Path(__file__).parent
_ROOTFS_SIZE = "6G"  # sparse; what a guest writes goes to its overlay
_GUEST_PACKAGES = (
    "bpftool",
    "bpftrace",
    "busybox-static",
    "iproute2",
    "kmod",
    "openssh-server",
    "procps",
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
_TOOLS = ("apt-get", "dpkg-deb", "mke2fs", "mmdebstrap", "ssh-keygen", "unshare", "xz")
# What a killed mmdebstrap leaves mounted goes with its processes.
_PRIVATE_MOUNTS = ("unshare", "--mount", "--")
PAUSES_S = (10.0, 30.0)
"""A mirror that fails for a moment is asked again after so long."""
_UNWANTED_FILES = ("/usr/share/doc/*", "/usr/share/man/*", "/usr/share/locale/*")


def recipe_files(kernel: Kernel) -> list[Path]:
    """Return our own files the kernel's image depends on, this one included."""
    scripts = [*(_HERE / "rootfs").iterdir(), *kernel.recipe.iterdir()]
    return [Path(__file__), _HERE / "assemble", *sorted(p for p in scripts if p.is_file())]


def build_image(kernel: Kernel, work: Path, progress: Progress) -> Path:
    """Build the kernel's image below ``work`` and return its directory, owned by the caller.

    Raises UserError when a tool is missing or a step fails.
    """
    require_tools(_TOOLS)
    out = work / "image"
    out.mkdir()
    keygen = [tool("ssh-keygen"), "-q", "-t", "ed25519", "-N", "", "-C", "balloontrace-lab"]
    subprocess.run([*keygen, "-f", str(out / "ssh_key")], check=True)

    progress(f"kernel {kernel.name}: downloading and unpacking Debian {kernel.suite}")
    with ThreadPoolExecutor() as pool:
        steps = [
            pool.submit(download, kernel, command, tree, work / f"{name}.log", progress)
            for name, tree, command in (
                ("rootfs", work / "root", _rootfs_command(kernel, work)),
                ("builder", work / "builder", _builder_command(kernel, work)),
            )
        ]
        for step in steps:
            step.result()

    what = "it" if kernel.config else "the shrinker driver"
    progress(f"kernel {kernel.name}: compiling {what}, making the disks")
    script: list[str | Path] = [
        "sh",
        _HERE / "assemble",
        work,
        out,
        _HERE,
        kernel.recipe,
        _ROOTFS_SIZE,
    ]
    _logged(kernel, as_root([*_PRIVATE_MOUNTS, *script]), work / "assemble.log", progress)
    subprocess.run(as_root(["chown", "-R", f"{os.getuid()}:{os.getgid()}", out]), check=True)
    _write_facts(kernel, out)
    return out


def _rootfs_command(kernel: Kernel, work: Path) -> list[str]:
    hook = ["sh", str(_HERE / "rootfs" / "customize")]
    key = work / "image" / "ssh_key.pub"
    return as_root([
        *_PRIVATE_MOUNTS,
        # Debian's own initrd would take ten seconds to make; the hook makes a smaller one.
        "env", "INITRD=No", tool("mmdebstrap"), "--variant=minbase", "--format=directory",
        _include(kernel, kernel.image, *_GUEST_PACKAGES),
        "--dpkgopt=force-unsafe-io",
        *(f"--dpkgopt=path-exclude={pattern}" for pattern in _UNWANTED_FILES),
        *_pins(kernel),
        f'--customize-hook={shlex.join(hook)} "$1" {shlex.quote(str(key))}',
        kernel.suite, work / "root", *kernel.sources,
    ])  # fmt: skip


def _builder_command(kernel: Kernel, work: Path) -> list[str]:
    hook = ["sh", str(kernel.recipe / "fetch-source")]
    packages = _KERNEL_BUILDER if kernel.config else _DRIVER_BUILDER
    return as_root([
        *_PRIVATE_MOUNTS,
        # Unpacked, not configured: a compiler needs no maintainer scripts, and it is faster.
        tool("mmdebstrap"), "--variant=extract", "--format=directory", "--include=?essential",
        _include(kernel, kernel.headers, *packages),
        *_pins(kernel),
        f'--extract-hook={shlex.join(hook)} "$1" {kernel.source}',
        kernel.builder_suite, work / "builder", *kernel.builder_sources,
    ])  # fmt: skip


def _include(kernel: Kernel, *packages: str) -> str:
    return f"--include={','.join(name for name in packages if name and name not in kernel.without)}"


def _pins(kernel: Kernel) -> list[str]:
    if not kernel.pins:
        return []
    write = f'printf %s {shlex.quote(kernel.pins)} > "$1/etc/apt/preferences.d/lab"'
    return [f'--setup-hook=mkdir -p "$1/etc/apt/preferences.d" && {write}']


def download(
    kernel: Kernel, command: Sequence[str], tree: Path, log: Path, progress: Progress
) -> None:
    """Run a command that makes `tree` from Debian's archive, again if a mirror fails for a moment.

    Raises UserError when it fails for another reason, or too often.
    """
    for pause_s in PAUSES_S:
        if _ran(command, log, progress):
            return
        if not is_momentary(log):
            raise _failed(kernel, log)
        progress(f"kernel {kernel.name}: the mirror fails, asking it again in {pause_s:.0f} s")
        if tree.exists():
            subprocess.run(as_root(["rm", "-rf", "--one-file-system", tree]), check=True)
        time.sleep(pause_s)
    _logged(kernel, command, log, progress)


def _logged(kernel: Kernel, command: Sequence[str], log: Path, progress: Progress) -> None:
    """Run a build step. Raises UserError if it fails."""
    if not _ran(command, log, progress):
        raise _failed(kernel, log)


def _ran(command: Sequence[str], log: Path, progress: Progress) -> bool:
    """Run a command with its output in a log; mmdebstrap's own headlines are progress."""
    with log.open("w", encoding="utf-8") as file, subprocess.Popen(
        command, close_fds=False, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT, text=True, errors="replace",
    ) as process:  # fmt: skip
        for line in process.stdout or ():
            file.write(line)
            if line.startswith("I: ") and line.endswith("...\n"):
                progress(f"{log.stem}: {line[3:].strip()}")
    return process.returncode == 0


def _failed(kernel: Kernel, log: Path) -> UserError:
    # The work directory goes away, the evidence stays beside it.
    kept = log.parent.parent / f"failed-{kernel.name}-{log.name}"
    return step_error(log.rename(kept), kernel)


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
            f"correct {place(kernel.name, 'source *=') or KERNELS_FILE}",
        )
    facts = {"kernel": kernel.name, "release": release, "version": version, "packages": packages}
    (out / "image.json").write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
    for name in ("packages", "release", "source-version"):
        (out / name).unlink()
