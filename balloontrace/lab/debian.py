# SPDX-License-Identifier: Apache-2.0
"""Trees of packages from Debian's archive: what an image is made of, step by step, with logs."""

from __future__ import annotations

import shlex
import subprocess
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from balloontrace.errors import UserError
from balloontrace.lab.diagnosis import is_momentary, step_error
from balloontrace.lab.host import as_root, tool
from balloontrace.lab.tables import Table

Progress = Callable[[str], None]

ROOTFS = Path(__file__).with_name("rootfs")
"""What makes a plain tree a guest."""

TOOLS = ("apt-get", "mke2fs", "mmdebstrap", "ssh-keygen", "unshare")

PRIVATE_MOUNTS = ("unshare", "--mount", "--")
"""What a killed mmdebstrap leaves mounted goes with its processes."""

PAUSES_S = (10.0, 30.0)
"""A mirror that fails for a moment is asked again after so long."""

_BOOTED_WITH = ("busybox-static", "iproute2", "kmod", "openssh-server", "procps")
"""What the lab's own files call."""

_UNWANTED_FILES = ("/usr/share/doc/*", "/usr/share/man/*", "/usr/share/locale/*")


def make_key(out: Path) -> None:
    """Make the pair of keys that lets root in."""
    keygen = [tool("ssh-keygen"), "-q", "-t", "ed25519", "-N", "", "-C", "balloontrace-lab"]
    subprocess.run([*keygen, "-f", str(out / "ssh_key")], check=True)


def guest_tree(
    table: Table, packages: Iterable[str], key: Path, tree: Path, options: Iterable[str] = ()
) -> list[str]:
    """Return the command that makes a guest's tree, in which the SSH public key may log in."""
    hook = ["sh", str(ROOTFS / "customize")]
    return as_root([
        *PRIVATE_MOUNTS,
        # Debian's own initrd would take ten seconds to make; the lab makes a smaller one.
        "env", "INITRD=No", tool("mmdebstrap"), "--variant=minbase", "--format=directory",
        include(table, *_BOOTED_WITH, *packages),
        "--dpkgopt=force-unsafe-io",
        *(f"--dpkgopt=path-exclude={pattern}" for pattern in _UNWANTED_FILES),
        *options,
        f'--customize-hook={shlex.join(hook)} "$1" {shlex.quote(str(key))}',
        table.suite, tree, *table.sources,
    ])  # fmt: skip


def include(table: Table, *packages: str) -> str:
    """Return mmdebstrap's option for those of the packages that the suite has."""
    return f"--include={','.join(name for name in packages if name and name not in table.without)}"


def download(
    table: Table, command: Sequence[str], tree: Path, log: Path, progress: Progress
) -> None:
    """Run a command that makes `tree` from Debian's archive, again if a mirror fails for a moment.

    Raises UserError when it fails for another reason, or too often.
    """
    for pause_s in PAUSES_S:
        if _ran(command, log, progress):
            return
        if not is_momentary(log):
            raise _failed(table, log)
        progress(f"{table.name}: the mirror fails, asking it again in {pause_s:.0f} s")
        if tree.exists():
            subprocess.run(as_root(["rm", "-rf", "--one-file-system", tree]), check=True)
        time.sleep(pause_s)
    run_logged(table, command, log, progress)


def run_logged(table: Table, command: Sequence[str], log: Path, progress: Progress) -> None:
    """Run a build step. Raises UserError if it fails."""
    if not _ran(command, log, progress):
        raise _failed(table, log)


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


def _failed(table: Table, log: Path) -> UserError:
    # The work directory goes away, the evidence stays beside it.
    kept = log.parent.parent / f"failed-{table.name}-{log.name}"
    return step_error(log.rename(kept), table)
